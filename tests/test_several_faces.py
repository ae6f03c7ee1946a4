"""Comparing photos that show several faces: the closest pair, its probability and its threshold."""

import math

import numpy as np
import pytest
from PIL import Image

from siamese import Calibration, wording
from siamese.calibration import OperatingPoint
from siamese.comparison import MAX_COMPARED_FACES, compare_faces, decide
from siamese.faces import Face

from .conftest import EXAMPLES

POINTS = tuple(OperatingPoint(10.0**-k, 2.5 * (k - 2), 0.1) for k in (2, 3, 4, 5))
CALIBRATION = Calibration(
    slope=30,
    intercept=32,
    poor_slope=(-20, 1, -20, 10),
    poor_intercept=(-10, -8, -20, 5),
    covariance=tuple(map(tuple, (np.eye(10) * 0.01).tolist())),
    operating_points=POINTS,
)
BLANK = Image.new("RGB", (1, 1))


def faces_of(quality) -> list[Face]:
    return [Face(BLANK, quality=float(value)) for value in quality]


def unit_vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    z = rng.normal(size=(count, 4))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def three() -> Image.Image:
    """Three people side by side."""
    photo = Image.new("RGB", (900, 400), "gray")
    for place, name in enumerate(("collins", "biden", "obama-speaking")):
        photo.paste(Image.open(EXAMPLES / f"{name}.jpg").resize((300, 375)), (300 * place, 10))
    return photo


@pytest.mark.parametrize("seed", range(20))
def test_probability_of_photos_is_the_mean_of_the_likelihood_ratios(seed):
    """Against a loop over all pairs of faces."""
    rng = np.random.default_rng(seed)
    z = unit_vectors(rng, rng.integers(1, 5)), unit_vectors(rng, rng.integers(1, 5))
    quality = rng.uniform(0.6, 1, len(z[0])), rng.uniform(0.6, 1, len(z[1]))
    odds, scores = {}, {}
    for row, (z1, q1) in enumerate(zip(z[0], quality[0], strict=True), 1):
        for column, (z2, q2) in enumerate(zip(z[1], quality[1], strict=True), 1):
            p = float(CALIBRATION.probability(np.linalg.norm(z1 - z2), (q1, q2)))
            odds[row, column] = p / (1 - p)
            scores[row, column] = float(CALIBRATION.score(np.linalg.norm(z1 - z2), (q1, q2)))
    mean = sum(odds.values()) / len(odds)
    answer = compare_faces(CALIBRATION, (faces_of(quality[0]), faces_of(quality[1])), z)
    assert answer.numbers == max(scores, key=scores.get)
    assert answer.score == pytest.approx(scores[answer.numbers])
    assert answer.probability == pytest.approx(mean / (1 + mean), rel=1e-6)
    low, high = answer.confidence_interval
    assert low < answer.probability < high


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize("fmr", [None, 1e-3])
def test_threshold_is_where_the_verdict_changes(others, fmr):
    """Move one of the faces towards the other photo's face until the photos are called the same."""
    far = unit_vectors(np.random.default_rng(0), others)
    far[:, 0] = -np.abs(far[:, 0])  # far from the face below
    face = np.array([[1.0, 0, 0, 0]])

    def answer_at(distance: float):
        angle = 2 * math.asin(distance / 2)
        moved = np.array([[math.cos(angle), math.sin(angle), 0, 0]])
        z = face, np.concatenate([far, moved])
        return compare_faces(CALIBRATION, (faces_of([0.9]), faces_of(np.full(others + 1, 0.8))), z, fmr)

    threshold = answer_at(0.9).threshold
    assert answer_at(threshold - 1e-3).verdict == "same" != answer_at(threshold + 1e-3).verdict
    assert threshold == pytest.approx(CALIBRATION.distance_at(CALIBRATION.needed(fmr, others + 1), (0.9, 0.8)))


def test_two_shared_people_need_no_larger_distance_than_one():
    """Each of the two is "same" already; the threshold of the closest pair is that of a pair on its own."""
    z = np.eye(4)[:2]
    answer = compare_faces(CALIBRATION, (faces_of([1, 1]), faces_of([1, 1])), (z, z))
    assert (answer.verdict, answer.dissimilarity) == ("same", 0)
    assert answer.threshold == pytest.approx(CALIBRATION.distance_at(CALIBRATION.needed(None, 4)))
    assert answer.threshold < CALIBRATION.distance_at(CALIBRATION.needed())


def test_faces_that_are_too_poor_for_a_rate_have_no_threshold():
    z = np.eye(4)[:1]
    faces = faces_of([0.2]), faces_of([0.2])
    answer = compare_faces(CALIBRATION, faces, (z, z), 1e-12)
    assert (answer.verdict, answer.threshold, len(answer.warnings)) == ("unsure", None, 1)
    again = decide(CALIBRATION, answer, None)
    assert (again.verdict, again.warnings) == ("same", ())
    assert decide(CALIBRATION, again, 1e-12) == answer


def test_the_person_is_found_among_several_faces(model, three):
    answer = model.compare(three, EXAMPLES / "obama-standing.jpg")
    assert (answer.verdict, answer.pairs, len(answer.found[0])) == ("same", 3, 3)
    assert answer.faces[0] is answer.found[0][answer.numbers[0] - 1]
    assert answer.faces[0].box[0] > 600  # on the right
    assert f"face {answer.numbers[0]} of 3" in str(answer)
    swapped = model.compare(EXAMPLES / "obama-standing.jpg", three)
    assert swapped.numbers == answer.numbers[::-1]
    assert swapped.probability == pytest.approx(answer.probability, rel=1e-3)
    chosen = model.compare(three, EXAMPLES / "obama-standing.jpg", face=(answer.numbers[0], None))
    assert chosen.dissimilarity == pytest.approx(answer.dissimilarity, abs=1e-4)
    assert chosen.threshold > answer.threshold  # one pair, not three


def test_strict_rates_are_kept_for_the_photos(model, three):
    answer = model.compare(three, EXAMPLES / "obama-standing.jpg", fmr=1e-3)
    qualities = [face.quality for face in answer.faces]
    needed = model.calibration.needed(1e-3, 3)
    assert answer.threshold == pytest.approx(model.calibration.distance_at(needed, qualities))
    assert (answer.verdict, answer.fmr) == ("same", 1e-3)


def test_a_poor_face_beside_a_better_one_decides_nothing(model):
    photo = Image.new("RGB", (700, 400), "gray")
    photo.paste(Image.open(EXAMPLES / "biden.jpg").resize((300, 375)), (0, 10))
    tiny = Image.open(EXAMPLES / "collins.jpg").resize((30, 38)).resize((300, 375))
    photo.paste(tiny, (350, 10))
    answer = model.compare(photo, EXAMPLES / "obama-portrait.jpg")
    assert (len(answer.found[0]), answer.pairs) == (2, 2)
    assert answer.found[0][1].quality < 0.7 < 0.8 < answer.found[0][0].quality
    assert answer.verdict == "different"
    found = model.compare(photo, EXAMPLES / "obama-portrait.jpg", face=(2, None))
    assert (found.verdict, found.numbers) == ("different", (2, 1))
    assert model.compare(photo, EXAMPLES / "biden.jpg").numbers == (1, 1)


def test_answers_in_words():
    def verdict(verdict, probability, fmr=None, words=wording.FACES):
        return wording.describe_verdict(verdict, probability, fmr, words)

    assert verdict("same", 0.999) == "Very likely the same person"
    assert verdict("same", 0.9) == "Probably the same person"
    assert verdict("unsure", 0.5) == "Not sure"
    assert "1 in 1,000" in verdict("unsure", 0.9, 1e-3)
    assert verdict("different", 0.2) == "Probably different people"
    assert verdict("different", 0.001, words=wording.IMAGES) == "Very likely different things"
    assert wording.describe_probability("different", 0.0001, wording.FACES).startswith("over 99.9% ")
    assert wording.percent(0.99951) == "over 99.9%"
    assert wording.percent(0.00049) == "under 0.1%"
    assert wording.describe_faces((2, 1), (5, 1)) == "face 2 of 5 in the first photo"
    assert wording.describe_faces((1, 1), (1, 1)) == ""


def test_a_notebook_shows_the_answer_as_a_card(model):
    answer = model.compare(EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg")
    card = answer._repr_html_()
    assert card.count('<img src="data:image/png;base64,') == 2
    assert str(answer) in card
    blank = model.compare(Image.new("RGB", (300, 300)), EXAMPLES / "biden.jpg")
    assert blank._repr_html_().count("<img") == 1


def test_a_crowd_is_compared_by_its_largest_faces(model):
    face = Image.open(EXAMPLES / "biden.jpg").convert("RGB").crop((130, 80, 490, 530))
    crowd = Image.new("RGB", (800, 800), "gray")
    for number in range(42):
        size = (96, 120) if number < 35 else (56, 70)
        crowd.paste(face.resize(size), (10 + number % 7 * 110, 10 + number // 7 * 130))
    answer = model.compare(crowd, EXAMPLES / "biden.jpg")
    assert len(answer.found[0]) > MAX_COMPARED_FACES
    assert answer.pairs <= MAX_COMPARED_FACES
    assert answer.verdict == "same"
    assert str(MAX_COMPARED_FACES) in answer.warnings[0]
    last = len(answer.found[0])
    assert model.compare(crowd, EXAMPLES / "biden.jpg", face=(last, 1)).numbers == (last, 1)
