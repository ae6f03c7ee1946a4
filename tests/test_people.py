"""The Find and Group tabs: names, faces by person, two chosen faces, and a search."""

import html as html_module
import json
import re

import numpy as np
import pytest
from PIL import Image

from siamese.page import find as finding
from siamese.page import people
from siamese.page.names import MAX_LENGTH, short_names
from siamese.page.uploads import Upload
from siamese.search.find_in_photos import find_in_photos
from siamese.search.group import group
from siamese.search.strictness import probability_among
from siamese.wording import FACES

from .conftest import EXAMPLES
from .html_checks import WellFormed

PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
GROUP = EXAMPLES / "edited" / "group.jpg"


@pytest.fixture(scope="module")
def three(model):
    """Biden, Collins and Biden again."""
    return group(model, [(file.name, file) for file in (*PAIR, PAIR[0])])


# --- names


def test_long_names_keep_the_end_that_tells_them_apart():
    assert short_names(["IMG_20240131_1.jpg", "IMG_20240131_2.jpg"]) == ["…1", "…2"]
    assert short_names(["holiday at the lake.jpg", "b.png"]) == ["holida…e.jpg", "b.png"]
    assert short_names(["biden.jpg", "collins.jpg", "biden.jpg"]) == ["biden", "collins", "biden"]
    assert short_names(["one very long single name.jpg"]) == ["one ve… name"]
    assert short_names([]) == []


def test_different_names_stay_different():
    names = [f"photo {'x' * number} of the same day at the beach.jpeg" for number in range(6)]
    names += [f"scan{number:04}of the album.png" for number in range(40)]
    short = short_names(names)
    assert len(set(short)) == len(names)
    assert all(len(name) <= MAX_LENGTH for name in short_names([f"{n:03}-{'y' * 40}-{n:03}.jpg" for n in range(9)]))


# --- a group


def test_file_names_are_escaped(model):
    name = '<img src=x onerror="alert(1)">.jpg'
    found = group(model, [(name, PAIR[0]), (name, Image.new("RGB", (300, 300)))])
    drawn = people.people(found, model.calibration.threshold, [Upload(f"/a/{name}")] * 2, FACES)
    WellFormed(drawn)
    assert "<img src=x" not in drawn


def test_matrix_is_dark_for_similar_faces(model, three):
    picture = people.matrix(three, [0, 1, 2], model.calibration.threshold)
    side = picture.width // 4
    sums = [[sum(picture.getpixel((side * (x + 1) + 3, side * (y + 1) + 3))) for x in range(3)] for y in range(3)]
    assert sums[0][0] == sums[0][2] < sums[0][1] == sums[1][0]


def test_archive_has_each_photo_in_the_folder_of_each_of_its_people(model, three):
    files = [Upload(f"/{folder}.jpg") for folder in ("a/biden", "b/collins", "c/biden")]
    drawn = people.people(three, 1.0, files, FACES)
    entries = json.loads(html_module.unescape(re.search(r'data-zip="(.*?)"', drawn)[1]))
    assert entries == [
        ["person 1/biden.jpg", "/a/biden.jpg"],
        ["person 1/3 biden.jpg", "/c/biden.jpg"],
        ["person 2/collins.jpg", "/b/collins.jpg"],
    ]
    both = group(model, [("both.jpg", GROUP)])
    paths = [path for path, _ in people.archive(both, both.people(1.0), [Upload("/d/both.jpg")], FACES)]
    assert paths == [f"person {number}/both.jpg" for number in range(1, 5)]


@pytest.mark.parametrize("fmr", [None, 1e-3])
def test_pair_agrees_with_a_comparison_of_the_photos(model, three, fmr):
    for chosen, files in (((0, 1), PAIR), ((0, 2), (PAIR[0], PAIR[0]))):
        answer = model.compare(*files, fmr=fmr)
        drawn = people.pair(three, chosen, fmr, FACES)
        WellFormed(drawn)
        assert f'class="answer {answer.verdict}"' in drawn
        assert abs(float(re.search(r"Dissimilarity: ([\d.]+)", drawn)[1]) - answer.dissimilarity) < 0.011


# --- a search


def test_find_ranks_the_person_of_the_portrait_first(model):
    found = find_in_photos(model, EXAMPLES / "obama-portrait.jpg", [("group.jpg", GROUP), ("biden.jpg", PAIR[0])])
    assert [face.count for face in found.faces if face.photo == 0] == [4] * 4
    assert sorted(face.number for face in found.faces if face.photo == 0) == [1, 2, 3, 4]
    assert {(face.photo, face.name) for face in found.faces} == {(0, "group.jpg"), (1, "biden.jpg")}
    best, *others = found.faces
    left, _, right, _ = best.face.box
    assert 300 < (left + right) / 2 < 600  # the second of four parts, each 300 pixels wide
    assert best.probability > 0.99
    assert all(face.probability < 0.1 for face in others)
    expected = model.compare(EXAMPLES / "obama-portrait.jpg", PAIR[0])
    (biden,) = [face for face in found.faces if face.photo == 1]
    assert biden.dissimilarity == pytest.approx(expected.dissimilarity, rel=1e-3)
    quality = np.array([face.quality for face in expected.faces])
    distance = np.array(expected.dissimilarity)
    among = probability_among(model.calibration, distance, quality, len(found.faces))
    assert biden.probability == pytest.approx(float(among), rel=0.05)


def test_find_names_photos_that_are_left_out_and_refuses_a_portrait_without_a_face(model, tmp_path):
    (tmp_path / "song.jpg").write_bytes(b"la la la")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    photos = [("song.jpg", tmp_path / "song.jpg"), ("noise.png", noise), ("biden.jpg", PAIR[0])]
    found = find_in_photos(model, GROUP, photos)
    assert [face.name for face in found.faces] == ["biden.jpg"]
    assert len(found.problems) == 3  # four faces in the portrait, no image, no face
    assert found.faces[0].photo == 2
    with pytest.raises(ValueError, match="No face was found in the portrait"):
        find_in_photos(model, noise, photos)
    with pytest.raises(ValueError, match="not an image"):
        find_in_photos(model, tmp_path / "song.jpg", photos)
    nothing = find_in_photos(model, PAIR[0], photos[1:2])
    assert nothing.faces == ()
    assert "no-face" in finding.answer(nothing, FACES)


def test_drawn_search_has_a_box_for_each_face_and_marks_the_best(model):
    found = find_in_photos(model, EXAMPLES / "obama-portrait.jpg", [("group.jpg", GROUP), ("biden.jpg", PAIR[0])])
    card, photos = finding.answer(found, FACES), finding.photos(found, [str(GROUP), str(PAIR[0])])
    WellFormed(card + photos)
    assert 'class="answer same"' in card
    assert photos.count('class="box') == 5
    assert photos.count("best") == 1
    assert photos.index("group.jpg") < photos.index("biden.jpg")
