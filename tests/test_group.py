"""Grouping faces by person."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from siamese import load
from siamese.search import group

from .conftest import EXAMPLES


def test_all_faces_of_all_photos_are_grouped(tmp_path):
    """Two people in one photo, one of them in another, a photo without a face, and a file that is not an image."""
    model, progress = load(), []
    photo = Image.new("RGB", (1000, 500))
    for x, name in ((0, "biden.jpg"), (500, "collins.jpg")):
        photo.paste(Image.open(EXAMPLES / name).resize((500, 500)), (x, 0))
    (tmp_path / "song.jpg").write_bytes(b"\xff\xfe\x00 la la la")
    blank = Image.new("RGB", (300, 300))
    photos = [("two", photo), ("song.jpg", tmp_path / "song.jpg"), ("b", EXAMPLES / "biden.jpg"), ("blank", blank)]
    found = group.group(model, photos, progress.append)
    assert progress == [1, 2, 3, 4]
    assert found.names == ("two", "two", "b")
    assert found.labels() == ["two 1", "two 2", "b"]
    assert found.problems[1] == "No face was found in blank."
    assert found.problems[0].startswith("song.jpg is not an image")
    assert sorted(map(len, found.people(model.calibration.threshold))) == [1, 2]
    assert found.distances == pytest.approx(found.distances.T)
    assert (np.diag(found.distances) == 0).all()
    answer = model.compare(photo, EXAMPLES / "biden.jpg", face=(2, 1))
    assert found.distances[1, 2] == pytest.approx(answer.dissimilarity, abs=1e-4)
    rows = list(csv.reader(found.to_csv(found.people(model.calibration.threshold)).splitlines()))
    assert rows[0] == ["face", "person", "two 1", "two 2", "b"]
    assert sorted(row[1] for row in rows[1:]) == ["1", "1", "2"]
    assert found.photos == (0, 0, 2)
    assert float(rows[2][4]) == pytest.approx(answer.dissimilarity, abs=1e-4)


def test_other_faces_need_a_high_score(monkeypatch):
    """Many detections with a low score are no faces."""
    model, photo = load(), EXAMPLES / "biden.jpg"
    (face,) = model.detect([photo])[0]
    for score, count in ((0.89, 1), (0.91, 2)):
        monkeypatch.setattr(model, "detect", lambda _, score=score: [[face, replace(face, score=score)]])
        assert len(group.group(model, [("biden", photo)]).faces) == count
    low = replace(face, score=0.5)  # the main face of a photo always counts
    monkeypatch.setattr(model, "detect", lambda _: [[low]])
    assert len(group.group(model, [("biden", photo)]).faces) == 1


def test_without_alignment_each_image_counts_as_one_face(trained, digits):
    found = group.group(load(trained), [(file.name, file) for file in sorted((digits / "0").iterdir())])
    assert len(found.faces) == 8
    assert found.distances.shape == (8, 8)


def test_faces_beyond_the_limit_are_left_out(trained, digits, monkeypatch):
    monkeypatch.setattr(group, "MAX_FACES", 5)
    found = group.group(load(trained), [(file.name, file) for file in sorted((digits / "0").iterdir())])
    assert (len(found.faces), len(found.names), found.distances.shape) == (5, 5, (5, 5))
    (problem,) = found.problems
    assert "first 5 faces" in problem
