"""Comparing photos that show several faces: the closest pair, its probability and its threshold."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from siamese import Calibration, wording
from siamese.calibration import OperatingPoint
from siamese.comparison import Comparison
from siamese.face_pairs import MAX_FACES, at_fmr, closest_pair
from siamese.faces import Face
from siamese.faces.mtcnn import _are_first

from .conftest import EXAMPLES

POINTS = tuple(
    OperatingPoint(rate, distance, 0.1) for rate, distance in ((1e-2, 1.1), (1e-3, 1.0), (1e-4, 0.92), (1e-5, 0.86))
)
CALIBRATION = Calibration(
    slope=30,
    intercept=32,
    poor_slope=(-20, 1, -20, 10),
    poor_intercept=(-10, -8, -20, 5),
    covariance=tuple(map(tuple, (np.eye(10) * 0.01).tolist())),
    operating_points=POINTS,
    min_quality=0.6,
)


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
    odds = {}
    for row, (z1, q1) in enumerate(zip(z[0], quality[0], strict=True)):
        for column, (z2, q2) in enumerate(zip(z[1], quality[1], strict=True)):
            p = float(CALIBRATION.probability(np.linalg.norm(z1 - z2), (q1, q2)))
            odds[row, column] = p / (1 - p)
    mean = sum(odds.values()) / len(odds)
    pair = closest_pair(CALIBRATION, z, quality, None)
    assert pair.rows == max(odds, key=odds.get)
    assert pair.probability == pytest.approx(mean / (1 + mean), rel=1e-6)
    assert (pair.probability >= 0.75) == (pair.distance <= pair.threshold)
    low, high = pair.confidence_interval
    assert low < pair.probability < high


@pytest.mark.parametrize("faces", [1, 3])
def test_threshold_is_where_the_verdict_changes(faces):
    """Move one of the faces towards the other photo's face until the photos are called the same."""
    others = unit_vectors(np.random.default_rng(0), faces - 1)
    others[:, 0] = -np.abs(others[:, 0])  # far from the face below
    face = np.array([[1.0, 0, 0, 0]])

    def pair_at(distance: float):
        angle = 2 * math.asin(distance / 2)
        moved = np.array([[math.cos(angle), math.sin(angle), 0, 0]])
        ones = np.ones(faces)
        return closest_pair(CALIBRATION, (face, np.concatenate([others, moved])), (ones[:1], ones), None)

    threshold = pair_at(0.9).threshold
    assert pair_at(threshold - 1e-3).probability > 0.75 > pair_at(threshold + 1e-3).probability
    assert threshold == pytest.approx(CALIBRATION.distance_at(3 * faces / (1 + 3 * faces)), abs=1e-3)


def test_a_false_match_rate_holds_for_the_photos_as_a_whole():
    z = unit_vectors(np.random.default_rng(0), 2), unit_vectors(np.random.default_rng(1), 5)
    ones = np.ones(2), np.ones(5)
    assert closest_pair(CALIBRATION, z, ones, 1e-2).threshold == pytest.approx(1.0)  # 1e-3 for each of 10 pairs
    single = closest_pair(CALIBRATION, (z[0][:1], z[1][:1]), (ones[0][:1], ones[1][:1]), 1e-2)
    assert single.threshold == pytest.approx(1.1)
    with pytest.raises(ValueError, match=r"0\.5"):
        closest_pair(CALIBRATION, z, ones, 0.5)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("fmr", [1e-2, 1e-4])
def test_a_kept_answer_gives_the_same_decision_at_another_rate(seed, fmr):
    """Against a new comparison of the embeddings, with good and poor faces, one pair and several."""
    rng = np.random.default_rng(seed)
    z = unit_vectors(rng, rng.integers(1, 4)), unit_vectors(rng, rng.integers(1, 4))
    z[1][0] = z[0][0] + rng.uniform(0.7, 1.1) * z[1][0]  # alike
    quality = rng.uniform(0.5, 1, len(z[0])), rng.uniform(0.5, 1, len(z[1]))
    default, expected = (closest_pair(CALIBRATION, z, quality, rate) for rate in (None, fmr))
    blank = Image.new("RGB", (1, 1))
    faces = tuple(Face(blank, quality=q[row]) for q, row in zip(quality, default.rows, strict=True))
    answer = Comparison(
        default.verdict,
        default.probability,
        default.confidence_interval,
        default.distance,
        default.threshold,
        fmr=None,
        faces=faces,
        numbers=(1, 1),
        pairs=len(z[0]) * len(z[1]),
        found=((), ()),
        warnings=("Kept.",),
        model="",
    )
    strict = at_fmr(CALIBRATION, answer, fmr)
    assert (strict.verdict, strict.threshold, strict.fmr) == (expected.verdict, expected.threshold, fmr)
    assert len(strict.warnings) == 1 + expected.is_too_poor
    assert (strict.probability, strict.dissimilarity) == (expected.probability, expected.distance)


def test_thresholds_between_and_below_the_measured_rates():
    for point in POINTS:
        assert CALIBRATION.distance_at_fmr(point.fmr) == pytest.approx(point.distance)
    assert CALIBRATION.distance_at_fmr(10**-2.5) == pytest.approx(1.05)
    assert CALIBRATION.distance_at_fmr(1e-6) == pytest.approx(0.80)
    rates = np.logspace(-2, -12, 50)
    distances = [CALIBRATION.distance_at_fmr(rate) for rate in rates]
    assert distances == sorted(distances, reverse=True)
    assert CALIBRATION.distance_at_fmr(1e-30) == 0
    with pytest.raises(ValueError, match="omit it"):
        Calibration(1, 1).distance_at_fmr(1e-3)


def test_the_person_is_found_among_several_faces(model, three):
    answer = model.compare(three, EXAMPLES / "obama-standing.jpg")
    assert (answer.verdict, answer.pairs, len(answer.found[0])) == ("same", 3, 3)
    assert answer.faces[0] is answer.found[0][answer.numbers[0] - 1]
    assert answer.faces[0].box[0] > 600  # on the right
    assert wording.place(answer.numbers[0], 3) in str(answer)
    swapped = model.compare(EXAMPLES / "obama-standing.jpg", three)
    assert swapped.numbers == answer.numbers[::-1]
    assert swapped.probability == pytest.approx(answer.probability, rel=1e-3)
    chosen = model.compare(three, EXAMPLES / "obama-standing.jpg", face=(answer.numbers[0], None))
    assert chosen.dissimilarity == pytest.approx(answer.dissimilarity, abs=1e-4)
    assert chosen.threshold > answer.threshold  # one pair, not three


def test_strict_rates_are_kept_for_the_photos(model, three):
    answer = model.compare(three, EXAMPLES / "obama-standing.jpg", fmr=1e-3)
    assert answer.threshold == pytest.approx(model.calibration.distance_at_fmr(1e-3 / 3))
    assert (answer.verdict, answer.fmr) == ("same", 1e-3)


def test_poor_faces_beside_better_ones_are_left_out_and_named(model):
    photo = Image.new("RGB", (700, 400), "gray")
    photo.paste(Image.open(EXAMPLES / "biden.jpg").resize((300, 375)), (0, 10))
    tiny = Image.open(EXAMPLES / "collins.jpg").resize((30, 38)).resize((300, 375))
    photo.paste(tiny, (350, 10))
    answer = model.compare(photo, EXAMPLES / "obama-portrait.jpg")
    assert (len(answer.found[0]), answer.pairs) == (2, 1)
    assert "face 2 " in answer.warnings[0]
    assert model.compare(photo, EXAMPLES / "collins.jpg", face=(2, None)).numbers == (2, 1)
    assert model.compare(tiny, EXAMPLES / "collins.jpg").pairs == 1  # the best face of a photo always counts


def test_answers_in_words():
    def verdict(verdict, probability, fmr=None, words=wording.FACES):
        return wording.describe_verdict(verdict, probability, fmr, words)

    assert verdict("same", 0.999) == "Very likely the same person"
    assert verdict("same", 0.9) == "Probably the same person"
    assert verdict("unsure", 0.5) == "Could be the same person or different people"
    assert "1 in 1,000" in verdict("unsure", 0.9, 1e-3)
    assert verdict("different", 0.2) == "Probably different people"
    assert verdict("different", 0.001, words=wording.IMAGES) == "Very likely different classes"
    assert wording.describe_probability("different", 0.0001, wording.FACES).startswith("over 99.9% ")
    assert wording.percent(0.99951) == "over 99.9%"
    assert wording.percent(0.00049) == "under 0.1%"
    assert wording.describe_faces((2, 1), (5, 1)) == "the second of 5 faces in the first photo"
    assert wording.describe_faces((1, 1), (1, 1)) == ""
    assert wording.place(12, 20) == "face 12 of 20"


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
    assert len(answer.found[0]) > MAX_FACES
    assert answer.pairs <= MAX_FACES
    assert answer.verdict == "same"
    assert str(MAX_FACES) in answer.warnings[0]
    last = len(answer.found[0])
    assert model.compare(crowd, EXAMPLES / "biden.jpg", face=(last, 1)).numbers == (last, 1)


@pytest.mark.parametrize("group", [[], [0], [1, 0, 1, 1, 0, 1, 2]])
def test_only_the_first_boxes_of_each_photo_are_kept(group):
    kept = _are_first(torch.tensor(group, dtype=torch.long), 2).tolist()
    assert kept == [group[:row].count(photo) < 2 for row, photo in enumerate(group)]
