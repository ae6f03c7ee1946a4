"""LFW's protocol: on a small set of its shape, made of the example photographs, and on LFW itself where it is."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese import load
from siamese.data.sources import LFW_ALIASES, Lfw, LfwPair, find_lfw
from siamese.evaluation import embedding_cache as cache
from siamese.evaluation import evaluate, metrics

from .conftest import EXAMPLES, ROOT

PEOPLE = {
    "Ann_One": ("obama-portrait.jpg", "obama-speaking.jpg"),
    "Bob_Two": ("biden.jpg", "biden.jpg"),
    "Cid_Three": ("obama-standing.jpg", "obama-portrait.jpg"),
    "Dee_Four": ("collins.jpg", "collins.jpg"),
}


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A folder like LFW's: two folds of one genuine and one impostor pair, over eight photographs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "lfw"
    for name, files in PEOPLE.items():
        (folder / "lfw-deepfunneled" / name).mkdir(parents=True)
        for number, file in enumerate(files, 1):
            photo = Image.open(EXAMPLES / file).resize((250, 300))
            photo.save(folder / "lfw-deepfunneled" / name / f"{name}_{number:04d}.jpg", quality=90 - number)
    lines = ["2\t1", "Ann_One\t1\t2", "Ann_One\t1\tBob_Two\t1", "Cid_Three\t1\t2", "Cid_Three\t2\tDee_Four\t1"]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def model():
    return load()


def test_reads_the_list_and_the_photographs_packed_or_not(small):
    lfw = Lfw(small)
    first, second = lfw.folds()
    assert first == [
        LfwPair("Ann_One/Ann_One_0001.jpg", "Ann_One/Ann_One_0002.jpg", True),
        LfwPair("Ann_One/Ann_One_0001.jpg", "Bob_Two/Bob_Two_0001.jpg", False),
    ]
    files = [file for pair in first + second for file in pair[:2]]
    unpacked = dict(lfw.read(files))
    with tarfile.open(small / "lfw-deepfunneled.tar", "w") as archive:
        archive.add(small / "lfw-deepfunneled", "lfw-deepfunneled")
    (small / "lfw-deepfunneled").rename(small / "elsewhere")
    assert dict(Lfw(small).read(files)) == unpacked
    with pytest.raises(FileNotFoundError, match="Eve_Five_0001"):
        list(Lfw(small).read([*files, "Eve_Five/Eve_Five_0001.jpg"]))


def test_an_archive_cut_short_is_named(small):
    with tarfile.open(small / "lfw-deepfunneled.tgz", "w:gz") as archive:
        archive.add(small / "lfw-deepfunneled", "lfw-deepfunneled")
    (small / "lfw-deepfunneled").rename(small / "elsewhere")
    packed = small / "lfw-deepfunneled.tgz"
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="tgz is damaged or cut short"):
        list(Lfw(small).read(["Dee_Four/Dee_Four_0002.jpg"]))


def test_people_it_was_trained_on_do_not_judge_it(small):
    model = load()
    model.record = {**model.record, "people": {"training": ["Ann_One"], "test": []}}
    with pytest.raises(ValueError, match="trained on 1 of these people"):
        evaluate.evaluate_lfw(model, Lfw(small), 1)


def test_says_where_it_comes_from(tmp_path, monkeypatch, siamese):
    monkeypatch.setenv("SIAMESE_DATA", str(tmp_path))
    run = siamese("evaluate", ROOT / "weights" / "faces", "--data", "lfw")
    assert run.returncode == 2
    assert "put lfw-deepfunneled.tar and pairs.txt there" in run.stderr
    assert find_lfw(tmp_path) is None


def test_no_fold_is_judged_by_a_threshold_that_saw_it(monkeypatch):
    """Embeddings on a line: in each fold the distances are of another scale, so a leak would show."""
    files = [f"P{number}/P{number}_0001.jpg" for number in range(16)]
    parts = [[LfwPair(files[k + n], files[k + n + 1], n < 4) for n in (0, 2, 4, 6)] for k in (0, 8)]
    gaps = [0.1, 0.2, 5, 6, 10, 20, 500, 600]
    z = {}
    for k, gap in enumerate(gaps):
        z[files[2 * k]], z[files[2 * k + 1]] = np.zeros(1, np.float32), np.full(1, gap, np.float32)
    fitted, judged = [], []
    best, report = metrics.best_threshold, metrics.report
    monkeypatch.setattr(metrics, "best_threshold", lambda d, s: fitted.append(d.tolist()) or best(d, s))
    monkeypatch.setattr(metrics, "report", lambda d, s, p: judged.append(d.tolist()) or report(d, s, p))
    record, _ = evaluate.judge_lfw(z, parts)
    assert fitted == [pytest.approx(gaps[4:]), pytest.approx(gaps[:4])]
    assert judged[:2] == fitted[::-1]
    # The other fold's threshold calls every pair of the first the same, and of the second different.
    assert [fold["accuracy"] for fold in record["folds"]["each"]] == [0.5, 0.5]
    assert (record["folds"]["accuracy"], record["folds"]["accuracy_std"]) == (0.5, 0.0)


def test_a_pair_without_a_face_counts_as_different_and_fits_nothing():
    files = [f"P{number}/P{number}_0001.jpg" for number in range(16)]
    gaps = [0.1, 0.2, 9, 8, 0.15, 0.3, 9, 7]
    parts = [[LfwPair(files[k + n], files[k + n + 1], n < 4) for n in (0, 2, 4, 6)] for k in (0, 8)]
    z = {}
    for k, gap in enumerate(gaps):
        z[files[2 * k]], z[files[2 * k + 1]] = np.zeros(1, np.float32), np.full(1, gap, np.float32)
    assert evaluate.judge_lfw(z, parts)[0]["folds"]["accuracy"] == 1
    z[files[1]] = np.array([np.nan], np.float32)
    record, fitted_on = evaluate.judge_lfw(z, parts)
    assert sorted(fitted_on.distance) == pytest.approx(sorted(gaps[1:]))
    assert record["folds"]["without_face"] == 1
    assert [fold["accuracy"] for fold in record["folds"]["each"]] == [0.75, 1]


def test_impostors_are_all_pairs_of_different_people():
    rng = np.random.default_rng(0)
    z = {f"P{n // 2}/P{n // 2}_{n % 2 + 1:04d}.jpg": rng.normal(size=3).astype(np.float32) for n in range(1200)}
    z["P0/P0_0003.jpg"] = np.full(3, np.nan, np.float32)
    distances, closest = evaluate._everybody(z)
    assert len(distances) == 1200 * 1199 // 2 - 600
    rows = np.stack([row for row in z.values() if not np.isnan(row).any()])
    naive = sorted(
        float(np.linalg.norm(rows[i] - rows[j])) for i in range(300) for j in range(i + 1, 1200) if i // 2 != j // 2
    )
    assert min(distances) <= naive[0]
    assert closest[0][2] == pytest.approx(min(distances), abs=1e-5)
    assert len(closest) == 30
    assert [value for *_, value in closest] == sorted(value for *_, value in closest)


def test_the_protocol_end_to_end_with_one_fold(small, model, siamese):
    run = siamese(
        "evaluate", ROOT / "weights" / "faces", "--data", small, "--folds", 1, "--json", small / "numbers.json"
    )
    assert run.returncode == 0, run.stderr
    numbers = json.loads((small / "numbers.json").read_text())
    assert numbers["folds"]["accuracy"] == 1.0
    assert numbers["folds"]["images"] == 3
    assert numbers["folds"]["without_face"] == 0
    assert "LFW: 100.00% ± 0.00%" in run.stdout
    run = siamese("evaluate", ROOT / "weights" / "faces", "--data", small, "--folds", 11)
    assert (run.returncode, "run 1 to 2 of them" in run.stderr) == (2, True)


def test_embeddings_are_kept_and_found_by_content(small, model, monkeypatch):
    lfw = Lfw(small)
    files = [f"{name}/{name}_0001.jpg" for name in PEOPLE]
    first = cache.embed_files(model, lfw.read(files), len(files))
    monkeypatch.setattr(model, "embed", lambda photos: pytest.fail("embedded again") if photos else [])
    monkeypatch.setattr(cache, "_write_cache", lambda *_: pytest.fail("written again"))
    again = cache.embed_files(model, lfw.read(files), len(files))
    assert all(np.array_equal(first[file], again[file]) for file in files)


def test_a_damaged_cache_is_made_again(small, model):
    files = ["Ann_One/Ann_One_0001.jpg"]
    first = cache.embed_files(model, Lfw(small).read(files), 1)
    (kept,) = (small.parent / "cache" / "siamese" / "embeddings").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:50])
    again = cache.embed_files(model, Lfw(small).read(files), 1)
    assert np.array_equal(first[files[0]], again[files[0]])


def test_goes_on_where_nothing_can_be_kept(small, siamese, monkeypatch):
    monkeypatch.setattr(cache, "KEEP_EVERY", 1)
    monkeypatch.setattr(cache, "BATCH", 1)
    (small.parent / "cache").write_text("in the way")
    run = siamese("evaluate", ROOT / "weights" / "faces", "--data", small, "--folds", 1)
    assert run.returncode == 0, run.stderr
    assert "LFW: 100.00% ± 0.00%" in run.stdout
    assert run.stderr.count("warning: the embeddings are not kept for the next time: ") == 1
    assert str(small.parent / "cache") in run.stderr


def test_a_stopped_run_loses_nothing(small, model, monkeypatch):
    files = [f"{name}/{name}_000{number}.jpg" for name in PEOPLE for number in (1, 2)]
    content = dict(Lfw(small).read(files))
    monkeypatch.setattr(cache, "BATCH", 2)

    def stopped():
        yield from list(content.items())[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.embed_files(model, stopped(), 8)
    embedded = []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda photos: embedded.extend(photos) or embed(photos))
    cache.embed_files(model, content.items(), 8)
    assert len(embedded) == 4


def test_a_photograph_that_cannot_be_read_stops_by_name(small, siamese):
    (small / "lfw-deepfunneled" / "Bob_Two" / "Bob_Two_0001.jpg").write_bytes(b"no picture")
    run = siamese("evaluate", ROOT / "weights" / "faces", "--data", small)
    assert run.returncode == 2
    assert "Bob_Two/Bob_Two_0001.jpg cannot be read" in run.stderr
    (small / "lfw-deepfunneled" / "Bob_Two" / "Bob_Two_0001.jpg").unlink()
    assert "Bob_Two_0001.jpg is missing" in siamese("evaluate", ROOT / "weights" / "faces", "--data", small).stderr


def test_lfw_itself_gives_the_numbers_that_ship(model):
    folder = os.environ.get("SIAMESE_DATA", "")
    if not Path(folder, "pairs.txt").is_file():
        pytest.skip("needs LFW: put lfw-deepfunneled.tar and pairs.txt into a folder and name it in SIAMESE_DATA")
    lfw = Lfw(folder)
    assert [len(fold) for fold in lfw.folds()] == [600] * 10
    assert sum(pair.same for fold in lfw.folds() for pair in fold) == 3000
    assert len(lfw.view1()) == 3200
    result = evaluate.evaluate_lfw(model, lfw, folds=1, cache=False).record["folds"]
    shipped = model.record["folds"]["each"][0]
    people = {file.partition("/")[0] for fold in lfw.folds() for pair in fold for file in pair[:2]}
    assert people >= LFW_ALIASES.keys() | set(LFW_ALIASES.values())
    assert result["pooled"]["auc"] == pytest.approx(shipped["auc"], abs=2e-4)
    assert result["pooled"]["mean_genuine"] == pytest.approx(shipped["mean_genuine"], abs=1e-3)
    assert result["accuracy"] == pytest.approx(shipped["accuracy"], abs=0.004)
