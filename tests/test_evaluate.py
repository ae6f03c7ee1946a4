"""Evaluation on LFW, on a small data set of the same layout, and on people that a network was not trained on."""

import io
import itertools
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese import load
from siamese.calibration import Calibration
from siamese.data.lfw import LFW_ALIASES, Lfw, LfwPair, find_lfw
from siamese.evaluation import lfw as lfw_module
from siamese.evaluation import metrics
from siamese.evaluation.folder import UNKNOWN_NAMES_NOTE, evaluate_folder
from siamese.evaluation.lfw import evaluate_lfw, judge_lfw
from siamese.evaluation.plots import person_color
from siamese.files import bundled_weights
from siamese.record import People

from .conftest import EXAMPLES

FACES, ATT = bundled_weights("faces"), bundled_weights("att")
PHOTOGRAPHS = {
    "Ann_One": ("obama-portrait.jpg", "obama-speaking.jpg"),
    "Bob_Two": ("biden.jpg", "biden.jpg"),
    "Cid_Three": ("obama-standing.jpg", "obama-portrait.jpg"),
    "Dee_Four": ("collins.jpg", "collins.jpg"),
}
FILES = [f"{name}/{name}_000{number}.jpg" for name in PHOTOGRAPHS for number in (1, 2)]


@pytest.fixture
def small_lfw(tmp_path, monkeypatch) -> Path:
    """A folder laid out like LFW: two folds of one genuine and one impostor pair, over eight photographs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "lfw"
    for name, files in PHOTOGRAPHS.items():
        (folder / "lfw-deepfunneled" / name).mkdir(parents=True)
        for number, file in enumerate(files, 1):
            photo = Image.open(EXAMPLES / file).resize((250, 300))
            photo.save(folder / "lfw-deepfunneled" / name / f"{name}_{number:04d}.jpg", quality=90 - number)
    lines = ["2\t1", "Ann_One\t1\t2", "Ann_One\t1\tBob_Two\t1", "Cid_Three\t1\t2", "Cid_Three\t2\tDee_Four\t1"]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def lfw() -> Lfw:
    folder = os.environ.get("SIAMESE_DATA", "")
    if not Path(folder, "pairs.txt").is_file():
        pytest.skip("needs LFW: put lfw-deepfunneled.tar and pairs.txt into a folder and name it in SIAMESE_DATA")
    return Lfw(folder)


@pytest.fixture(scope="module")
def model():
    return load(FACES)


def embeddings_on_a_line(gaps: list[float]) -> tuple[dict[str, np.ndarray], list[list[LfwPair]]]:
    """Return one-dimensional embeddings with these distances, in two folds of two genuine and two impostor pairs."""
    files = [f"P{number}/P{number}_0001.jpg" for number in range(16)]
    parts = [[LfwPair(files[k + n], files[k + n + 1], n < 4) for n in (0, 2, 4, 6)] for k in (0, 8)]
    z = {}
    for k, gap in enumerate(gaps):
        z[files[2 * k]], z[files[2 * k + 1]] = np.zeros(1, np.float32), np.full(1, gap, np.float32)
    return z, parts


# The files of LFW


def test_reads_lists_and_photographs_packed_or_unpacked(small_lfw):
    lfw = Lfw(small_lfw)
    first, second = lfw.folds()
    assert first == [
        LfwPair("Ann_One/Ann_One_0001.jpg", "Ann_One/Ann_One_0002.jpg", True),
        LfwPair("Ann_One/Ann_One_0001.jpg", "Bob_Two/Bob_Two_0001.jpg", False),
    ]
    files = [file for pair in first + second for file in pair[:2]]
    unpacked = dict(lfw.read(files))
    with tarfile.open(small_lfw / "lfw-deepfunneled.tar", "w") as archive:
        archive.add(small_lfw / "lfw-deepfunneled", "lfw-deepfunneled")
    (small_lfw / "lfw-deepfunneled").rename(small_lfw / "elsewhere")
    assert dict(Lfw(small_lfw).read(files)) == unpacked
    with pytest.raises(FileNotFoundError, match="Eve_Five_0001"):
        list(Lfw(small_lfw).read([*files, "Eve_Five/Eve_Five_0001.jpg"]))


def test_an_incomplete_archive_is_named(small_lfw):
    archive = small_lfw / "lfw-deepfunneled.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(small_lfw / "lfw-deepfunneled", "lfw-deepfunneled")
    (small_lfw / "lfw-deepfunneled").rename(small_lfw / "elsewhere")
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="tgz is damaged or incomplete"):
        list(Lfw(small_lfw).read(["Dee_Four/Dee_Four_0002.jpg"]))


def test_missing_lfw_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SIAMESE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"put lfw-deepfunneled\.tar and pairs\.txt there"):
        find_lfw("lfw")
    assert find_lfw(tmp_path) is None


def test_lists_of_lfw_itself(lfw):
    folds = lfw.folds()
    assert [len(fold) for fold in folds] == [600] * 10
    assert sum(pair.same for fold in folds for pair in fold) == 3000
    assert len(lfw.view1()) == 3200
    people = {file.partition("/")[0] for fold in folds for pair in fold for file in pair[:2]}
    assert people >= LFW_ALIASES.keys() | set(LFW_ALIASES.values())


# The protocol


def test_a_fold_is_judged_by_the_other_folds(monkeypatch):
    """The distances of the folds have different scales, so a leak would change the results."""
    gaps = [0.1, 0.2, 5, 6, 10, 20, 500, 600]
    fitted, judged = [], []
    best, report = metrics.best_threshold, metrics.compute_report
    monkeypatch.setattr(metrics, "best_threshold", lambda d, s: fitted.append(d.tolist()) or best(d, s))
    monkeypatch.setattr(metrics, "compute_report", lambda d, s, p: judged.append(d.tolist()) or report(d, s, p))
    scores = judge_lfw(*embeddings_on_a_line(gaps))
    assert fitted == [pytest.approx(gaps[4:]), pytest.approx(gaps[:4])]
    assert judged[:2] == fitted[::-1]
    # At the other fold's threshold, all pairs of the first fold match and none of the second.
    assert [fold.accuracy for fold in scores.folds.each] == [0.5, 0.5]
    assert (scores.protocol.accuracy, scores.protocol.accuracy_std) == (0.5, 0.0)


def test_a_pair_with_a_missing_face_counts_as_different_and_is_not_fitted():
    gaps = [0.1, 0.2, 9, 8, 0.15, 0.3, 9, 7]
    z, parts = embeddings_on_a_line(gaps)
    assert judge_lfw(z, parts).protocol.accuracy == 1
    z[parts[0][0].second] = np.array([np.nan], np.float32)
    scores = judge_lfw(z, parts)
    assert sorted(scores.scored.distance) == pytest.approx(sorted(gaps[1:]))
    assert scores.protocol.without_face == 1
    assert [fold.accuracy for fold in scores.folds.each] == [0.75, 1]


def test_impostor_distances_are_of_all_pairs_of_different_people(monkeypatch):
    monkeypatch.setattr(lfw_module, "PHOTOS_PER_BLOCK", 64)
    rng = np.random.default_rng(0)
    z = {f"P{n // 2}/P{n // 2}_{n % 2 + 1:04d}.jpg": rng.normal(size=3).astype(np.float32) for n in range(200)}
    missing = {"P0/P0_0003.jpg": np.full(3, np.nan, np.float32)}
    judge = Calibration(2.0, 3.0)
    distances, scores, closest = lfw_module.all_impostors(z | missing, None, judge)
    slow = sorted(
        (float(np.linalg.norm(z1 - z2)), first, second)
        for (first, z1), (second, z2) in itertools.combinations(z.items(), 2)
        if first.partition("/")[0] != second.partition("/")[0]
    )
    assert np.sort(distances) == pytest.approx(np.array([distance for distance, *_ in slow]), abs=1e-3)
    assert scores == pytest.approx(judge.score(distances), abs=1e-3)
    assert closest == [(first, second, pytest.approx(distance, abs=1e-3)) for distance, first, second in slow[:30]]


def test_two_names_of_one_person_are_not_impostors():
    z = {f"{name}/1.jpg": np.full(2, k, np.float32) for k, name in enumerate(("Wang_Nan", "Nan_Wang", "Ann_One"))}
    _, _, closest = lfw_module.all_impostors(z, None, Calibration(2.0, 3.0))
    assert [pair[:2] for pair in closest] == [("Nan_Wang/1.jpg", "Ann_One/1.jpg"), ("Wang_Nan/1.jpg", "Ann_One/1.jpg")]


def test_evaluate_lfw_with_one_fold(small_lfw, tmp_path, siamese):
    run = siamese("evaluate", FACES, "--data", small_lfw, "--folds", 1, "--json", tmp_path / "result.json")
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test"]["auc"] == 1
    assert result["folds"]["each"][0]["accuracy"] == 1
    assert (result["protocol"]["images"], result["protocol"]["without_face"]) == (3, 0)
    assert "100.00% ± 0.00%" in run.stdout
    run = siamese("evaluate", FACES, "--data", small_lfw, "--folds", 11)
    assert (run.returncode, "choose 1 to 2" in run.stderr) == (2, True)


def test_a_network_trained_on_people_of_lfw_is_refused(small_lfw):
    model = load(FACES)
    model.record = replace(model.record, people=People(["Ann_One"], []))
    with pytest.raises(ValueError, match="trained on 1 people of LFW"):
        evaluate_lfw(model, Lfw(small_lfw), 1)


def test_lfw_reproduces_published_distances(lfw, model):
    """The closest impostor pairs are published with their distances."""
    closest = model.record.lfw.closest_impostors[:6]
    sample = lfw.folds()[0][::50]
    content = dict(lfw.read({file for pair in [*closest, *sample] for file in pair[:2]}))
    z = dict(zip(content, model.embed(content.values()), strict=True))
    errors = [abs(np.linalg.norm(z[first] - z[second]) - distance) for first, second, distance in closest]
    # In a few photographs rounding, which depends on the batch, changes a box that the detector finds.
    assert np.median(errors) < 1e-4
    assert max(errors) < 0.02
    distances = np.array([np.linalg.norm(z[pair.first] - z[pair.second]) for pair in sample])
    same = np.array([pair.same for pair in sample])
    assert (same.sum(), len(sample)) == (6, 12)
    assert ((distances <= model.calibration.threshold) == same).sum() >= 11  # one genuine pair is difficult


@pytest.mark.slow
def test_a_fold_of_lfw_reproduces_published_metrics(lfw, model):
    result = evaluate_lfw(model, lfw, folds=1)
    published = model.record.folds.each[0]
    assert result.test.auc == pytest.approx(published.auc, abs=2e-4)
    assert result.test.mean_genuine == pytest.approx(published.mean_genuine, abs=1e-3)
    assert result.protocol.accuracy == pytest.approx(published.accuracy, abs=0.004)


# Embedding


def test_embed_main_faces_gives_each_photo_its_row(small_lfw, model, monkeypatch):
    content = dict(Lfw(small_lfw).read(FILES))
    blank = io.BytesIO()
    Image.new("RGB", (100, 100)).save(blank, "PNG")
    content["blank"] = blank.getvalue()
    monkeypatch.setattr(lfw_module, "EMBEDDED_TOGETHER", 2)
    z, quality = lfw_module.embed_main_faces(model, content.items(), len(content))
    assert list(z) == list(quality) == list(content)
    assert np.isnan(z["blank"]).all()
    assert np.isnan(quality["blank"])
    for name in FILES:
        (row,), (value,) = model.embed_with_quality([content[name]])
        assert np.linalg.norm(z[name] - row) < 0.02
        assert quality[name] == pytest.approx(value, abs=0.02)


def test_an_unreadable_photograph_is_named(small_lfw, model):
    photograph = small_lfw / "lfw-deepfunneled" / "Bob_Two" / "Bob_Two_0001.jpg"
    photograph.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"Bob_Two/Bob_Two_0001\.jpg cannot be read"):
        evaluate_lfw(model, Lfw(small_lfw))
    photograph.unlink()
    with pytest.raises(FileNotFoundError, match=r"Bob_Two_0001\.jpg is missing"):
        evaluate_lfw(model, Lfw(small_lfw))


# People that the network was not trained on


def test_evaluate_reproduces_published_metrics_of_att(att, tmp_path, siamese):
    run = siamese("evaluate", ATT, "--data", "att", "--json", tmp_path / "result.json")
    assert run.returncode == 0, run.stderr
    assert "s5, s6, s7" in run.stdout
    published = json.loads((ATT / "metrics.json").read_text())["test"]
    result = json.loads((tmp_path / "result.json").read_text())
    assert {name: result["test"][name] for name in published} == pytest.approx(published, abs=1e-4)


def test_training_people_are_not_tested_on(trained, digits, tmp_path):
    """They are recognised by name, also in a data set with one more image."""
    more = Path(shutil.copytree(digits, tmp_path / "more"))
    shutil.copy(digits / "3" / "0.png", more / "3" / "9.png")
    model = load(trained)
    training, test = model.record.people.training, model.record.people.test
    assert evaluate_folder(model, more).names == test
    shutil.rmtree(more / test[0])
    with pytest.raises(ValueError, match=r"has 1$"):
        evaluate_folder(model, more)
    for name in training[:2]:
        (more / name).rename(more / f"new-{name}")
    assert evaluate_folder(model, more).names == [test[1], *(f"new-{name}" for name in training[:2])]


def test_pretraining_people_are_not_tested_on(trained, digits, capsys):
    model = load(trained)
    model.record = replace(model.record, people=People(["0"], ["1"], ["2", "3"]))
    assert evaluate_folder(model, digits).names == list("1456789")
    assert capsys.readouterr().err == ""
    model.record = replace(model.record, people=People(["0"], ["1"], None))
    assert evaluate_folder(model, digits).names == list("123456789")
    assert capsys.readouterr().err.strip() == UNKNOWN_NAMES_NOTE


def test_people_of_a_published_network_are_known_by_number_in_the_same_data(trained, digits, tmp_path, capsys):
    model = load(trained)
    names = model.record.people.test
    expected = evaluate_folder(model, digits)
    model.record = model.record.anonymise("")
    assert model.record.people.anonymous
    assert evaluate_folder(model, digits) == expected
    assert expected.names == names
    assert capsys.readouterr().err == ""
    more = Path(shutil.copytree(digits, tmp_path / "more"))
    shutil.copy(digits / "3" / "0.png", more / "3" / "9.png")
    assert len(evaluate_folder(model, more).names) == 10
    assert capsys.readouterr().err.strip() == UNKNOWN_NAMES_NOTE


def test_people_with_close_numbers_have_different_colors():
    colors = [person_color(person) for person in range(40)]
    assert len(set(colors)) == 40
    for first, second in itertools.pairwise(colors):
        channels = [[int(color[place : place + 2], 16) for place in (1, 3, 5)] for color in (first, second)]
        assert np.abs(np.subtract(*channels)).max() > 80
