"""The Find and Group tabs: a search, faces by person, and two chosen faces."""

import base64
import csv
import re

import numpy as np
import pytest
from PIL import Image

from siamese import find, group, load
from siamese.page import find as finding
from siamese.page import group as grouping
from siamese.page import widgets
from siamese.page.uploads import ReadPhoto, Upload, read_together
from siamese.search.embedding import PhotoCollection
from siamese.wording import FACES

from .conftest import EXAMPLES
from .html_checks import WellFormed

PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
GROUP = EXAMPLES / "edited" / "group.jpg"


@pytest.fixture(scope="module")
def three(model):
    """Biden, Collins and Biden again."""
    return PhotoCollection(model, [("biden.jpg", PAIR[0]), ("collins.jpg", PAIR[1]), ("again.jpg", PAIR[0])])


def test_uploads_with_the_same_name_get_names_of_their_own():
    files = [Upload(f"/{folder}.jpg") for folder in ("a/x", "b/x", "c/x (2)", "d/x", "e/y")]
    names = [name for name, _ in widgets.named(files, FACES, "find")]
    assert names == ["x.jpg", "x (2).jpg", "x (2) (2).jpg", "x (3).jpg", "y.jpg"]
    assert [file for _, file in widgets.named(files, FACES, "find")] == files
    with pytest.raises(ValueError, match=r"41 photos.* Remove 1.*siamese group"):
        widgets.named([Upload("/x.jpg")] * 41, FACES, "group")


# --- a group


def test_photos_that_take_too_long_are_left_out(model):
    photos = PhotoCollection(model, [("biden.jpg", PAIR[0]), ("collins.jpg", PAIR[1])], max_seconds=0)
    assert len(photos) == 1
    assert len(photos.problems) == 1


def test_file_names_are_escaped(model):
    name = '<img src=x onerror="alert(1)">.jpg'
    photos = PhotoCollection(model, [(name, PAIR[0]), (name, Image.new("RGB", (300, 300)))])
    drawn = grouping.draw_people(group(photos, model=model), photos, FACES)
    WellFormed(drawn)
    assert "<img src=x" not in drawn


def test_matrix_is_opaque_for_similar_faces(model, three):
    picture = grouping.matrix(three.faces(), grouping.distances(three.z), model.calibration.threshold)
    side = picture.width // 4
    alpha = [[picture.getpixel((side * (x + 1) + 3, side * (y + 1) + 3))[3] for x in range(3)] for y in range(3)]
    assert alpha[0][0] == alpha[0][2] > alpha[0][1] == alpha[1][0]


def test_archive_has_each_photo_in_the_folder_of_each_of_its_people(model, three):
    uploads = {name: Upload(f"/{name}") for name in ("biden.jpg", "collins.jpg", "again.jpg")}
    entries = grouping.archive(group(three, model=model), uploads, FACES)
    assert entries == [
        ("person 1/biden.jpg", "/biden.jpg"),
        ("person 1/again.jpg", "/again.jpg"),
        ("person 2/collins.jpg", "/collins.jpg"),
    ]
    both = PhotoCollection(model, [("both.jpg", GROUP)])
    entries = grouping.archive(group(both, model=model), {"both.jpg": Upload("/both.jpg")}, FACES)
    assert [path for path, _ in entries] == [f"person {number}/both.jpg" for number in range(1, 5)]


def test_numbers_of_a_group_are_its_distances(model, three):
    groups = grouping.groups_of(group(three, model=model), FACES)
    apart = grouping.distances(three.z[[0, 2, 1]])
    drawn = grouping._downloads(groups, apart, FACES)
    table = widgets_table(drawn)
    assert table[0] == ["face", "person", "biden.jpg", "again.jpg", "collins.jpg"]
    assert [row[1] for row in table[1:]] == ["Person 1", "Person 1", "Person 2"]
    answer = model.compare(*PAIR)
    assert float(table[1][4]) == pytest.approx(answer.dissimilarity, abs=1e-3)
    assert float(table[1][3]) == pytest.approx(0, abs=1e-3)


def widgets_table(drawn: str) -> list[list[str]]:
    content = base64.b64decode(re.search(r"base64,([^\"]+)", drawn)[1]).decode()
    return list(csv.reader(content.splitlines()))


@pytest.mark.parametrize("fmr", [None, 1e-3])
def test_pair_agrees_with_a_comparison_of_the_photos(model, three, fmr):
    tab, kept = grouping.GroupTab(model, FACES, []), grouping.Kept([], three)
    for rows, files in (((0, 1), PAIR), ((0, 2), (PAIR[0], PAIR[0]))):
        answer = model.compare(*files, fmr=fmr)
        drawn = tab.on_pair(kept, fmr or 0, *rows)
        WellFormed(drawn)
        assert f'class="answer {answer.verdict}"' in drawn
        assert abs(float(re.search(r"Dissimilarity <b>([\d.]+)", drawn)[1]) - answer.dissimilarity) < 0.011
    assert [tab.on_pair(kept, 0, *rows) for rows in ((0, None), (None, None), (0, 3))] == ["", "", ""]


def test_groups_of_other_photos_are_not_shown(model, three):
    tab, files = grouping.GroupTab(model, FACES, []), [Upload(str(photo)) for photo in (*PAIR, PAIR[0])]
    assert "matrix" in tab.show(files, grouping.Kept(files, three), 0)
    for old in (grouping.Kept(files[:2], three), grouping.Kept(files, None)):
        assert tab.show(files, old, 0) == widgets.WAITING
    for few, kept, state in (
        (files, None, "problem"),
        (files * 14, grouping.Kept(files, three), "problem"),
        ([], None, "hint"),
    ):
        assert f'class="answer {state}"' in tab.show(few, kept, 0)


# --- a search


def test_find_ranks_the_person_of_the_portrait_first(model):
    photos = PhotoCollection(model, [("group.jpg", GROUP), ("biden.jpg", PAIR[0])])
    found = find(EXAMPLES / "obama-portrait.jpg", photos, model=model)
    assert sorted(face.number for face in found.ranked if face.photo == "group.jpg") == [1, 2, 3, 4]
    best, *others = found.ranked
    left, _, right, _ = best.box
    assert 300 < (left + right) / 2 < 600  # the second of four parts, each 300 pixels wide
    assert best.face.crop.size == (112, 112)
    assert best.match
    assert best.probability > 0.99
    assert all(face.probability < 0.1 and not face.match for face in others)
    expected = model.compare(EXAMPLES / "obama-portrait.jpg", PAIR[0])
    (biden,) = [face for face in found.ranked if face.photo == "biden.jpg"]
    assert biden.dissimilarity == pytest.approx(expected.dissimilarity, rel=1e-3)
    among = model.calibration.probability_among(expected.score, len(found.ranked))
    assert biden.probability == pytest.approx(float(among), rel=0.05)


def test_find_names_photos_that_are_left_out_and_refuses_a_portrait_without_a_face(model, tmp_path):
    (tmp_path / "song.jpg").write_bytes(b"la la la")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    photos = [("song.jpg", tmp_path / "song.jpg"), ("noise.png", noise), ("biden.jpg", PAIR[0])]
    found = find(GROUP, PhotoCollection(model, photos), model=model)
    assert [face.photo for face in found.ranked] == ["biden.jpg"]
    assert len(found.warnings) == 3  # four faces in the portrait, no image, no face
    with pytest.raises(ValueError, match="No face was found in the portrait"):
        find(noise, PhotoCollection(model, photos), model=model)
    with pytest.raises(ValueError, match="not an image"):
        find(tmp_path / "song.jpg", PhotoCollection(model, photos), model=model)
    nothing = find(PAIR[0], PhotoCollection(model, photos[1:2]), model=model)
    assert nothing.ranked == ()
    assert "no-face" in finding.answer(nothing, FACES)


def test_drawn_search_has_a_box_for_each_face_and_marks_the_best(model):
    photos = PhotoCollection(model, [("group.jpg", GROUP), ("biden.jpg", PAIR[0])])
    found = find(EXAMPLES / "obama-portrait.jpg", photos, model=model)
    card = finding.answer(found, FACES)
    drawn = finding.photos(found, {"group.jpg": str(GROUP), "biden.jpg": str(PAIR[0])})
    WellFormed(card + drawn)
    assert 'class="answer same"' in card
    assert drawn.count('class="box') == 5
    assert drawn.count("best") == 1
    assert drawn.index("group.jpg") < drawn.index("<details>") < drawn.index("biden.jpg")
    assert "1 of 2" in card


def test_each_face_of_a_portrait_can_be_searched_for(model):
    """Which of the four faces of the portrait decides whose photo matches."""
    tab = finding.FindTab(model, FACES, [])
    names = ("hopper", "obama-standing", "collins", "biden")
    (group,) = read_together([Upload(str(GROUP))], None)
    boxes = [face.box for face in model.detect([group])[0]]
    order = sorted(range(4), key=lambda face: boxes[face][0])  # from left to right
    for name, face in zip(names, order, strict=True):
        drawn = tab.choice(group, face + 1)
        WellFormed(drawn)
        assert drawn.count('aria-pressed="true"') == 1
        photos = PhotoCollection(model, [(other, EXAMPLES / f"{other}.jpg") for other in names])
        assert [match.photo for match in find(GROUP, photos, model=model, face=face + 1).matches] == [name]
    for portraits, face in ((GROUP, 5), (GROUP, 0), ([GROUP, PAIR[0]], 1)):
        with pytest.raises(ValueError, match="face"):
            find(portraits, photos, model=model, face=face)
    (single,) = read_together([Upload(str(PAIR[0]))], None)
    assert tab.choice(single, 1) == ""
    with pytest.raises(ValueError, match="No face"):
        tab.choice(ReadPhoto(Image.new("RGB", (300, 300)), 1), 1)


# --- the faces of photos in memory


def test_all_faces_of_all_photos_are_in_a_collection(model, tmp_path):
    """Two people in one photo, one of them in another, a photo without a face, and a file that is not an image."""
    photo, progress = Image.new("RGB", (1000, 500)), []
    for x, name in ((0, "biden.jpg"), (500, "collins.jpg")):
        photo.paste(Image.open(EXAMPLES / name).resize((500, 500)), (x, 0))
    (tmp_path / "song.jpg").write_bytes(b"\xff\xfe\x00 la la la")
    blank = Image.new("RGB", (300, 300))
    photos = [("two", photo), ("song.jpg", tmp_path / "song.jpg"), ("b", EXAMPLES / "biden.jpg"), ("blank", blank)]
    found = PhotoCollection(model, photos, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [(face.row, face.photo, face.number) for face in found.faces()] == [
        (0, "two", 1),
        (1, "two", 2),
        (2, "b", 1),
    ]
    assert found.problems[1] == "No face was found in blank."
    assert found.problems[0].startswith("song.jpg is not an image")
    people = group(found, model=model)
    assert sorted(map(len, people.people)) == [1, 2]
    assert people.warnings == tuple(found.problems)


def test_without_alignment_each_image_counts_as_one_face(trained, digits):
    images = [(file.name, file) for file in sorted((digits / "0").iterdir())]
    assert len(PhotoCollection(load(trained), images)) == 8
    limited = PhotoCollection(load(trained), images, max_faces=5)
    assert (len(limited), len(limited.faces()), limited.z.shape) == (5, 5, (5, 2))
    assert "first 5 images" in limited.problems[0]
