import io
import itertools
import json
import math
import re
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from tempfile import SpooledTemporaryFile

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from siamese import load
from siamese.evaluation import evaluate
from siamese.faces import face as see
from siamese.faces.detection import Found
from siamese.network import bundled_weights

from .conftest import EXAMPLES, ROOT, alike

ATT = bundled_weights("att")
A, B = EXAMPLES / "obama-portrait.jpg", EXAMPLES / "biden.jpg"


@pytest.fixture(scope="module")
def model():
    return load()


def test_the_default_are_the_repositorys_weights(model):
    assert model.name == str(ROOT / "weights" / "faces")
    assert model.align == "faces"


def test_the_weights_that_come_along_have_their_names_everywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert load("weights/att").network.input_shape == (1, 100, 100)
    with pytest.raises(FileNotFoundError, match="there is no folder weights/other"):
        load("weights/other")


def test_takes_open_files_and_says_what_it_does_not_take(model):
    z = model.embed([A])
    with A.open("rb") as file:
        assert np.array_equal(model.embed([file]), z)
    with SpooledTemporaryFile() as file:  # what web frameworks hand over
        file.write(A.read_bytes())
        assert np.allclose(model.embed([file, file]), z[[0, 0]], atol=1e-3)
    with pytest.raises(ValueError, match="is not a picture"):
        model.embed([io.StringIO("la la la")])
    array = np.asarray(Image.open(A).convert("RGB"))
    assert np.array_equal(model.embed(array[None]), model.embed([array]))
    assert np.array_equal(model.embed(np.array([str(A)])), z)
    assert load(ATT).embed(np.zeros((5, 100, 100), np.uint8)).shape == (5, 2)
    for one in (A, str(A), A.read_bytes(), Image.open(A), array):
        with pytest.raises(ValueError, match="expected several pictures, got one: put it into a list"):
            model.embed(one)
    with pytest.raises(ValueError, match=r"https://a\.org/b\.jpg is an address, and nothing is fetched"):
        model.compare(A, "https://a.org/b.jpg")
    with pytest.raises(ValueError, match="for this network there is none: leave it out"):
        load(ATT).compare(A, B, fmr=0.01)


def test_the_tutorials_weights_stay_selectable():
    answer = load(ATT).compare(A, B)
    assert [face.crop.size for face in answer.faces] == [(100, 100)] * 2
    assert (answer.faces[0].box, answer.found) == (None, ((), ()))


def test_dissimilarity_is_the_distance_of_the_embeddings(model):
    z = model.embed([A, B])
    assert z.shape == (2, 128)
    assert z.dtype == np.float32
    assert model.compare(A, B).dissimilarity == pytest.approx(np.linalg.norm(z[0] - z[1]), rel=1e-5)
    assert np.linalg.norm(z, axis=1) == pytest.approx(1)
    assert model.embed([]).shape == (0, 128)


def test_an_answer_agrees_with_itself(model):
    for pair in ((A, B), (A, A), (B, EXAMPLES / "collins.jpg"), (A, EXAMPLES / "obama-standing.jpg")):
        answer = model.compare(*pair)
        assert (answer.probability > 0.5) == (answer.dissimilarity < answer.threshold)
        verdict = "same" if answer.probability >= 0.75 else "different" if answer.probability <= 0.25 else "unsure"
        assert answer.verdict == verdict
        assert answer.confidence_interval[0] <= answer.probability <= answer.confidence_interval[1]
        assert [face.crop.size for face in answer.faces] == [(150, 150)] * 2
        assert answer.faces[0].box == answer.found[0][0].box
        json.dumps(answer.to_dict(), allow_nan=False)


def test_it_knows_who_is_who(model):
    """All pairs of the example photographs, at the verdict's own odds."""
    for a, b in itertools.combinations(sorted(EXAMPLES.glob("*.jpg")), 2):
        same = a.name.split("-")[0] == b.name.split("-")[0]
        assert model.compare(a, b).verdict == ("same" if same else "different"), (a.name, b.name)


def test_the_order_and_the_mirror_image_do_not_matter(model):
    mirrored = ImageOps.mirror(Image.open(A))
    assert model.compare(A, B).dissimilarity == pytest.approx(model.compare(B, A).dissimilarity, rel=1e-4)
    assert model.compare(A, mirrored).dissimilarity < 0.1


def test_a_photo_without_a_face_is_an_answer(model, siamese, tmp_path):
    answer = model.compare(Image.new("RGB", (300, 300)), B)
    assert math.isnan(answer.dissimilarity)
    assert math.isnan(answer.probability)
    assert (answer.verdict, answer.faces[0], answer.found[0], answer.confidence_interval) == ("unsure", None, (), None)
    assert answer.faces[1] is not None
    assert [warning for warning in answer.warnings if "No face was found in the first picture" in warning]
    assert answer.to_dict()["dissimilarity"] is None
    json.dumps(answer.to_dict(), allow_nan=False)
    rows = model.embed([A, Image.new("RGB", (300, 300)), B])
    assert np.isnan(rows).any(axis=1).tolist() == [False, True, False]
    Image.new("RGB", (300, 300)).save(tmp_path / "blank.png")
    run = siamese("compare", A, tmp_path / "blank.png")
    assert run.returncode == 0
    assert run.stdout.startswith("Note: No face was found in the second picture.")


def test_a_false_match_rate_moves_the_threshold_and_the_verdict(model, siamese, tmp_path):
    """A pair that is the same at even odds, too far apart for one false match in 100,000, and never different."""
    rates = [point.fmr for point in model.calibration.operating_points]
    pair = tmp_path / "small.png", EXAMPLES / "obama-portrait.jpg"
    Image.open(EXAMPLES / "obama-standing.jpg").reduce(8).save(pair[0])
    plain = model.compare(*pair)
    for rate in rates:
        answer = model.compare(*pair, fmr=rate)
        assert answer.threshold == model.calibration.operating_point(rate).distance
        assert answer.dissimilarity == plain.dissimilarity
        assert answer.verdict == ("same" if plain.dissimilarity <= answer.threshold else "unsure")
    assert {model.compare(*pair, fmr=rate).verdict for rate in rates} == {"same", "unsure"}
    assert model.compare(A, B, fmr=rates[0]).verdict == "different"
    run = siamese("compare", *pair, "--fmr", rates[-1], "--json")
    assert json.loads(run.stdout)["verdict"] == "unsure"
    run = siamese("compare", *pair, "--fmr", 0.5)
    assert run.returncode == 2
    assert "no threshold was measured for a false-match rate of 0.5; there is one for: 0.01, 0.001" in run.stderr


@pytest.fixture(scope="module")
def two() -> Image.Image:
    """Two people side by side: Biden, and Collins in the smaller half."""
    both = Image.new("RGB", (900, 600))
    both.paste(Image.open(EXAMPLES / "biden.jpg").resize((500, 600)), (0, 0))
    both.paste(Image.open(EXAMPLES / "collins.jpg").resize((400, 400)), (500, 0))
    return both


def test_of_several_faces_the_caller_can_choose(model, two, siamese, tmp_path):
    first = model.compare(two, B)
    assert first.verdict == "same"
    assert "2 faces in the first picture; the largest near the middle was compared." in first.warnings
    assert len(first.found[0]) == 2
    other = model.compare(two, B, face=(1, 0))
    assert other.verdict == "different"
    assert other.faces[0].box == first.found[0][1].box
    assert model.compare(two, two, face=1).dissimilarity == 0
    for face in (2, (0, 1), -1):
        with pytest.raises(ValueError, match=r"2 faces: choose one from 0 to 1|one face, which is number 0, got 1"):
            model.compare(two, B, face=face)
    with pytest.raises(ValueError, match="one for each of the two pictures"):
        model.compare(two, B, face=(0,))
    with pytest.raises(ValueError, match="takes pictures whole: leave out face"):
        load(ATT).compare(two, B, face=1)
    assert model.compare(two, B, face=np.int64(0)).dissimilarity == first.dissimilarity
    two.save(tmp_path / "two.png")
    run = siamese("compare", tmp_path / "two.png", B, "--face", 1, 0, "--json")
    assert json.loads(run.stdout)["verdict"] == "different"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda photo: ImageEnhance.Brightness(photo).enhance(0.15), "is very dark"),
        (lambda photo: photo.filter(ImageFilter.GaussianBlur(7)), "is blurred"),
        (lambda photo: photo.resize((140, 175)), r"is small: \d\d pixels"),
    ],
)
def test_warns_of_photos_that_are_hard_to_compare(model, change, says):
    photo = Image.open(A).convert("RGB")
    assert model.compare(photo, B).warnings == ()
    (warning,) = model.compare(change(photo), B).warnings
    assert re.search(f"The face in the first picture {says}", warning)


def test_warns_of_a_face_in_profile():
    face = Found((0, 0, 100, 100), ((60.0, 40.0), (85.0, 40.0), (95.0, 60.0), (65.0, 80.0), (85.0, 80.0)), 0.99)
    assert face.turn == pytest.approx((95 - 72.5) / 25)
    crop = Image.effect_noise((150, 150), 80).convert("RGB")
    (warning,) = see.quality_warnings(see.Face(crop, face), 1, 0, "second")
    assert warning == "The face in the second picture is strongly turned to the side."


def test_large_jpegs_are_read_small_and_measured_in_their_own_pixels(model, tmp_path):
    photo = Image.open(A).convert("RGB")
    photo.resize((3200, 4000)).save(tmp_path / "large.jpg", quality=92)
    small, large = model.compare(photo, B), model.compare(tmp_path / "large.jpg", B)
    assert large.faces[0].box == pytest.approx([5 * edge for edge in small.faces[0].box], rel=0.02)
    assert large.dissimilarity == pytest.approx(small.dissimilarity, abs=0.05)


def test_hostile_files_get_a_sentence_quickly_and_in_little_memory(tmp_path):
    """Each in one process, which may take 1 GB beyond what importing takes, and some seconds of the processor."""
    photo = Image.open(A).convert("RGB")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(A.read_bytes()[:5000])
    (tmp_path / "song.jpg").write_bytes(b"la la la" * 1000)
    photo.resize((7000, 7000)).save(tmp_path / "49-megapixels.jpg")
    Image.new("RGBA", (7000, 7000), (9, 9, 9, 128)).save(tmp_path / "49-megapixels-alpha.png", compress_level=1)
    Image.new("I;16", (7000, 7000), 30_000).save(tmp_path / "49-megapixels-16-bit.png", compress_level=1)
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4))
    photo.save(tmp_path / "animated.gif", save_all=True, append_images=[photo.rotate(5)] * 5)
    photo.convert("CMYK").save(tmp_path / "cmyk.jpg")
    photo.quantize().save(tmp_path / "palette.png")
    code = """
import json, resource, sys, time
import siamese
model = siamese.load()
model.compare(sys.argv[1], sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
try:
    said = model.compare(sys.argv[2], sys.argv[1]).verdict
except ValueError as error:
    said = str(error)
seconds = time.process_time() - began
print(json.dumps([said, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6]))
"""
    for file in sorted(tmp_path.iterdir()):
        command = [sys.executable, "-c", code, str(B), str(file)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        said, seconds, gigabytes = json.loads(run.stdout or "[]") or pytest.fail(f"{file.name}: {run.stderr}")
        print(f"{file.name}: {said} {seconds:.2f} s {gigabytes:.2f} GB")
        assert seconds < 30, file.name  # half a second to four on a quiet machine
        assert gigabytes < 1, file.name
        answered = file.name.startswith(("animated", "cmyk", "palette", "49"))
        assert (said in ("same", "different", "unsure")) == answered, (file.name, said)


def test_what_loads_no_face_network_by_accident(tmp_path):
    shutil.copytree(ATT, tmp_path / "att")
    config = json.loads((tmp_path / "att" / "config.json").read_text())
    (tmp_path / "att" / "config.json").write_text(json.dumps({**config, "align": "thumbs"}))
    with pytest.raises(ValueError, match="unknown align 'thumbs'"):
        load(tmp_path / "att")


def test_one_image_twice_is_at_distance_zero_and_says_so(model):
    answer = model.compare(A, Image.open(A))
    assert answer.dissimilarity == 0
    assert answer.verdict == "same"
    assert answer.warnings == ("Both pictures are the same image.",)
    assert model.compare(A, B).warnings == ()


def test_a_path_an_image_and_an_array_give_one_answer(model):
    image = Image.open(A).convert("RGB")
    answers = {model.compare(a, B).dissimilarity for a in (A, str(A), image, np.asarray(image))}
    assert len(answers) == 1


def test_threads_share_a_model(model):
    expected = model.compare(A, B).dissimilarity
    got = []
    threads = [threading.Thread(target=lambda: got.append(model.compare(A, B).dissimilarity)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected] * 8


def test_refuses_what_is_no_model(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="USER/NAME"):
        load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no trained network"):
        load(tmp_path)
    shutil.copytree(ATT, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged, or not the one"):
        load(tmp_path / "cut")
    (tmp_path / "cut" / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"metrics\.json"):
        load(tmp_path / "cut")
    shutil.copytree(ATT, tmp_path / "att")
    config = json.loads((tmp_path / "att" / "config.json").read_text())
    for broken in ({**config, "calibration": None}, {k: v for k, v in config.items() if k != "calibration"}):
        (tmp_path / "att" / "config.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"config\.json"):
            load(tmp_path / "att")


def test_weights_and_calibration_of_two_runs_are_not_mixed(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "mixed")
    shutil.copy(ATT / "model.safetensors", tmp_path / "mixed")
    with pytest.raises(ValueError, match="not the one that config"):
        load(tmp_path / "mixed")


def test_command_line_prints_the_same_answer(model, siamese):
    run = siamese("compare", A, B, "--json")
    assert alike(json.loads(run.stdout), model.compare(A, B).to_dict())
    assert f"Dissimilarity: {model.compare(A, B).dissimilarity:.3f}\n" in siamese("compare", A, B).stdout


def test_command_line_tells_errors_in_a_sentence(tmp_path, siamese):
    for arguments, says in (
        ((A, tmp_path / "none.jpg"), "there is no file"),
        ((A, __file__), "is not a picture"),
        ((A, B, "--weights", tmp_path), "holds no trained network"),
        ((A,), "are required: b"),
    ):
        run = siamese("compare", *arguments)
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr.startswith("error: ")
        assert says in run.stderr


def test_using_needs_only_what_the_space_installs():
    """Loading and comparing import nothing that only training needs."""
    needless = "('sklearn', 'matplotlib', 'gradio', 'dlib')"
    code = f"import sys, siamese; siamese.load(); print([name for name in {needless} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "[]", run.stderr


def test_evaluate_repeats_the_numbers_that_ship(att, tmp_path, siamese):
    run = siamese("evaluate", ATT, "--data", "att", "--json", tmp_path / "numbers.json")
    assert run.returncode == 0, run.stderr
    assert "s5, s6, s7" in run.stdout
    shipped = load(ATT).record["test"]
    assert json.loads((tmp_path / "numbers.json").read_text())["test"] == pytest.approx(shipped, abs=1e-4)


def test_evaluate_retrains_by_folds_and_takes_other_data(trained, digits, tmp_path, siamese):
    run = siamese("evaluate", trained, "--data", digits, "--folds", "2", "--json", tmp_path / "numbers.json")
    assert run.returncode == 0, run.stderr
    record = json.loads((trained / "metrics.json").read_text())
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["folds"]["pooled"] == pytest.approx(record["folds"]["pooled"], abs=1e-6)


def test_evaluate_never_scores_people_it_was_trained_on(trained, digits, tmp_path, siamese):
    """A photograph more makes other data of it, but no other people."""
    shutil.copytree(digits, tmp_path / "more")
    shutil.copy(digits / "3" / "0.png", tmp_path / "more" / "3" / "9.png")
    people = json.loads((trained / "metrics.json").read_text())["people"]
    run = siamese("evaluate", trained, "--data", tmp_path / "more")
    assert f"not trained on: {', '.join(people['test'])} |" in run.stdout
    shutil.rmtree(tmp_path / "more" / people["test"][0])
    assert "only 1 are left" in siamese("evaluate", trained, "--data", tmp_path / "more").stderr
    for name in people["training"][:2]:
        (tmp_path / "more" / name).rename(tmp_path / "more" / f"new-{name}")
    assert f"{people['test'][1]}, new-" in siamese("evaluate", trained, "--data", tmp_path / "more").stdout


def test_evaluate_never_scores_people_whom_the_weights_before_have_seen(trained, digits):
    model = load(trained)
    people = {"training": ["0"], "test": ["1"], "pretraining": ["2", "3"]}
    model.record = {**model.record, "people": people}
    assert evaluate.evaluate_folder(model, digits)[0] == list("1456789")
    assert evaluate.seen_by({**people, "pretraining": None}) is None
    assert evaluate.seen_by({**people, "training": [0]}) is None
