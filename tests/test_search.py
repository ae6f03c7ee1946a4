"""Finding a person, and grouping people."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from siamese import find, group, load
from siamese.calibration import Calibration
from siamese.faces import Face
from siamese.faces.detection import Detection
from siamese.search.embedding import FoundFace
from siamese.search.find import FIND_FMR, nearest
from siamese.search.output import people_csv, write_csv, write_folders
from siamese.search.people import People, partition

from .conftest import EXAMPLES

NAMES = ("biden.jpg", "collins.jpg", "obama-portrait.jpg", "obama-speaking.jpg", "obama-standing.jpg")
OBAMA = {"obama-portrait.jpg", "obama-speaking.jpg", "obama-standing.jpg"}


@pytest.fixture(scope="module")
def model():
    return load(device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five photos of three people, each with one face."""
    result = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        shutil.copy(EXAMPLES / name, result)
    return result


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_find_ranks_the_faces_of_a_folder(model, folder):
    found = find(EXAMPLES / "obama-portrait.jpg", folder, model=model)
    assert found.ranked[0].photo == "obama-portrait.jpg"
    assert {face.photo for face in found.matches} == OBAMA
    assert (found.faces, len(found.ranked)) == (5, 5)
    for face in found.ranked:
        answer = model.compare(EXAMPLES / "obama-portrait.jpg", EXAMPLES / face.photo)
        assert face.dissimilarity == pytest.approx(answer.dissimilarity, abs=1e-4)
        assert face.box == pytest.approx(answer.faces[1].box, rel=1e-3)
    needed = model.calibration.needed(FIND_FMR, 5)
    assert found.threshold == pytest.approx(model.calibration.distance_at(needed))
    assert find(EXAMPLES / "biden.jpg", folder, limit=2, model=model).ranked[0].photo == "biden.jpg"
    json.dumps(found.to_dict(), allow_nan=False)


def test_find_in_images_is_find_in_their_folder(model, folder):
    files = sorted(folder.glob("*.jpg"))
    in_folder, in_list = (find(EXAMPLES / "collins.jpg", photos, model=model) for photos in (folder, files))
    for face, other in zip(in_folder.ranked, in_list.ranked, strict=True):
        assert other.photo == str(folder / face.photo)
        assert other.dissimilarity == pytest.approx(face.dissimilarity, abs=1e-4)
    pictures = [Image.open(file) for file in files]
    assert find(pictures[0], pictures, model=model).ranked[0].photo == "photo 1"
    with pytest.raises(ValueError, match="put it into a list"):
        find(pictures[0], pictures[0], model=model)


def test_several_portraits_count_together(model):
    portraits = [EXAMPLES / "obama-portrait.jpg", EXAMPLES / "obama-speaking.jpg"]
    together = find(portraits, [EXAMPLES / "obama-standing.jpg"], model=model).ranked[0].dissimilarity
    each = [find(file, [EXAMPLES / "obama-standing.jpg"], model=model).ranked[0].dissimilarity for file in portraits]
    z = model.embed(portraits)
    query = z.mean(0) / np.linalg.norm(z.mean(0))
    assert together == pytest.approx(
        np.linalg.norm(query - model.embed([EXAMPLES / "obama-standing.jpg"])[0]), abs=1e-4
    )
    assert together < min(each)


def test_portraits_without_a_face_and_poor_ones(model, tmp_path):
    blank = Image.new("RGB", (200, 200))
    found = find([blank, EXAMPLES / "biden.jpg"], [EXAMPLES / "biden.jpg"], model=model)
    assert len(found.matches) == 1
    assert re.match("Portrait 1 shows no face", found.warnings[0])
    with pytest.raises(ValueError, match="No face was found"):
        find(blank, [EXAMPLES / "biden.jpg"], model=model)
    with pytest.raises(FileNotFoundError):
        find(tmp_path / "missing.jpg", [EXAMPLES / "biden.jpg"], model=model)
    image = Image.open(EXAMPLES / "biden.jpg")
    poor = image.resize((image.width // 14, image.height // 14)).resize(image.size)
    others = [EXAMPLES / "collins.jpg", EXAMPLES / "hopper.jpg", EXAMPLES / "obama-portrait.jpg"]
    found = find(poor, [EXAMPLES / "biden.jpg", *others], model=model)
    assert "blurred" in found.warnings[0]
    assert found.ranked[0].photo == str(EXAMPLES / "biden.jpg")
    assert found.ranked[0].dissimilarity > found.threshold - 0.1  # far, but the quality is known
    assert len(found.matches) <= 1
    assert not find(poor, [EXAMPLES / "biden.jpg", *others], model=model, fmr=1e-6).matches


def test_no_faces_at_all(model, tmp_path):
    (tmp_path / "empty").mkdir()
    for photos in ([], tmp_path / "empty"):
        found = find(EXAMPLES / "biden.jpg", photos, model=model)
        assert (found.ranked, found.faces) == ((), 0)
        assert group(photos, model=model).people == ()


def test_the_order_of_the_photos_does_not_matter(model):
    photos = [EXAMPLES / f"{name}.jpg" for name in ("obama-portrait", "obama-speaking", "biden", "hopper")]
    first, second = (find(photos[0], each, model=model).ranked for each in (photos, photos[::-1]))
    assert [match.photo for match in first] == [match.photo for match in second]
    assert [a.dissimilarity for a in first] == pytest.approx([b.dissimilarity for b in second], abs=1e-3)


def test_portraits_of_different_people_are_named_and_refused(model):
    photos = [EXAMPLES / "hopper.jpg"]
    obama, biden = EXAMPLES / "obama-portrait.jpg", EXAMPLES / "biden.jpg"
    for portraits in ([obama, biden], [obama, biden, EXAMPLES / "obama-standing.jpg"], [obama, Image.open(biden)]):
        with pytest.raises(ValueError, match="Portrait 2") as raised:
            find(portraits, photos, model=model)
        assert "Portrait 3" not in str(raised.value)
        assert "obama-portrait.jpg" in str(raised.value)
        assert ("biden.jpg" in str(raised.value)) == (portraits[1] is biden)
    assert find([EXAMPLES / name for name in sorted(OBAMA)], photos, model=model).warnings == ()


def test_thin_and_broken_photos_do_not_stop_the_others(model, tmp_path):
    """A wide one, a high one and one that is no image, among photos with a face."""
    shutil.copy(EXAMPLES / "biden.jpg", tmp_path / "biden.jpg")
    Image.new("L", (20_000, 60)).save(tmp_path / "wide.jpg")
    Image.new("L", (12, 4000)).save(tmp_path / "high.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for photos in (tmp_path, sorted(tmp_path.iterdir())):
        found = find(EXAMPLES / "biden.jpg", photos, model=model)
        assert (len(found.matches), found.faces) == (1, 1)
        assert [text for text in found.warnings if "broken.jpg" in text]


@pytest.mark.parametrize("unit", [True, False])
def test_nearest_equals_sorting_all_distances(unit):
    rng = np.random.default_rng(0)
    z, query = rng.normal(size=(1000, 16)).astype(np.float32), rng.normal(size=16).astype(np.float32)
    if unit:
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    blocks = [(np.arange(start, start + 100), z[start : start + 100]) for start in range(0, 1000, 100)]
    rows, distances = nearest(query, blocks, 30)
    expected = np.linalg.norm(z - query, axis=1)
    assert rows.tolist() == np.argsort(expected)[:30].tolist()
    np.testing.assert_allclose(distances, np.sort(expected)[:30], rtol=1e-5)


def test_poor_faces_join_no_clusters_but_are_assigned_or_left_over():
    calibration = Calibration(30, 30)
    needed = calibration.score(1.0)  # groups are merged up to a distance of 1
    far = np.eye(8, dtype=np.float32) * 2
    bridge = (far[0] + far[1]) / 2  # poor, and between two people
    z = np.stack([far[0], far[0] + 0.01, far[1], far[1] + 0.01, bridge, far[0] - 0.02, far[5]])
    quality = np.array([1, 1, 1, 1, 0.5, 0.5, 0.5], np.float32)
    people, left_over = partition(z, quality, np.arange(7), calibration, needed)
    assert people == [[0, 1, 5], [2, 3]]
    assert left_over == [4, 6]
    people, left_over = partition(z, np.full(7, np.nan, np.float32), np.arange(7), calibration, needed)
    assert (sum(map(len, people)), left_over) == (7, [])
    assert partition(z[4:], quality[4:], np.arange(3), calibration, needed) == ([], [0, 1, 2])


def test_faces_of_one_photo_are_different_people_unless_they_are_copies():
    calibration = Calibration(30, 30)  # groups are merged up to a distance of 1, and copies are at most 0.5 apart
    needed, far = calibration.score(1.0), np.eye(8, dtype=np.float32) * 2
    step = np.eye(8, dtype=np.float32)[7]
    z = np.stack([far[0], far[0] + 0.8 * step, far[1], far[1] + 0.3 * step, far[2], far[2] + 0.8 * step])
    good = np.ones(6, np.float32)
    assert partition(z, good, np.arange(6), calibration, needed) == ([[0, 1], [2, 3], [4, 5]], [])
    photos = np.array([7, 7, 3, 3, 1, 2])
    assert partition(z, good, photos, calibration, needed) == ([[2, 3], [4, 5], [0], [1]], [])
    poor = np.array([1, 0.5, 1, 0.5, 1, 0.5], np.float32)  # they are assigned to the groups of the others
    assert partition(z, poor, np.arange(6), calibration, needed) == ([[0, 1], [2, 3], [4, 5]], [])
    assert partition(z, poor, photos, calibration, needed) == ([[2, 3], [4, 5], [0]], [1])
    both = np.stack([far[0], far[0] + 0.3 * step, far[0] - 0.4 * step])  # two poor faces of one photo
    people, left_over = partition(both, poor[[0, 1, 1]], np.array([0, 1, 1]), calibration, needed)
    assert (people, left_over) == ([[0, 1]], [2])


def test_group_of_a_folder_and_of_images(model, folder):
    for photos in (folder, sorted(folder.glob("*.jpg"))):
        people = group(photos, model=model)
        names = [{face.photo.rpartition("/")[2] for face in faces} for faces in people.people]
        assert names == [OBAMA, {"biden.jpg"}, {"collins.jpg"}]
        assert people.left_over == ()
        json.dumps(people.to_dict(), allow_nan=False)


FACE = FoundFace(0, "a/b.jpg", 1, Face(None, Detection((1.0, 2.0, 3.0, 4.0), (), 0.99), 0.9))


def test_csv_cells_are_no_formulas():
    text = write_csv(["=a"], [["+1"], ["-1"], ["@x"], ["ok"], [-1], [1.5]])
    assert [row[0] for row in csv.reader(text.splitlines())] == ["'=a", "'+1", "'-1", "'@x", "ok", "-1", "1.5"]
    assert write_csv(["a"], [["b\r\n\x1b[2K\t"], ["\t=1"]]).splitlines() == ['"a"', r'"b\r\n\x1b[2K\t"', r'"\t=1"']
    names = ["a;=1+1;.jpg", "\uff1d1+1.jpg", " =1.jpg", 'a"b.jpg']
    lines = write_csv(["name"], [[name] for name in names]).splitlines()
    assert lines == ['"name"', '"a;=1+1;.jpg"', '"\'\uff1d1+1.jpg"', '"\' =1.jpg"', '"a""b.jpg"']
    people = People(((FACE, replace(FACE, photo="=cmd.jpg")),), (replace(FACE, number=2),), 1.0, 0.01)
    header, *rows = csv.reader(people_csv(people).splitlines())
    assert [dict(zip(header, row, strict=True))["person"] for row in rows] == ["1", "1", ""]
    assert [row[1] for row in rows] == ["a/b.jpg", "'=cmd.jpg", "a/b.jpg"]


def test_folders_of_people_hold_copies_or_links(model, folder, tmp_path, siamese):
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    for file in folder.glob("*.jpg"):
        shutil.copy(file, photos / "sub")
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    for flag, source, target in (
        ("--copy", photos, "copies"),
        ("--link", photos, "links"),
        ("--copy", tmp_path / "photos.zip", "unpacked"),
    ):
        assert siamese("group", source, flag, tmp_path / target).returncode == 0
        folders = sorted((tmp_path / target).iterdir())
        assert [folder.name for folder in folders] == ["person-1", "person-2", "person-3"]
        assert {file.name for file in folders[0].iterdir()} == {f"sub_{name}" for name in OBAMA}
        for file in (tmp_path / target).glob("*/*"):
            assert file.is_symlink() == (target == "links")
            assert file.read_bytes() == (EXAMPLES / file.name.removeprefix("sub_")).read_bytes()
    people = group(photos, model=model)
    for target, source, message in (
        (tmp_path / "copies", photos, "not empty"),
        (photos / "people", photos, "inside the folder"),
        (tmp_path / "new", tmp_path / "photos.zip", "zip archive"),
    ):
        with pytest.raises(ValueError, match=message):
            write_folders(people, source, target, link=True)


def test_commands_print_a_table_json_html_and_csv(folder, tmp_path, siamese):
    run = siamese("embed", folder)
    assert run.returncode == 0
    (index,) = (tmp_path / "cache" / "siamese" / "indexes").iterdir()
    assert run.stdout.startswith("5 photos, 5 faces (5 new or changed, 0 deleted")
    assert f"siamese index --forget {index}" in run.stderr
    assert "biometric" not in siamese("embed", folder).stderr  # only the first time
    html = tmp_path / "found.html"
    run = siamese("find", EXAMPLES / "obama-speaking.jpg", EXAMPLES / "obama-standing.jpg", folder, "--html", html)
    assert run.stdout.splitlines()[0].startswith("3 matches among 5 faces")
    assert [line.split()[0] for line in run.stdout.splitlines()[1:4]] == ["match"] * 3
    assert html.read_text().count("data:image/jpeg") == 5
    assert not re.search(r'(src|href)="(?!data:)', html.read_text())
    found = json.loads(siamese("find", EXAMPLES / "biden.jpg", index, "--limit", "1", "--json").stdout)
    assert [face["photo"] for face in found["ranked"]] == ["biden.jpg"]
    run = siamese("group", index, "--csv", tmp_path / "people.csv")
    assert "5 faces: 3 people" in run.stdout
    assert len((tmp_path / "people.csv").read_text().splitlines()) == 6
    people = json.loads(siamese("group", index, "--json").stdout)["people"]
    assert [len(faces) for faces in people] == [3, 1, 1]


def test_html_page_shows_a_deleted_photo_as_an_empty_image(folder, tmp_path, siamese):
    photos = tmp_path / "photos"
    shutil.copytree(folder, photos)
    siamese("embed", photos, "--out", tmp_path / "index")
    os.remove(photos / "biden.jpg")
    html = tmp_path / "found.html"
    assert siamese("find", EXAMPLES / "biden.jpg", tmp_path / "index", "--html", html).returncode == 0
    assert html.read_text().count("data:image/jpeg") == 5


def test_errors_are_one_sentence(folder, tmp_path, siamese):
    for command in (
        ("embed", tmp_path / "missing"),
        ("embed", EXAMPLES / "biden.jpg"),
        ("find", tmp_path / "missing.jpg", folder),
        ("find", EXAMPLES / "biden.jpg", folder, "--fmr", "0"),
        ("group", tmp_path / "missing"),
    ):
        run = siamese(*command)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1)


def test_images_of_things_are_not_called_faces_of_people(folder, tmp_path, siamese):
    """The network of the tutorial compares whole images."""
    network = ("--weights", "weights/att")
    page, table = tmp_path / "found.html", tmp_path / "groups.csv"
    runs = (
        siamese("embed", folder, *network),
        siamese("find", EXAMPLES / "biden.jpg", folder, "--html", page, *network),
        siamese("group", folder, "--csv", table, "--copy", tmp_path / "groups", *network),
    )
    assert [run.returncode for run in runs] == [0, 0, 0]
    texts = [run.stdout + run.stderr for run in runs] + [page.read_text().partition("<ol>")[0], table.read_text()]
    assert "5 images: " in texts[2]
    assert all(path.name.startswith("group-") for path in (tmp_path / "groups").iterdir())
    for text in texts[:4]:
        assert "image" in text
        assert not re.search("face|person|people", text.replace(str(tmp_path), ""), re.IGNORECASE)
