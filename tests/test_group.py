import csv

import numpy as np
import pytest
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from siamese import load
from siamese.search import group

from .conftest import EXAMPLES


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_scipys(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(40, 3)) + 4 * rng.integers(0, 4, (40, 1))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    for threshold in (0.5, 1.5, 3.0, 100.0):
        theirs = fcluster(linkage(squareform(distances), "average"), threshold, "distance")
        ours = group.cluster(distances, threshold)
        assert sorted(ours) == sorted(np.flatnonzero(theirs == number).tolist() for number in np.unique(theirs))
        assert [len(rows) for rows in ours] == sorted(map(len, ours), reverse=True)


def test_no_face_and_one_face():
    assert group.cluster(np.empty((0, 0)), 1.0) == []
    assert group.cluster(np.zeros((1, 1)), 1.0) == [[0]]


def test_every_face_of_every_photo_is_there_and_nothing_stops_it(tmp_path):
    """Two people in one photo, one of them in another, a photo of nobody, and a file that is no picture."""
    model, told = load(), []
    photo = Image.new("RGB", (1000, 500))
    for x, name in ((0, "biden.jpg"), (500, "collins.jpg")):
        photo.paste(Image.open(EXAMPLES / name).resize((500, 500)), (x, 0))
    (tmp_path / "song.jpg").write_bytes(b"la la la")
    blank = Image.new("RGB", (300, 300))
    photos = [("two", photo), ("song.jpg", tmp_path / "song.jpg"), ("b", EXAMPLES / "biden.jpg"), ("blank", blank)]
    found = group.group(model, photos, told.append)
    assert told == [1, 2, 3, 4]
    assert found.names == ("two", "two", "b")
    assert found.labels() == ["two 1", "two 2", "b"]
    assert found.problems[1] == "No face was found in blank."
    assert found.problems[0].startswith("song.jpg is not a picture")
    assert sorted(map(len, found.people(model.calibration.threshold))) == [1, 2]
    assert found.distances == pytest.approx(found.distances.T)
    assert (np.diag(found.distances) == 0).all()
    answer = model.compare(photo, EXAMPLES / "biden.jpg", face=(1, 0))
    assert found.distances[1, 2] == pytest.approx(answer.dissimilarity, abs=1e-4)
    rows = list(csv.reader(found.to_csv(found.people(model.calibration.threshold)).splitlines()))
    assert rows[0] == ["face", "person", "two 1", "two 2", "b"]
    assert sorted(row[1] for row in rows[1:]) == ["1", "1", "2"]
    assert found.photos == (0, 0, 2)
    assert float(rows[2][4]) == pytest.approx(answer.dissimilarity, abs=1e-4)


def test_a_doubtful_find_beside_a_face_is_nobody():
    """In this photo, enlarged, the detector takes something else for a face, too."""
    photo = Image.open(EXAMPLES / "obama-portrait.jpg").resize((3100, 3900))
    model = load()
    assert min(face.score for face in model.see([photo])[0]) < group.SURE
    assert len(group.group(model, [("large", photo)]).faces) == 1


def test_pictures_that_are_taken_whole_count_one_each(trained, digits):
    found = group.group(load(trained), [(file.name, file) for file in sorted((digits / "0").iterdir())])
    assert len(found.faces) == 8
    assert found.distances.shape == (8, 8)


def test_more_faces_than_can_be_shown_are_left_out_with_a_word(trained, digits, monkeypatch):
    monkeypatch.setattr(group, "MOST", 5)
    found = group.group(load(trained), [(file.name, file) for file in sorted((digits / "0").iterdir())])
    assert (len(found.faces), len(found.names), found.distances.shape) == (5, 5, (5, 5))
    assert found.problems == ("Only the first 5 faces are shown, up to 5.png.",)
