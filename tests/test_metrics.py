import dataclasses
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from siamese import calibration as calibrate
from siamese.evaluation import metrics

# Few distinct values, so that ties between genuine and impostor pairs are common.
scores = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


def arrays(pairs):
    distance, same = map(np.array, zip(*pairs, strict=True))
    assume(same.any() and not same.all())
    return distance.astype(float), same


def rates(distance, same, threshold):
    """False-accept and true-accept rate, counted a pair at a time."""
    accepted = [(d <= threshold, s) for d, s in zip(distance, same, strict=True)]
    far = sum(a for a, s in accepted if not s) / sum(not s for s in same)
    return far, sum(a for a, s in accepted if s) / sum(same)


@given(scores)
def test_auc_is_the_share_of_ordered_pairs(pairs):
    distance, same = arrays(pairs)
    wins = [(g < i) + (g == i) / 2 for g in distance[same] for i in distance[~same]]
    assert metrics.auc(distance, same) == pytest.approx(np.mean(wins))


@given(scores, st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_tar_at_far_is_the_best_threshold_allowed(pairs, target):
    distance, same = arrays(pairs)
    allowed = [rates(distance, same, t) for t in [-1, *distance]]
    assert metrics.tmr_at_fmr(distance, same, target) == pytest.approx(
        max(tar for fmr, tmr in allowed if far <= target)
    )


@given(scores)
def test_eer_lies_between_the_thresholds_around_it(pairs):
    distance, same = arrays(pairs)
    points = [rates(distance, same, t) for t in sorted({-1, *distance})]
    before = [(far, 1 - tar) for fmr, tmr in points if far <= 1 - tar][-1]
    after = next((far, 1 - tar) for fmr, tmr in points if far >= 1 - tar)
    eer = metrics.eer(distance, same)
    assert before[0] - 1e-9 <= eer <= after[0] + 1e-9
    assert after[1] - 1e-9 <= eer <= before[1] + 1e-9


def test_a_perfect_and_a_useless_network():
    same = np.array([True, True, False, False])
    perfect = metrics.report(np.array([0.1, 0.2, 3, 4]), same, np.array([0.9, 0.8, 0.1, 0.2]))
    assert (perfect["auc"], perfect["eer"], perfect["tmr_at_fmr_1e_2"], perfect["balanced_accuracy"]) == (1, 0, 1, 1)
    useless = metrics.report(np.ones(4), same, np.full(4, 0.5))
    assert (useless["auc"], useless["eer"], useless["balanced_accuracy"]) == (0.5, 0.5, 0.5)


def test_balanced_accuracy_counts_both_kinds_alike():
    same = np.array([True] + [False] * 99)
    blind = metrics.report(np.ones(100), same, np.zeros(100))  # calls everything different
    assert blind["balanced_accuracy"] == 0.5


def test_refuses_one_kind_of_pairs():
    with pytest.raises(ValueError, match="genuine and impostor"):
        metrics.report(np.ones(2), np.array([True, True]), np.ones(2))


def test_calibration_error_is_the_gap_between_stated_and_true():
    same = np.repeat([True, False], 500)
    assert metrics.calibration_error(np.full(1000, 0.5), same) == pytest.approx(0)
    assert metrics.calibration_error(np.where(same, 1.0, 0.0), same) == 0
    assert metrics.calibration_error(np.full(1000, 0.9), same) == pytest.approx(0.4)
    few_genuine = np.array([True] + [False] * 99)  # even odds all the same
    assert metrics.calibration_error(np.full(100, 0.5), few_genuine) == pytest.approx(0)


def test_a_calibration_recovers_the_curve_it_was_drawn_from():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(1, 0.7, 20_000), rng.normal(3, 0.7, 200_000)
    fitted = calibrate.fit(np.concatenate([genuine, impostor]), np.arange(220_000) < 20_000)
    # For two normals of one width the log-odds are (m1 − m0) / s² per unit, even halfway between.
    assert fitted.slope == pytest.approx(2 / 0.49, rel=0.03)
    assert fitted.threshold == pytest.approx(2, abs=0.02)
    assert fitted.probability(fitted.threshold) == pytest.approx(0.5)
    assert fitted.probability(fitted.distance_at(0.75)) == pytest.approx(0.75)
    assert np.all(np.diff(fitted.probability(np.linspace(0, 50, 99))) <= 0)


def test_the_band_holds_the_truth_and_narrows_with_more_people():
    """Draw many small studies of people whose pairs rise and fall together: 95 % of the bands hold the true curve."""
    rng = np.random.default_rng(0)
    # For two normals of one width the true log-odds are a line.
    truth = calibrate.Calibration(slope=2.0 / 0.25, intercept=2 * 2.0 / 0.25)
    held, widths = [], {60: [], 240: []}
    for people, runs in ((60, 25), (240, 5)):
        for _ in range(runs):
            who = np.concatenate([np.repeat(np.arange(people)[:, None], 2, 1), rng.integers(0, people, (people, 2))])
            same = who[:, 0] == who[:, 1]
            own = rng.normal(0, 0.35, people)
            distance = np.where(same, 1, 3) + (own[who[:, 0]] + own[who[:, 1]]) / 2 ** (1 + same)
            distance = distance + rng.normal(0, np.sqrt(0.25 - 0.35**2 / np.where(same, 4, 8)))
            low, high = calibrate.fit(distance, same, who).confidence_interval(2.2)
            held.append(low <= truth.probability(2.2) <= high)
            widths[people].append(high - low)
    assert np.mean(held) > 0.8
    assert np.median(widths[240]) < 0.7 * np.median(widths[60])
    assert calibrate.Calibration(1, 1).confidence_interval(1) is None


def test_operating_points_are_what_counting_gives():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(1, 0.3, 500), rng.normal(3, 0.7, 30_000)
    points = calibrate.measure_operating_points(genuine, impostor)
    assert [point.fmr for point in points] == [1e-2, 1e-3]  # three impostors are too few for 1e-4
    assert calibrate.Calibration(1.0, 1.0, operating_points=points).operating_point(0.001) is points[1]
    with pytest.raises(ValueError, match=r"there is one for: 0\.01, 0\.001$"):
        calibrate.Calibration(1.0, 1.0, operating_points=points).operating_point(1e-4)
    for point in points:
        assert (impostor <= point.distance).mean() == pytest.approx(point.fmr)
        assert (genuine > point.distance).mean() == pytest.approx(point.fnmr)
    for broken in ({"covariance": [1, 2]}, {"covariance": []}, {"slope": 1e-308, "intercept": 1e300}):
        with pytest.raises(ValueError, match="a calibration's"):
            calibrate.Calibration.from_dict({"slope": 1, "intercept": 1, **broken})
    whole = calibrate.Calibration(2.0, 1.0, (0.1, 0.2, 0.3), points)
    assert calibrate.Calibration.from_dict(json.loads(json.dumps(dataclasses.asdict(whole)))) == whole


def test_the_best_threshold_is_most_often_right():
    rng = np.random.default_rng(0)
    for _ in range(20):
        distance, same = rng.normal(2, 1, 40), rng.random(40) < 0.5
        distance = np.abs(distance - same)
        threshold = metrics.best_threshold(distance, same)
        best = max(((distance <= value) == same).sum() for value in [-1, *distance])
        assert ((distance <= threshold) == same).sum() == best


def test_a_calibration_of_a_network_that_has_it_backwards_says_nothing():
    fitted = calibrate.fit(np.array([3.0, 3.1, 0.1, 0.2]), np.array([True, True, False, False]))
    assert fitted.probability(np.array([0, 3])) == pytest.approx(0.5, abs=0.01)
    for slope, intercept in ((0, 1), (-1, 1), (1, 0), (1, float("nan")), (float("inf"), 1)):
        with pytest.raises(ValueError, match="above 0"):
            calibrate.Calibration(slope, intercept)


def test_curves_are_what_counting_gives():
    rng = np.random.default_rng(0)
    distance, same = rng.gamma(3, size=500), rng.random(500) < 0.3
    probability = rng.random(500)
    curves = metrics.curves(distance, same, probability)
    assert curves["width"] * metrics.BINS == pytest.approx(distance.max())
    edges = np.arange(metrics.BINS) * curves["width"]
    for kind, values in (("genuine", distance[same]), ("impostor", distance[~same])):
        assert sum(curves[kind]) == len(values)
        for edge, count in zip(edges[:-1], curves[kind], strict=False):
            assert count == sum(edge <= value < edge + curves["width"] for value in values)
    share, stated, true = np.transpose(curves["reliability"])
    assert share.sum() == pytest.approx(1)
    assert share @ np.abs(stated - true) == pytest.approx(metrics.calibration_error(probability, same))
    chosen = (probability >= 0.3) & (probability < 0.4)
    genuine, impostor = (chosen & same).sum() / same.sum(), (chosen & ~same).sum() / (~same).sum()
    assert true[3] == pytest.approx(genuine / (genuine + impostor))
