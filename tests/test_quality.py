"""The quality of a face, covered faces, and what poor photos do to an answer."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from siamese import Calibration, Model, images
from siamese.evaluation.degraded import DEGRADATIONS, GLASSES, MASKS, Cover, draw_cover, shrink
from siamese.faces.detection import find_faces
from siamese.search.embedding import embed_photos

from .conftest import EXAMPLES

PEOPLE = ("biden", "obama-standing")  # two men


def degrade(name: str, kind: str) -> Image.Image:
    photo = images.read(EXAMPLES / f"{name}.jpg")
    if kind == "mask and dark glasses":
        return cover(photo, MASKS["plain"], GLASSES["round"])
    return DEGRADATIONS[kind](photo, find_faces([photo])[0][0])


def quality(model, photo: Image.Image | Path) -> float:
    return float(model.embed_with_quality([photo])[1][0])


def test_quality_falls_with_each_degradation(model):
    for name in PEOPLE:
        photo = images.read(EXAMPLES / f"{name}.jpg")
        whole = quality(model, photo)
        assert 0.7 < whole <= 1
        for kind in ("14 pixels", "blur", "mask and dark glasses"):
            assert quality(model, degrade(name, kind)) < whole - 0.1, (name, kind)
        blurred = [quality(model, photo.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 8, 16)]
        assert blurred == sorted(blurred, reverse=True)


def test_networks_without_quality_scores_have_none(model):
    network = copy.deepcopy(model.network)
    network.reference_norm = None
    plain = Model(network, Calibration(slope=30.0, intercept=32.0), model.record, "plain", model.template)
    photos = [EXAMPLES / f"{name}.jpg" for name in PEOPLE]
    assert all(face.quality is None for face in plain.compare(*photos).faces)
    assert plain.compare(*photos).verdict == "different"
    small = images.read(photos[0]).reduce(8)
    assert any("is small" in warning for warning in plain.compare(small, photos[1]).warnings)


def cover(photo: Image.Image, *covers: Cover) -> Image.Image:
    (face,) = find_faces([photo])[0][:1]
    for each in covers:
        photo = draw_cover(photo, face, each)
    return photo


# Other shapes and colors than those that the calibration is fitted on.
PAPER = Cover((((0, 0.42), (0.95, 0.36), (0.8, 1.75), (0, 1.75)),), (120, 165, 200), (120, 165, 200))
BANDANA = Cover((((0, 0.55), (1.1, 0.3), (0, 2.6)),), (20, 110, 60), (200, 210, 190), 5)
VISOR = Cover((((0, -0.5), (1.1, -0.5), (1.0, 0.35), (0, 0.5)),), (70, 70, 75), (10, 10, 10))
WEDGES = Cover((((0.1, -0.3), (0.95, -0.15), (0.8, 0.2), (0.3, 0.3)),), (90, 20, 60), (160, 60, 120))
UNSEEN = [(PAPER,), (BANDANA,), (VISOR,), (WEDGES,), (BANDANA, WEDGES), (PAPER, WEDGES), (PAPER, VISOR)]
KNOWN = [(each,) for each in (*MASKS.values(), *GLASSES.values())]
BOTH = [(mask, glasses) for mask, glasses in zip(MASKS.values(), GLASSES.values(), strict=False)]


def test_covered_faces_of_different_people_are_rarely_the_same(model):
    """Also with covers that the calibration was not fitted on."""
    photos = [images.read(EXAMPLES / f"{name}.jpg") for name in (*PEOPLE, "hopper", "collins")]
    needed, scores = model.calibration.needed(), []
    for covers in [*UNSEEN, *KNOWN, *BOTH]:
        z, quality = model.embed_with_quality([cover(photo, *covers) for photo in photos])  # NaN without a face
        first, second = np.triu_indices(4, 1)
        distance = np.linalg.norm(z[first] - z[second], axis=1)
        scores.append(model.calibration.score(distance, np.stack([quality[first], quality[second]], axis=1)))
    assert np.isfinite(scores).mean() > 0.8
    assert (np.array(scores) >= needed).sum() <= 2  # of 138


@pytest.mark.parametrize("covers", [(mask,) for mask in MASKS.values()])
def test_masks_get_a_warning(model, covers):
    answer = model.compare(*(cover(images.read(EXAMPLES / f"{name}.jpg"), *covers) for name in PEOPLE))
    assert answer.verdict in ("different", "unsure")
    covered = sum("mouth" in face.covered for face in answer.faces)
    assert covered == sum("mouth" in warning for warning in answer.warnings) >= 1


def test_a_covered_face_has_the_same_quality_in_every_question(model):
    """The cover is part of the quality, so comparing, finding and grouping decide alike."""
    photo = cover(images.read(EXAMPLES / "biden.jpg"), PAPER)
    (alone,) = model.embed_with_quality([photo])[1]
    (searched,) = embed_photos(model, [photo])
    answer = model.compare(photo, EXAMPLES / "obama-standing.jpg")
    assert (
        alone == pytest.approx(searched.faces[0].quality, abs=1e-3) == pytest.approx(answer.faces[0].quality, abs=1e-3)
    )
    assert alone < 0.35


def test_covered_eyes(model):
    (face,) = model.detect([EXAMPLES / "biden.jpg"])[0]
    crop = face.crop.copy()
    ImageDraw.Draw(crop).rectangle((0, 40, 112, 62), fill="black")
    (marked,) = model.embed_faces([replace(face, crop=crop)])[1]
    assert marked.covered == ("eyes",)
    assert marked.quality < 0.5


def test_faces_that_are_not_covered_get_no_such_warning(model):
    for name in PEOPLE:
        poor = degrade(name, "blur")
        answer = model.compare(poor, EXAMPLES / "obama-portrait.jpg")
        assert answer.faces[0].quality < 0.9  # so it was checked
        assert not any(face.covered for face in answer.faces)


def test_a_tiny_face_of_the_same_person_is_not_called_different(model):
    photo = images.read(EXAMPLES / "obama-portrait.jpg")
    tiny = shrink(photo, find_faces([photo])[0][0], 15)
    answer = model.compare(tiny, EXAMPLES / "obama-standing.jpg")
    assert answer.verdict in ("same", "unsure")
    assert answer.to_dict()["faces"][0]["quality"] == answer.faces[0].quality < 0.85
    assert any("is small (about 1" in warning for warning in answer.warnings)


def test_the_same_distance_says_less_about_poor_faces(model):
    def width(quality: tuple[float, float]) -> float:
        """The range of distances in which P(same) is between 3 and 97 %."""
        return model.calibration.distance_at(-3.5, quality) - model.calibration.distance_at(3.5, quality)

    assert width((1.0, 1.0)) < width((0.8, 0.9)) < width((0.6, 0.8)) < width((0.5, 0.5))


def test_poor_faces_need_a_smaller_distance_for_a_strict_rate(model):
    photo = degrade("obama-standing", "mask and dark glasses")
    answers = [model.compare(photo, photo, fmr=rate) for rate in (1e-2, 1e-5, 1e-9)]
    assert answers[0].faces[0].quality < 0.65
    assert answers[0].dissimilarity == 0
    best = [model.calibration.distance_at(model.calibration.needed(answer.fmr)) for answer in answers]
    for answer, good in zip(answers[1:], best[1:], strict=True):
        assert answer.threshold is None or answer.threshold < good
    assert answers[0].verdict == "same"


def test_a_poor_face_without_a_known_cause_is_called_poor(model):
    photo = images.read(EXAMPLES / "biden.jpg")
    hot = ImageEnhance.Brightness(photo).enhance(4)
    answer = model.compare(hot, photo)
    assert answer.faces[0].quality < 0.8
    assert any("poor quality" in warning for warning in answer.warnings)
