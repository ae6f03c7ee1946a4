"""Comparing many pairs."""

import csv
import itertools
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from siamese import load
from siamese.images import read_reduced

from .conftest import EXAMPLES

PHOTOS = [EXAMPLES / f"{name}.jpg" for name in ("biden", "collins", "obama-portrait", "obama-standing", "edited/group")]


class CountedPhoto:
    """A photo that counts how often it is read."""

    def __init__(self, file):
        self.file, self.reads = file, 0

    def read_reduced(self, min_long_side):
        self.reads += 1
        return read_reduced(self.file, min_long_side)


def test_many_pairs_are_compared_as_each_alone_and_each_photo_is_read_once(model):
    photos, done = [CountedPhoto(file) for file in PHOTOS], []
    pairs = list(itertools.combinations(photos, 2))
    many = model.compare_many(pairs, progress=lambda *counts: done.append(counts))
    assert [photo.reads for photo in photos] == [1] * 5
    assert done == [(5, 5)]
    for (a, b), answer in zip(pairs, many, strict=True):
        alone = model.compare(a.file, b.file)
        assert (answer.verdict, answer.numbers, answer.pairs) == (alone.verdict, alone.numbers, alone.pairs)
        assert (answer.warnings, answer.model, len(answer.found[1])) == (
            alone.warnings,
            alone.model,
            len(alone.found[1]),
        )
        for field in ("dissimilarity", "probability", "score", "threshold"):
            assert getattr(answer, field) == pytest.approx(getattr(alone, field), abs=1e-3)
        assert all(face.crop is None for face in (*answer.faces, *answer.found[0], *answer.found[1]))
        json.dumps(answer.to_dict(), allow_nan=False)
    assert {answer.verdict for answer in many} == {"same", "different"}
    assert model.compare_many([]) == []


def test_a_false_match_rate_holds_for_each_pair(model):
    (answer,) = model.compare_many([PHOTOS[:2]], fmr=1e-4)
    assert (answer.fmr, answer.threshold) == (1e-4, pytest.approx(model.compare(*PHOTOS[:2], fmr=1e-4).threshold))
    with pytest.raises(ValueError, match="false-match rate"):
        model.compare_many([PHOTOS[:2]], fmr=0)


def test_a_bad_photo_does_not_stop_the_others(model, tmp_path):
    (tmp_path / "song.jpg").write_bytes(b"la la la")
    blank, biden = Image.new("RGB", (200, 200)), PHOTOS[0]
    pairs = [(biden, tmp_path / "song.jpg"), ("missing.jpg", blank), (blank, biden), (biden, biden)]
    broken, both, empty, same = model.compare_many(pairs)
    assert [answer.verdict for answer in (broken, both, empty, same)] == ["not read", "not read", "no face", "same"]
    assert (broken.same, broken.pairs, broken.faces[1], str(broken)) == (None, 0, None, " ".join(broken.warnings))
    assert [len(answer.warnings) for answer in (broken, both, empty, same)] == [1, 2, 1, 1]
    assert "second" in broken.warnings[0]
    assert "song.jpg" in broken.warnings[0]
    assert "identical" in same.warnings[0]
    json.dumps(both.to_dict(), allow_nan=False)
    whole = load("weights/att").compare_many([(biden, "missing.jpg"), (biden, PHOTOS[1])])
    assert [answer.verdict == "not read" for answer in whole] == [True, False]
    assert len(whole[0].warnings) == 1


def test_answers_hold_no_pixels_and_share_the_faces_of_a_photo():
    """Less than 2 kB for each pair and photo; the crops of a pair have 20 kB."""
    photos = list(np.random.default_rng(0).integers(0, 255, (20, 100, 100), dtype=np.uint8))
    pairs = list(itertools.combinations(photos, 2))
    answers = load("weights/att").compare_many(pairs)
    assert len(answers) == 190
    assert len(pickle.dumps(answers)) < 2000 * (len(pairs) + len(photos))


def test_what_is_no_list_of_pairs_is_rejected(model):
    for pairs in (PHOTOS[:2], str(PHOTOS[0]), [3]):
        with pytest.raises(ValueError, match="list of pairs"):
            model.compare_many(pairs)
    with pytest.raises(ValueError, match="pair 2 has 3 images"):
        model.compare_many([PHOTOS[:2], PHOTOS[:3]])


def test_a_single_image_is_no_list(model):
    for one in (PHOTOS[0], str(PHOTOS[0]), PHOTOS[0].read_bytes(), Image.open(PHOTOS[0])):
        for function in (model.detect, model.embed, model.embed_with_quality):
            with pytest.raises(ValueError, match="put it into a list"):
                function(one)


@pytest.mark.parametrize("text", ["a,b\n{0},{1}\n\n{0},missing.jpg\n", "\ufeff{0};{1};1\n{0};missing.jpg;2\n"])
def test_pairs_of_a_file(siamese, tmp_path, text):
    names = EXAMPLES / "biden.jpg", EXAMPLES / "edited" / "group.jpg"
    (tmp_path / "pairs.csv").write_text(text.format(*names), "utf-8")
    run = siamese("compare", "--pairs", tmp_path / "pairs.csv", "--csv", tmp_path / "out.csv")
    assert run.returncode == 1  # a pair has no answer
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text("utf-8").splitlines()))
    assert [(row["first"], row["second"]) for row in rows] == [
        (str(names[0]), str(names[1])),
        (str(names[0]), "missing.jpg"),
    ]
    assert [row["verdict"] for row in rows] == ["same", "not read"]
    assert float(rows[0]["dissimilarity"]) < float(rows[0]["threshold"])
    assert "missing.jpg" in rows[1]["warnings"]
    found = json.loads(siamese("compare", "--pairs", tmp_path / "pairs.csv", "--json").stdout)
    assert [answer["verdict"] for answer in found] == ["same", "not read"]


def test_invalid_files_of_pairs_are_one_sentence(siamese, tmp_path):
    (tmp_path / "one.csv").write_text("a.jpg,b.jpg\nc.jpg\n")
    (tmp_path / "latin.csv").write_bytes("ä.jpg,b.jpg\n".encode("latin-1"))
    for arguments, words in (
        (("--pairs", tmp_path / "one.csv"), "line 2"),
        (("--pairs", tmp_path / "latin.csv"), "UTF-8"),
        (("--pairs", tmp_path / "missing.csv"), "missing.csv"),
        (("--pairs", tmp_path / "one.csv", "a.jpg"), "--pairs"),
        (("a.jpg",), "two photos"),
        (("a.jpg", "b.jpg", "--csv", tmp_path / "out.csv"), "--pairs"),
    ):
        run = siamese("compare", *arguments)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1)
        assert words in run.stderr
        assert "Errno" not in run.stderr
    assert not (tmp_path / "out.csv").exists()


def test_answers_are_printed_if_the_table_cannot_be_written(siamese, tmp_path):
    (tmp_path / "pairs.csv").write_text(f"{PHOTOS[0]},{PHOTOS[1]}\n")
    run = siamese("compare", "--pairs", tmp_path / "pairs.csv", "--csv", tmp_path / f"{'x' * 300}.csv", "--json")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert len(json.loads(run.stdout)) == 1
