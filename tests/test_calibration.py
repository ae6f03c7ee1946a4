"""Calibration and operating points."""

import dataclasses
import json
import math
from statistics import NormalDist

import numpy as np
import pytest

from siamese.calibration import LOWEST_SCORE, Calibration, OperatingPoint, logistic
from siamese.evaluation import calibrate
from siamese.evaluation.calibrate import fit_calibration, measure_operating_points
from siamese.record import parse


def test_fit_recovers_the_true_curve():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(1, 0.7, 20_000), rng.normal(3, 0.7, 200_000)
    fitted = fit_calibration(np.concatenate([genuine, impostor]), np.arange(220_000) < 20_000)
    # For two normal distributions of equal width s, the log-odds fall by (m1 − m0) / s² per unit of distance.
    assert fitted.slope == pytest.approx(2 / 0.49, rel=0.03)
    assert fitted.threshold == pytest.approx(2, abs=0.02)
    assert fitted.probability(fitted.threshold) == pytest.approx(0.5)
    assert fitted.probability(fitted.distance_at(LOWEST_SCORE)) == pytest.approx(0.75)
    assert np.all(np.diff(fitted.probability(np.linspace(0, 50, 99))) <= 0)


def interval(fitted, distance, quality=None) -> tuple[float, float]:
    margin = fitted.score_margin(distance, quality)
    return tuple(float(logistic(fitted.log_odds(distance, quality) + sign * margin)) for sign in (-1, 1))


@pytest.mark.parametrize(
    ("samples", "runs", "coverage"), [(20, (10, 3), 0.7), pytest.param(100, (25, 5), 0.8, marks=pytest.mark.slow)]
)
def test_confidence_interval_covers_the_truth_and_narrows_with_more_people(samples, runs, coverage, monkeypatch):
    """Simulate studies in which all pairs of a person have a common error."""
    monkeypatch.setattr(calibrate, "BOOTSTRAP_SAMPLES", samples)
    rng = np.random.default_rng(0)
    truth = Calibration(slope=2.0 / 0.25, intercept=2 * 2.0 / 0.25)
    covered, widths = [], {40: [], 320: []}  # number of people
    for count, repeats in zip(widths, runs, strict=True):
        for _ in range(repeats):
            genuine = np.repeat(np.arange(count)[:, None], 2, 1)
            people = np.concatenate([genuine, rng.integers(0, count, (count, 2))])  # (P, 2)
            same = people[:, 0] == people[:, 1]
            own = rng.normal(0, 0.35, count)
            distance = np.where(same, 1, 3) + own[people].sum(1) / 2 ** (1 + same)
            distance = distance + rng.normal(0, np.sqrt(0.25 - 0.35**2 / np.where(same, 4, 8)))
            low, high = interval(fit_calibration(distance, same, people), 2.2)
            covered.append(low <= truth.probability(2.2) <= high)
            widths[count].append(high - low)
    assert np.mean(covered) > coverage
    assert np.median(widths[320]) < 0.7 * np.median(widths[40])
    assert Calibration(1, 1).score_margin(1) is None


def test_operating_points_equal_counts():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(3, 0.7, 500), rng.normal(1, 0.3, 30_000)
    points = measure_operating_points(genuine, impostor)
    assert [point.fmr for point in points] == [1e-2, 1e-3]  # three impostor pairs are too few for 1e-4
    for point in points:
        assert (impostor >= point.score).mean() == pytest.approx(point.fmr)
        assert (genuine < point.score).mean() == pytest.approx(point.fnmr)
    fitted = Calibration(2.0, 1.0, covariance=((0.1, 0.2), (0.2, 0.3)), operating_points=points)
    assert parse(Calibration, json.dumps(dataclasses.asdict(fitted))) == fitted


def test_operating_points_with_equal_thresholds_are_one():
    """Many impostor pairs at the same distance, for example of a network that has learned nothing."""
    assert [point.fmr for point in measure_operating_points(np.ones(10), np.ones(100_000))] == [1e-2]
    assert measure_operating_points(np.ones(10), np.ones(100)) == ()


POINTS = tuple(OperatingPoint(10.0**-k, 3.0 * (k - 2), k / 100) for k in (2, 3, 4))
MEASURED = Calibration(30, 30, operating_points=POINTS)


def test_needed_score_is_that_of_the_rate_shared_by_all_pairs():
    assert MEASURED.needed(1e-3) == pytest.approx(3)
    assert MEASURED.needed(1e-2, 10) == pytest.approx(3)
    assert MEASURED.needed(1e-4, 1000) == pytest.approx(6 + math.log(1000))  # beyond the operating points
    assert MEASURED.needed() == pytest.approx(math.log(3))
    assert MEASURED.needed(0.5, 1) == pytest.approx(math.log(3))  # less than odds of 3 to 1 is never "same"


def test_needed_scores_between_the_operating_points_are_those_of_normally_distributed_impostors():
    impostors = NormalDist(-8, 3)
    points = tuple(OperatingPoint(rate, impostors.inv_cdf(1 - rate), 0.0) for rate in (1e-2, 1e-3, 1e-4, 1e-5))
    calibration = Calibration(30, 30, operating_points=points)
    for rate in (5e-4, 2e-4, 3e-5):
        assert calibration.needed(rate) == pytest.approx(impostors.inv_cdf(1 - rate))
    default = 1 - impostors.cdf(math.log(3))
    assert calibration.needed(None, 4) == pytest.approx(impostors.inv_cdf(1 - default / 4))


def test_needed_score_without_measured_rates_is_that_of_one_in_all():
    unmeasured = Calibration(30, 30)
    for pairs in (1, 100):
        assert unmeasured.probability_among(unmeasured.needed(None, pairs), pairs) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="omit it"):
        unmeasured.needed(1e-3)


@pytest.mark.parametrize("fmr", [0, -1, math.nan, math.inf, "0.1", [0.1]])
def test_invalid_rates_are_refused(fmr):
    with pytest.raises(ValueError, match="false-match rate"):
        MEASURED.needed(fmr)


def test_probability_among_many_is_from_the_measured_rates():
    # If the share of impostor pairs above a score is 10 ** (-2 - score / 3) and genuine pairs are spread evenly, the
    # likelihood ratio is their share per unit of score by the slope of this curve.
    for score in (-1.5, 0.5, 2.0, 4.5, 7.5):
        odds = 0.01 / 3 / (0.01 * 10 ** (-score / 3) * math.log(10) / 3) / 1000
        assert MEASURED.probability_among(score, 1000) == pytest.approx(odds / (1 + odds), rel=1e-6)
    assert Calibration(30, 30).probability_among(3.0, 50) == pytest.approx(math.exp(3) / (50 + math.exp(3)))


def test_fit_recovers_a_curve_that_depends_on_quality():
    """Poor genuine pairs are further apart, and the distances of all poor pairs vary more."""
    rng = np.random.default_rng(0)
    quality = rng.uniform(0.3, 1, (200_000, 2))
    truth = Calibration(12.0, 13.0, (-9.0, 3.0, -2.0, 0.0), (-8.0, 1.0, -1.0, 0.0))
    distance, same = rng.uniform(0, 2, 200_000), np.zeros(200_000, dtype=bool)
    same[:] = rng.random(200_000) < truth.probability(distance, quality)
    fitted = fit_calibration(distance, same, quality=quality)
    # Both kinds of pairs get the same weight, which adds a constant to the log-odds.
    truth = dataclasses.replace(truth, intercept=truth.intercept + np.log((~same).sum() / same.sum()))
    q = np.array([[0.9, 0.9], [0.9, 0.6], [0.5, 0.5], [0.4, 0.9]])
    for d in (0.8, 1.0, 1.2):
        assert fitted.probability(np.full(4, d), q) == pytest.approx(truth.probability(np.full(4, d), q), abs=0.03)
    assert fitted.lowest_quality == pytest.approx(0.3, abs=0.01)
    assert fitted.probability(1.0, (0.1, 0.9)) == fitted.probability(1.0, (fitted.lowest_quality, 0.9))
    assert fitted.probability(1.0, (0.5, 0.9)) == fitted.probability(1.0, (0.9, 0.5))
    assert fitted.score(fitted.distance_at(1.7, (0.5, 0.9)), (0.5, 0.9)) == pytest.approx(1.7)
    assert fitted.threshold == pytest.approx(fitted.distance_at(0, (1.0, 1.0)))
    assert parse(Calibration, json.dumps(dataclasses.asdict(fitted))) == fitted


def test_confidence_interval_with_quality():
    rng = np.random.default_rng(0)
    people = rng.integers(0, 60, (4000, 2))
    people[:1000, 1] = people[:1000, 0]
    same, quality = people[:, 0] == people[:, 1], rng.uniform(0.4, 1, (4000, 2))
    distance = np.where(same, 1.6 - 0.8 * quality.min(1), 1.4) + rng.normal(0, 0.1, 4000)
    fitted = fit_calibration(distance, same, people, quality)
    for q in (None, (1.0, 1.0), (0.5, 0.9)):
        low, high = interval(fitted, 1.2, q)
        assert low < fitted.probability(1.2, q) < high
    with pytest.raises(ValueError, match="10 rows"):
        dataclasses.replace(fitted, covariance=((0.1, 0.2), (0.2, 0.3)))


def test_fit_of_reversed_distances_is_undecided():
    fitted = fit_calibration(np.array([3.0, 3.1, 0.1, 0.2]), np.array([True, True, False, False]))
    assert fitted.probability(np.array([0, 3])) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "values",
    [
        {"slope": 0},
        {"slope": -1},
        {"intercept": 0},
        {"intercept": float("nan")},
        {"slope": float("inf")},
        {"slope": 1e-308, "intercept": 1e300},
        {"covariance": [1, 2]},
        {"covariance": []},
        {"covariance": [[1, 2], [2, float("nan")]]},
        {"lowest_quality": -1},
        {"operating_points": [OperatingPoint(0.01, 1, 0.1), OperatingPoint(0.1, 2, 0.1)]},
        {"operating_points": [OperatingPoint(0.01, 1, 0.1)] * 2},
        {"operating_points": [OperatingPoint(0.01, 1, 0.1), OperatingPoint(0.001, 1, 0.1)]},
        {"poor_slope": [-2, 0, 0, 0], "poor_intercept": [0, 0, 0, 0]},
        {"poor_slope": [0.1, 0.1], "poor_intercept": [0.1, 0.1]},
    ],
)
def test_invalid_values_raise(values):
    with pytest.raises(ValueError, match=r"calibration|covariance|poor_slope|quality|operating points"):
        Calibration(**{"slope": 1, "intercept": 1, **values})


@pytest.mark.parametrize(
    "values", [(0, 1, 0.1), (1, 1, 0.1), (0.1, math.nan, 0.1), (0.1, math.inf, 0.1), (0.1, 1, 1.1), (math.nan, 1, 0)]
)
def test_invalid_operating_points_raise(values):
    with pytest.raises(ValueError, match="operating point"):
        OperatingPoint(*values)


def test_poor_images_need_more_evidence():
    """Odds of 3 to 1 for two good images, of 20 to 100 to 1 if one is covered; P(same) does not change."""
    fitted = Calibration(10, 10, (0.0,) * 4, (0.0,) * 4)
    quality = np.array([(1, 1), (1, 0.65), (0.65, 1), (0.3, 1), (0.2, 0.1)])
    needed = [fitted.probability(fitted.distance_at(fitted.needed(), q), q) for q in quality]
    assert needed == pytest.approx(
        [3 / 4, np.sqrt(60) / (1 + np.sqrt(60)), np.sqrt(60) / (1 + np.sqrt(60)), 20 / 21, 100 / 101]
    )
    assert fitted.score(1, quality) == pytest.approx(
        fitted.log_odds(1, quality) - np.log([1, *[20 / 3] * 3, 100 / 3]) * [1, 0.5, 0.5, 1, 1]
    )
    assert fitted.score(1) == fitted.log_odds(1)
