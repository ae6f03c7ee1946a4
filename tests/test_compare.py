"""Loading a network and comparing photos."""

import io
import itertools
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from siamese import load
from siamese.faces import Face, quality_warnings
from siamese.faces.detection import Detection
from siamese.faces.quality import quality_causes
from siamese.files import bundled_weights
from siamese.network import SiameseNetwork

from .conftest import EXAMPLES, ROOT, alike

ATT = bundled_weights("att")
A, B = EXAMPLES / "obama-portrait.jpg", EXAMPLES / "biden.jpg"


def test_default_weights(model):
    assert model.name == str(ROOT / "weights" / "faces")
    assert model.align == "faces"


def test_bundled_weights_are_found_in_any_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert load("weights/att").network.input_shape == (1, 100, 100)
    with pytest.raises(FileNotFoundError, match="weights/other"):
        load("weights/other")


def test_embed_accepts_all_kinds_of_images(model):
    z = model.embed([A])
    with A.open("rb") as file:
        assert np.array_equal(model.embed([file]), z)
    with SpooledTemporaryFile() as file:  # as in web frameworks
        file.write(A.read_bytes())
        assert np.allclose(model.embed([file, file]), z[[0, 0]], atol=1e-3)
    array = np.asarray(Image.open(A).convert("RGB"))
    assert np.array_equal(model.embed(array[None]), model.embed([array]))
    assert np.array_equal(model.embed(np.array([str(A)])), z)
    assert load(ATT).embed(np.zeros((5, 100, 100), np.uint8)).shape == (5, 2)


def test_embed_rejects_a_single_image(model):
    for one in (A, str(A), A.read_bytes(), Image.open(A), np.asarray(Image.open(A).convert("RGB"))):
        with pytest.raises(ValueError, match="put it into a list"):
            model.embed(one)
    with pytest.raises(ValueError, match="binary mode"):
        model.embed([io.StringIO("la la la")])


def test_urls_are_rejected(model):
    with pytest.raises(ValueError, match=r"https://a\.org/b\.jpg is a URL"):
        model.compare(A, "https://a.org/b.jpg")


def test_without_alignment_the_whole_image_is_compared():
    answer = load(ATT).compare(A, B)
    assert [face.crop.size for face in answer.faces] == [(100, 100)] * 2
    assert (answer.faces[0].box, answer.faces[0].detection, answer.found) == (None, None, ((), ()))
    with pytest.raises(ValueError, match="false-match rate"):
        load(ATT).compare(A, B, fmr=0.01)


def test_dissimilarity_is_the_distance_of_the_embeddings(model):
    z = model.embed([A, B])
    assert z.shape == (2, 192)
    assert z.dtype == np.float32
    assert model.compare(A, B).dissimilarity == pytest.approx(np.linalg.norm(z[0] - z[1]), rel=1e-5)
    assert np.linalg.norm(z, axis=1) == pytest.approx(1)
    assert model.embed([]).shape == (0, 192)


def test_fields_of_an_answer_are_consistent(model):
    for pair in ((A, B), (A, A), (B, EXAMPLES / "collins.jpg"), (A, EXAMPLES / "obama-standing.jpg")):
        answer = model.compare(*pair)
        assert (answer.verdict == "same") == (answer.dissimilarity <= answer.threshold)
        assert answer.same is {"same": True, "different": False}.get(answer.verdict)
        assert all(0 <= face.quality <= 1 for face in answer.faces)
        verdict = "same" if answer.probability >= 0.75 else "different" if answer.probability <= 0.25 else "unsure"
        assert answer.verdict == verdict
        assert answer.confidence_interval[0] <= answer.probability <= answer.confidence_interval[1]
        assert [face.crop.size for face in answer.faces] == [(112, 112)] * 2
        assert answer.faces[0] is answer.found[0][0]
        json.dumps(answer.to_dict(), allow_nan=False)


def test_answer_is_neither_true_nor_false(model):
    answer = model.compare(A, B)
    with pytest.raises(TypeError, match=r"answer\.same"):
        bool(answer)


def test_verdicts_for_all_pairs_of_examples(model):
    for a, b in itertools.combinations(sorted(EXAMPLES.glob("*.jpg")), 2):
        same = a.name.split("-")[0] == b.name.split("-")[0]
        assert model.compare(a, b).verdict == ("same" if same else "different"), (a.name, b.name)


def test_order_and_mirroring_do_not_matter(model):
    mirrored = ImageOps.mirror(Image.open(A))
    assert model.compare(A, B).dissimilarity == pytest.approx(model.compare(B, A).dissimilarity, rel=1e-4)
    assert model.compare(A, mirrored).dissimilarity < 0.25


def test_photo_without_a_face(model, siamese, tmp_path):
    answer = model.compare(Image.new("RGB", (300, 300)), B)
    assert math.isnan(answer.dissimilarity)
    assert math.isnan(answer.probability)
    assert (answer.verdict, answer.same, answer.faces[0], answer.found[0]) == ("no face", None, None, ())
    assert (answer.pairs, answer.confidence_interval) == (0, None)
    assert answer.faces[1] is not None
    assert str(answer) == " ".join(answer.warnings)
    assert len(answer.warnings) == 1
    assert "first photo" in str(answer)
    assert answer.to_dict()["dissimilarity"] is None
    json.dumps(answer.to_dict(), allow_nan=False)
    rows = model.embed([A, Image.new("RGB", (300, 300)), B])
    assert np.isnan(rows).any(axis=1).tolist() == [False, True, False]
    Image.new("RGB", (300, 300)).save(tmp_path / "blank.png")
    run = siamese("compare", A, tmp_path / "blank.png")
    assert run.returncode == 1
    assert run.stdout == str(model.compare(A, tmp_path / "blank.png")) + "\n"


def test_false_match_rate_moves_the_threshold(model, siamese, tmp_path):
    """This pair is "same" at odds of 3 to 1, but too far apart for one false match in 100,000."""
    rates = [0.01, 1e-3, 1e-5, 1e-7]
    pair = tmp_path / "small.png", EXAMPLES / "obama-portrait.jpg"
    Image.open(EXAMPLES / "obama-standing.jpg").reduce(8).save(pair[0])
    plain = model.compare(*pair)
    for rate in rates:
        answer = model.compare(*pair, fmr=rate)
        qualities = [face.quality for face in answer.faces]
        assert answer.threshold == model.calibration.distance_at(model.calibration.needed(rate), qualities)
        assert (answer.dissimilarity, answer.score, answer.fmr) == (plain.dissimilarity, plain.score, rate)
        assert answer.verdict == ("same" if plain.dissimilarity <= answer.threshold else "unsure")
    assert {model.compare(*pair, fmr=rate).verdict for rate in rates} == {"same", "unsure"}
    assert model.compare(A, B, fmr=rates[0]).verdict == "different"
    run = siamese("compare", *pair, "--fmr", rates[-1], "--json")
    assert json.loads(run.stdout)["verdict"] == "unsure"
    run = siamese("compare", *pair, "--fmr", 0)
    assert run.returncode == 2
    assert "got 0.0" in run.stderr


@pytest.fixture(scope="module")
def two() -> Image.Image:
    """Two people side by side: Biden, and Collins in the smaller half."""
    both = Image.new("RGB", (900, 600))
    both.paste(Image.open(EXAMPLES / "biden.jpg").resize((500, 600)), (0, 0))
    both.paste(Image.open(EXAMPLES / "collins.jpg").resize((400, 400)), (500, 0))
    return both


def test_choosing_one_of_several_faces(model, two, siamese, tmp_path):
    first = model.compare(two, B)
    assert (first.verdict, first.numbers, first.pairs) == ("same", (1, 1), 2)
    assert len(first.found[0]) == 2
    other = model.compare(two, B, face=(2, None))
    assert (other.verdict, other.numbers, other.pairs) == ("different", (2, 1), 1)
    assert other.faces[0].box == first.found[0][1].box
    assert model.compare(two, two, face=2).dissimilarity == 0
    assert model.compare(two, B, face=np.int64(1)).dissimilarity == pytest.approx(first.dissimilarity)
    two.save(tmp_path / "two.png")
    run = siamese("compare", tmp_path / "two.png", B, "--face", 2, 0, "--json")
    assert json.loads(run.stdout)["verdict"] == "different"


def test_invalid_face_numbers_are_rejected(model, two):
    for face, message in ((3, "must be 1 to 2, got 3"), ((1, 2), "must be 1, got 2"), (0, "got 0"), (-1, "got -1")):
        with pytest.raises(ValueError, match=message):
            model.compare(two, B, face=face)
    with pytest.raises(ValueError, match="each of the two photos"):
        model.compare(two, B, face=(0,))
    with pytest.raises(ValueError, match="omit face"):
        load(ATT).compare(two, B, face=1)


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda photo: ImageEnhance.Brightness(photo).enhance(0.1), "very dark"),
        (lambda photo: photo.filter(ImageFilter.GaussianBlur(7)), "blurred"),
        (lambda photo: photo.resize((48, 60)), r"small .*\b\d\d pixels"),
    ],
    ids=["dark", "blurred", "small"],
)
def test_warnings_about_photos_that_are_hard_to_compare(model, change, warning):
    photo = Image.open(A).convert("RGB")
    assert model.compare(photo, B).warnings == ()
    (given,) = model.compare(change(photo), B).warnings
    assert re.search(f"first photo is {warning}", given)


def test_warning_about_a_face_in_profile():
    crop = Image.effect_noise((150, 150), 80).convert("RGB")
    landmarks = ((60.0, 40.0), (85.0, 40.0), (95.0, 60.0), (65.0, 80.0), (85.0, 80.0))
    face = Face(crop, Detection((0, 0, 100, 100), landmarks, 0.99))
    assert face.detection.turn == pytest.approx((95 - 72.5) / 25)
    causes = tuple(quality_causes(face, drawn=False))
    assert causes == ("turned",)
    (warning,) = quality_warnings(replace(face, causes=causes), "the second photo")
    assert "second photo is turned" in warning


def test_large_jpegs_are_read_at_reduced_size(model, tmp_path):
    photo = Image.open(A).convert("RGB")
    photo.resize((3200, 4000)).save(tmp_path / "large.jpg", quality=92)
    small, large = model.compare(photo, B), model.compare(tmp_path / "large.jpg", B)
    assert large.faces[0].box == pytest.approx([5 * edge for edge in small.faces[0].box], rel=0.1)
    assert large.dissimilarity == pytest.approx(small.dissimilarity, abs=0.15)


IN_A_FORKED_PROCESS = """
import os, signal, sys
import siamese

model = siamese.load()
before = model.compare(*sys.argv[1:])
if os.fork() == 0:
    signal.alarm(60)
    os._exit(model.compare(*sys.argv[1:]).verdict != before.verdict)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_compare_works_in_a_forked_process():
    run = subprocess.run(
        [sys.executable, "-c", IN_A_FORKED_PROCESS, A, B], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "2"}
    )
    assert run.returncode == 0


def save_hostile_files(folder: Path) -> None:
    photo = Image.open(A).convert("RGB")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(A.read_bytes()[:5000])
    (folder / "song.jpg").write_bytes(b"la la la" * 1000)
    photo.resize((7000, 7000)).save(folder / "49-megapixels.jpg")
    Image.new("RGBA", (7000, 7000), (9, 9, 9, 128)).save(folder / "49-megapixels-alpha.png", compress_level=1)
    Image.new("I;16", (7000, 7000), 30_000).save(folder / "49-megapixels-16-bit.png", compress_level=1)
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4))
    photo.save(folder / "animated.gif", save_all=True, append_images=[photo.rotate(5)] * 5)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.quantize().save(folder / "palette.png")


COMPARE_EACH = """
import json, resource, sys, time
import siamese

model = siamese.load()
other, *files = sys.argv[1:]
model.compare(other, other)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files:
    start = time.process_time()
    try:
        said = model.compare(file, other).verdict
    except ValueError as error:
        said = str(error)
    gigabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    print(json.dumps([said, time.process_time() - start, gigabytes]))
"""


def test_hostile_files_are_handled_quickly_and_in_little_memory(tmp_path):
    """All files in one process, which may use 1 GB more than for a small photo."""
    save_hostile_files(tmp_path)
    files = sorted(tmp_path.iterdir())
    command = [sys.executable, "-c", COMPARE_EACH, str(B), *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    results = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(results) == len(files), run.stderr
    for file, (said, seconds, gigabytes) in zip(files, results, strict=True):
        assert seconds < 30, file.name  # 0.5 to 4 on an idle machine
        assert gigabytes < 1, file.name
        is_valid = file.name.startswith(("animated", "cmyk", "palette", "49"))
        assert (said in ("same", "different", "unsure", "no face")) == is_valid, (file.name, said)


def test_invalid_template_is_rejected(tmp_path):
    shutil.copytree(ATT, tmp_path / "att")
    config = json.loads((tmp_path / "att" / "config.json").read_text())
    (tmp_path / "att" / "config.json").write_text(json.dumps({**config, "template": "thumbs"}))
    with pytest.raises(ValueError, match="template"):
        load(tmp_path / "att")


def test_identical_images(model):
    answer = model.compare(A, Image.open(A))
    assert answer.dissimilarity == 0
    assert answer.verdict == "same"
    (warning,) = answer.warnings
    assert "identical" in warning


def test_path_image_and_array_give_the_same_answer(model):
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


def test_folders_without_a_network_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="USER/NAME"):
        load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no trained network"):
        load(tmp_path)


def test_damaged_weights_are_rejected(tmp_path):
    shutil.copytree(ATT, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "cut")
    (tmp_path / "cut" / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"metrics\.json"):
        load(tmp_path / "cut")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_rejected(tmp_path, value):
    network = load(ATT).network
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = value
    network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not a number"):
        SiameseNetwork.from_pretrained(tmp_path)


def test_missing_calibration_is_rejected(tmp_path):
    shutil.copytree(ATT, tmp_path / "att")
    config = json.loads((tmp_path / "att" / "config.json").read_text())
    for broken in ({**config, "calibration": None}, {k: v for k, v in config.items() if k != "calibration"}):
        (tmp_path / "att" / "config.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"config\.json"):
            load(tmp_path / "att")


def test_folder_of_an_earlier_version_decides_as_before(trained, tmp_path):
    """It had thresholds of the distance, and a lowest quality."""
    folder = tmp_path / "earlier"
    shutil.copytree(trained, folder)
    for name, key in (("config.json", "calibration"), ("metrics.json", "test_calibration")):
        content = json.loads((folder / name).read_text())
        fitted = content[key] | {"slope": 5.0, "intercept": 6.0, "min_quality": 0.0}
        fitted["operating_points"] = [{"fmr": 10.0**-k, "distance": 1 - k / 10, "fnmr": k / 10} for k in (2, 3)]
        degraded = {"degraded": []} if name == "metrics.json" else {}
        (folder / name).write_text(json.dumps(content | {key: fitted} | degraded))
    model = load(folder)
    assert [(point.fmr, point.fnmr) for point in model.calibration.operating_points] == [(0.01, 0.2), (0.001, 0.3)]
    assert model.calibration.distance_at(model.calibration.needed(1e-3)) == pytest.approx(0.7)
    assert model.record.test_calibration == model.calibration


def test_weights_of_another_run_are_rejected(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "mixed")
    shutil.copy(ATT / "model.safetensors", tmp_path / "mixed")
    with pytest.raises(ValueError, match="does not belong to config"):
        load(tmp_path / "mixed")


def test_command_line_prints_the_same_answer(model, siamese):
    run = siamese("compare", A, B, "--json")
    assert alike(json.loads(run.stdout), model.compare(A, B).to_dict())
    assert f"{model.compare(A, B).dissimilarity:.3f}" in siamese("compare", A, B).stdout


def test_command_line_prints_errors_in_one_line(tmp_path, siamese):
    for arguments, message in (
        ((A, tmp_path / "none.jpg"), "there is no file"),
        ((A, __file__), "is not an image"),
        ((A, B, "--weights", tmp_path), "holds no trained network"),
        ((A,), "give two photos"),
    ):
        run = siamese("compare", *arguments)
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr.startswith("error: ")
        assert message in run.stderr


def test_comparing_imports_no_training_packages():
    unwanted = "('sklearn', 'matplotlib', 'gradio', 'torchvision')"
    code = f"import sys, siamese; siamese.load(); print([name for name in {unwanted} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "[]", run.stderr


# Imports a module that Ctrl-C interrupts, and then runs the command line.
INTERRUPT_IMPORT = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(name, path, target=None):
        if name == interrupted:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background does not have
interrupted = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupt)
runpy.run_module("siamese", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["argparse", "siamese.cli", "siamese.cli.search", "torch", "siamese.model"])
def test_ctrl_c_during_start_up_shows_no_traceback(module):
    command = [sys.executable, "-c", INTERRUPT_IMPORT, module, "compare", "a.jpg", "b.jpg"]
    stopped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (stopped.returncode, stopped.stdout, stopped.stderr.strip()) in ((130, "", ""), (130, "", "Stopped."))
