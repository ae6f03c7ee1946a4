import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from siamese import compare, load

from .conftest import EXAMPLES, ROOT, alike

A, B = EXAMPLES / "obama-portrait.jpg", EXAMPLES / "biden.jpg"


@pytest.fixture(scope="module")
def model():
    return load()


def test_the_default_are_the_repositorys_weights(model):
    assert model.name == str(ROOT / "weights" / "att")


def test_dissimilarity_is_the_distance_of_the_embeddings(model):
    z = model.embed([A, B])
    assert z.shape == (2, 2)
    assert z.dtype == np.float32
    assert model.compare(A, B).dissimilarity == pytest.approx(np.linalg.norm(z[0] - z[1]), rel=1e-5)
    assert model.embed([]).shape == (0, 2)


def test_an_answer_agrees_with_itself(model):
    for pair in ((A, B), (A, A), (B, EXAMPLES / "collins.jpg"), (A, EXAMPLES / "obama-standing.jpg")):
        answer = model.compare(*pair)
        assert (answer.probability > 0.5) == (answer.dissimilarity < answer.threshold)
        verdict = "same" if answer.probability >= 0.75 else "different" if answer.probability <= 0.25 else "unsure"
        assert answer.verdict == verdict
        assert [face.crop.size for face in answer.faces] == [(100, 100)] * 2
        assert answer.faces[0].box is None
        json.dumps(answer.to_dict())


def test_the_order_does_not_matter(model):
    assert model.compare(A, B).dissimilarity == pytest.approx(model.compare(B, A).dissimilarity, rel=1e-5)


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
    shutil.copytree(compare.WEIGHTS, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged, or not the one"):
        load(tmp_path / "cut")
    (tmp_path / "cut" / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"metrics\.json"):
        load(tmp_path / "cut")
    shutil.copytree(compare.WEIGHTS, tmp_path / "att")
    config = json.loads((tmp_path / "att" / "config.json").read_text())
    for broken in ({**config, "calibration": None}, {k: v for k, v in config.items() if k != "calibration"}):
        (tmp_path / "att" / "config.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"config\.json"):
            load(tmp_path / "att")


def test_weights_and_calibration_of_two_runs_are_not_mixed(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "mixed")
    shutil.copy(compare.WEIGHTS / "model.safetensors", tmp_path / "mixed")
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
    needless = "('sklearn', 'matplotlib', 'gradio')"
    code = f"import sys, siamese; siamese.load(); print([name for name in {needless} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "[]", run.stderr


def test_evaluate_repeats_the_numbers_that_ship(att, model, tmp_path, siamese):
    run = siamese("evaluate", ROOT / "weights" / "att", "--data", "att", "--json", tmp_path / "numbers.json")
    assert run.returncode == 0, run.stderr
    assert "s5, s6, s7" in run.stdout
    assert json.loads((tmp_path / "numbers.json").read_text())["test"] == pytest.approx(model.record["test"], abs=1e-4)


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
