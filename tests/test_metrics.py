"""Metrics against slow, obvious counting."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from siamese.data.pairs import all_pairs
from siamese.evaluation import calibrate, metrics
from siamese.evaluation.pairs import Scored

# Few distinct values, so that genuine and impostor pairs often have equal distances.
scores = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


def to_arrays(pairs):
    distance, same = map(np.array, zip(*pairs, strict=True))
    assume(same.any() and not same.all())
    return distance.astype(float), same


def rates(distance, same, threshold):
    """Return FMR and TMR, counted one pair at a time."""
    matches = [(d <= threshold, s) for d, s in zip(distance, same, strict=True)]
    fmr = sum(match for match, s in matches if not s) / sum(not s for s in same)
    return fmr, sum(match for match, s in matches if s) / sum(same)


@given(scores)
def test_auc_is_the_share_of_ordered_pairs(pairs):
    distance, same = to_arrays(pairs)
    wins = [(g < i) + (g == i) / 2 for g in distance[same] for i in distance[~same]]
    assert metrics.auc(distance, same) == pytest.approx(np.mean(wins))


@given(scores, st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_tmr_at_fmr_is_that_of_the_best_allowed_threshold(pairs, target):
    distance, same = to_arrays(pairs)
    points = [rates(distance, same, threshold) for threshold in [-1, *distance]]
    assert metrics.tmr_at_fmr(distance, same, target) == pytest.approx(max(tmr for fmr, tmr in points if fmr <= target))


@given(scores)
def test_eer_is_between_the_neighbouring_thresholds(pairs):
    distance, same = to_arrays(pairs)
    points = [rates(distance, same, threshold) for threshold in sorted({-1, *distance})]
    before = [(fmr, 1 - tmr) for fmr, tmr in points if fmr <= 1 - tmr][-1]
    after = next((fmr, 1 - tmr) for fmr, tmr in points if fmr >= 1 - tmr)
    eer = metrics.eer(distance, same)
    assert before[0] - 1e-9 <= eer <= after[0] + 1e-9
    assert after[1] - 1e-9 <= eer <= before[1] + 1e-9


def test_best_threshold_has_the_highest_accuracy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        same = rng.random(40) < 0.5
        distance = np.abs(rng.normal(2, 1, 40) - same)
        threshold = metrics.best_threshold(distance, same)
        best = max(((distance <= value) == same).sum() for value in [-1, *distance])
        assert ((distance <= threshold) == same).sum() == best


def test_report_of_perfect_and_of_constant_distances():
    same = np.array([True, True, False, False])
    perfect = metrics.compute_report(np.array([0.1, 0.2, 3, 4]), same, np.array([0.9, 0.8, 0.1, 0.2]))
    assert (perfect.auc, perfect.eer, perfect.tmr_at_fmr_1e_2, perfect.balanced_accuracy) == (1, 0, 1, 1)
    assert (perfect.genuine, perfect.impostor, perfect.mean_impostor) == (2, 2, 3.5)
    constant = metrics.compute_report(np.ones(4), same, np.full(4, 0.5))
    assert (constant.auc, constant.eer, constant.balanced_accuracy) == (0.5, 0.5, 0.5)


def test_balanced_accuracy_weights_genuine_and_impostor_pairs_equally():
    same = np.array([True] + [False] * 99)
    assert metrics.compute_report(np.ones(100), same, np.zeros(100)).balanced_accuracy == 0.5


def test_report_needs_genuine_and_impostor_pairs():
    with pytest.raises(ValueError, match="genuine and impostor"):
        metrics.compute_report(np.ones(2), np.array([True, True]), np.ones(2))


def test_calibration_error_is_the_gap_between_predicted_and_observed():
    same = np.repeat([True, False], 500)
    assert metrics.calibration_error(np.full(1000, 0.5), same) == pytest.approx(0)
    assert metrics.calibration_error(np.where(same, 1.0, 0.0), same) == 0
    assert metrics.calibration_error(np.full(1000, 0.9), same) == pytest.approx(0.4)
    few_genuine = np.array([True] + [False] * 99)  # still at even odds
    assert metrics.calibration_error(np.full(100, 0.5), few_genuine) == pytest.approx(0)


def test_curves_equal_counting():
    rng = np.random.default_rng(0)
    distance, same = rng.gamma(3, size=500), rng.random(500) < 0.3
    probability = rng.random(500)
    curves = metrics.compute_curves(distance, same, probability)
    assert curves.width * metrics.DISTANCE_BINS == pytest.approx(distance.max())
    edges = np.arange(metrics.DISTANCE_BINS) * curves.width
    for counts, values in ((curves.genuine, distance[same]), (curves.impostor, distance[~same])):
        assert sum(counts) == len(values)
        for edge, count in zip(edges[:-1], counts, strict=False):
            assert count == sum(edge <= value < edge + curves.width for value in values)
    share, predicted, observed = np.transpose(curves.reliability)
    assert share.sum() == pytest.approx(1)
    assert share @ np.abs(predicted - observed) == pytest.approx(metrics.calibration_error(probability, same))
    chosen = (probability >= 0.3) & (probability < 0.4)
    genuine, impostor = (chosen & same).sum() / same.sum(), (chosen & ~same).sum() / (~same).sum()
    assert observed[3] == pytest.approx(genuine / (genuine + impostor))


def test_curves_of_equal_distances_and_probabilities_are_valid():
    """The sum of the weights of all pairs may be rounded to more than 1."""
    for genuine in range(2, 200, 3):
        same = np.arange(3 * genuine) < genuine
        curves = metrics.compute_curves(np.ones(len(same)), same, np.full(len(same), 0.7))
        assert np.allclose(curves.reliability, [(1, 0.7, 0.5)])


@pytest.mark.parametrize("people", range(2, 13))
def test_every_number_of_people_and_images_gives_a_result_of_a_useless_network(people):
    for images in range(2, 21):
        identity = np.repeat(np.arange(people), images)
        first, second, same = all_pairs(identity)
        scored = Scored(np.ones(len(same)), same, identity[np.stack([first, second], axis=1)])
        fitted = calibrate.fit_calibration(scored.distance, same).probability(scored.distance)
        assert (scored.cross_fit() is None) == (people < 4)
        for probability in (fitted, np.full(len(same), 0.7), scored.cross_fit()):
            report, curves = scored.report(probability), scored.curves(probability)
            if probability is not None:
                assert report.balanced_accuracy == 0.5
                assert curves.reliability == [(pytest.approx(1), pytest.approx(probability[0]), pytest.approx(0.5))]


@pytest.mark.parametrize("people", [2, 4, 12])
def test_random_and_equal_distances_can_be_calibrated(people):
    identity = np.repeat(np.arange(people), 2)
    first, second, same = all_pairs(identity)
    numbers = identity[np.stack([first, second], axis=1)]
    for distance in (np.zeros(len(same)), *np.random.default_rng(0).random((5, len(same)))):
        scored = Scored(distance, same, numbers)
        calibration = scored.calibrate()
        for probability in (calibration.probability(distance), scored.cross_fit()):
            assert probability is None or ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.parametrize("people", [4, 5, 7, 16])
def test_no_pair_is_judged_by_a_calibration_of_its_people(people, monkeypatch):
    """The distances name the people, so a leak would show."""
    first, second, same = all_pairs(np.repeat(np.arange(people), 3))
    numbers = np.repeat(np.arange(people), 3)[np.stack([first, second], axis=1)]
    fitted = []

    def spy(distance, same):
        fitted.append({int(code) for code in distance})
        assert same.any()
        assert not same.all()
        return Known(fitted[-1])

    class Known(set):
        def probability(self, distance):
            judged = {person for code in distance.astype(int).tolist() for person in divmod(code, 100)}
            assert not judged & {person for code in self for person in divmod(code, 100)}
            return np.full(len(distance), 0.25)

    monkeypatch.setattr(calibrate, "fit_calibration", spy)
    codes = (numbers[:, 0] * 100 + numbers[:, 1]).astype(float)
    assert (Scored(codes, same, numbers).cross_fit() == 0.25).all()
    assert len(fitted) == 10


def test_cross_fitted_accuracy_is_that_of_other_people():
    """As in random halves of the people: fitted to one half, tested on the other."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(16), 12)
    z = rng.normal(size=(16, 8))[identity] + 0.6 * rng.normal(size=(len(identity), 8))
    first, second, same = all_pairs(identity)
    distance, numbers = np.linalg.norm(z[first] - z[second], axis=1), identity[np.stack([first, second], axis=1)]
    ours = Scored(distance, same, numbers).report(Scored(distance, same, numbers).cross_fit())
    halves = []
    for _ in range(20):
        inside = np.isin(numbers, rng.permutation(16)[:8]).sum(axis=1)
        fit, test = inside == 2, inside == 0
        probability = calibrate.fit_calibration(distance[fit], same[fit]).probability(distance[test])
        halves.append(metrics.balanced_accuracy(probability, same[test]))
    assert ours.balanced_accuracy == pytest.approx(np.mean(halves), abs=0.01)


@pytest.mark.parametrize("names", ["abcdef", "abc"])  # 15 pairs of people, of which ten are returned, and 3
def test_confusions_equal_counting(names):
    rng = np.random.default_rng(0)
    identity = rng.permutation(np.repeat(np.arange(len(names)), 5))
    first, second, same = all_pairs(identity)
    people = identity[np.stack([first, second], axis=1)]
    distance = rng.random(len(same)) + 0.2 * np.ptp(people, axis=1)
    confused = Scored(distance, same, people).confused(0.6, names)
    share = {
        (one, other): np.mean(
            [d <= 0.6 for d, pair in zip(distance, people, strict=True) if {names[i] for i in pair} == {one, other}]
        )
        for one, other in itertools.combinations(names, 2)
    }
    worst = sorted((value for value in share.values() if value), reverse=True)[:10]
    assert [row.share for row in confused] == pytest.approx(worst)
    assert [share[row.first, row.second] for row in confused] == pytest.approx(worst)
    assert {row.pairs for row in confused} == {25}
    assert Scored(distance, same, people).confused(0.0, names) == []
