"""One decision: whatever asks, a pair is "same" from one score on, and a stricter rate is never looser."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from siamese import compare
from siamese.calibration import Calibration, OperatingPoint
from siamese.comparison import compare_faces, decide
from siamese.faces import Face
from siamese.search.embedding import FoundFace, PhotoCollection
from siamese.search.find import find
from siamese.search.people import group, partition

from .conftest import EXAMPLES

RATES = [1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 0.00187, None, 0.01, 0.1, 1.0, 50.0]  # None is a rate of 1 in 530
A, B = EXAMPLES / "obama-standing.jpg", EXAMPLES / "edited" / "obama-blurred.jpg"
BLANK = Image.new("RGB", (1, 1))


@st.composite
def calibrations(draw):
    """A calibration with none to four operating points."""
    steps = draw(st.lists(st.floats(0.01, 4), max_size=4))
    scores = draw(st.floats(-4, 4)) + np.cumsum(steps)
    points = [OperatingPoint(10.0 ** -(k + 2), float(score), min(0.2 * k, 1)) for k, score in enumerate(scores)]
    if draw(st.booleans()):
        return Calibration(30, 32, operating_points=tuple(points))
    return Calibration(30, 32, (-23.0, 4.5, -25.0, 16.0), (-8.5, -10.0, -31.0, 14.0), operating_points=tuple(points))


rates = st.floats(1e-12, 100)
qualities = st.floats(0, 1)


@settings(max_examples=300, deadline=None)
@given(calibrations(), rates, rates, st.integers(1, 10**7))
def test_stricter_rate_never_needs_a_lower_score(calibration, one, other, pairs):
    if not calibration.operating_points:
        with pytest.raises(ValueError, match="omit it"):
            calibration.needed(one)
        return
    strict, loose = sorted([one, other])
    assert calibration.needed(strict, pairs) >= calibration.needed(loose, pairs) >= math.log(3)
    assert calibration.needed(strict, pairs) >= calibration.needed(strict, max(pairs // 2, 1))
    assert calibration.needed(None, pairs) >= calibration.needed(None, max(pairs // 2, 1))


@settings(max_examples=200, deadline=None)
@given(
    calibrations().filter(lambda calibration: calibration.operating_points),
    st.lists(st.tuples(st.floats(0, 2 * math.pi), qualities), min_size=2, max_size=5),
    rates,
    rates,
)
def test_photos_are_never_the_same_at_a_stricter_rate_only(calibration, faces, one, other):
    z = np.array([(math.cos(angle), math.sin(angle)) for angle, _ in faces])
    found = [Face(BLANK, quality=quality) for _, quality in faces]
    strict, loose = (
        compare_faces(calibration, (found[:1], found[1:]), (z[:1], z[1:]), rate) for rate in sorted([one, other])
    )
    assert not (strict.same and not loose.same)
    assert decide(calibration, loose, strict.fmr) == strict  # whatever was asked before
    for answer in (strict, loose):
        assert answer.same == (answer.score >= calibration.needed(answer.fmr, answer.pairs)) or not answer.same
        within = answer.threshold is not None and answer.dissimilarity <= answer.threshold
        close = answer.threshold is not None and math.isclose(answer.dissimilarity, answer.threshold, abs_tol=1e-9)
        assert (answer.verdict == "same") == within or close


class Embedded(PhotoCollection):
    """Faces that are known already."""

    def __init__(self, z, quality):
        self.z, self.problems = z.astype(np.float32), []
        self._faces = [FoundFace(row, f"{row:03}", 1, Face(BLANK, quality=q)) for row, q in enumerate(quality.tolist())]


def random_faces(model, count: int) -> Embedded:
    """Faces of six people, more or less alike, of all qualities."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(6, model.network.embedding_dim))
    z = people[rng.integers(0, 6, count)] + rng.uniform(0.3, 2, (count, 1)) * rng.normal(size=(count, people.shape[1]))
    return Embedded(z / np.linalg.norm(z, axis=1, keepdims=True), rng.uniform(0.3, 1, count))


def test_search_never_finds_more_at_a_stricter_rate(model, monkeypatch):
    photos = random_faces(model, 60)
    query = photos.z[:1]
    monkeypatch.setattr("siamese.search.find.embed_portraits", lambda *_: (query[0], [Face(BLANK, quality=0.9)], []))
    found = [
        {match.photo for match in find(A, photos, model=model, fmr=rate, limit=60).matches}
        for rate in RATES
        if rate is not None
    ]
    assert all(strict <= loose for strict, loose in itertools.pairwise(found))
    assert 1 <= len(found[0]) < len(found[-1]) < 60


def test_groups_never_grow_at_a_stricter_rate(model):
    photos = random_faces(model, 80)

    def people(rate) -> list[set[str]]:
        result = group(photos, model=model, fmr=rate)
        return [{face.photo for face in faces} for faces in result.people] + [{f.photo} for f in result.left_over]

    grouped = [people(rate) for rate in RATES if rate is not None]
    for strict, loose in itertools.pairwise(grouped):
        assert len(strict) >= len(loose)
    good = np.arange(80)
    ones = np.ones(80)
    needed = [model.calibration.needed(rate, 80) for rate in RATES if rate is not None]
    parts = [partition(photos.z[good], ones, good, model.calibration, score)[0] for score in needed]
    for strict, loose in itertools.pairwise(parts):  # each stricter group is a part of a looser one
        assert all(any(set(rows) <= set(other) for other in loose) for rows in strict)
    assert len(parts[0]) > len(parts[-1])


def test_a_search_in_one_photo_decides_as_a_comparison(model):
    """The same question in find and in compare: does one of the faces in this photo match?"""
    for rate in (1e-7, 1e-5, 1e-3):
        for photo in (B, EXAMPLES / "edited" / "group.jpg", EXAMPLES / "biden.jpg"):
            found = find(A, [photo], model=model, fmr=rate)
            answer = compare(A, photo, model=model, fmr=rate)
            assert bool(found.matches) == (answer.verdict == "same")


@pytest.mark.parametrize("photo", [B, EXAMPLES / "obama-portrait.jpg", EXAMPLES / "edited" / "group.jpg"])
def test_comparison_of_photos_is_monotone_and_equal_on_every_way_in(model, siamese, photo):
    answers = [model.compare(A, photo, fmr=rate) for rate in RATES]
    verdicts = [answer.verdict for answer in answers]
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict == "same")  # "same" from one rate on
    for rate, answer in zip(RATES, answers, strict=True):
        if rate in (None, 1e-5, 1e-3):
            run = siamese("compare", A, photo, "--json", *([] if rate is None else ["--fmr", rate]))
            shell = json.loads(run.stdout)
            assert (shell["verdict"], shell["fmr"]) == (answer.verdict, rate)
            assert shell["threshold"] == pytest.approx(answer.threshold, abs=1e-3)
