"""Fit a calibration to pairs of held-out people, and measure its operating points."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from siamese.calibration import FALSE_MATCH_RATES, MIN_FALSE_MATCHES, Calibration, OperatingPoint, poorness

BOOTSTRAP_SAMPLES = 100


def fit_calibration(
    distance: np.ndarray,
    same: np.ndarray,
    people: np.ndarray | None = None,
    quality: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Calibration:
    """Fit a calibration to distances (P,) of people that the network was not trained on; `same` (P,) are genuine.

    Genuine and impostor pairs have the same total weight. If genuine pairs are not closer than impostor pairs, the
    result is about 0.5 for every distance.

    Args:
        people: (P, 2) int, the two people of each pair. If given, the covariance is estimated by a bootstrap over
            people, because pairs that share a person are correlated.
        quality: (P, 2) float in [0, 1], the qualities of the two images; None for a calibration without quality.
        weight: (P,) float ≥ 0, how much each pair counts; None for equal weights.
    """
    distance, same = np.asarray(distance, dtype=float), np.asarray(same, dtype=bool)
    weight = np.ones(len(same)) if weight is None else weight
    parameters = _fit_logistic(distance, same, quality, weight)
    covariance = None if people is None else _bootstrap_covariance(distance, same, quality, weight, np.asarray(people))
    (intercept, *poor_intercept), (slope, *poor_slope) = parameters.reshape(2, -1).tolist()
    lowest = 0.0 if quality is None else float(np.min(quality))
    return Calibration(slope, intercept, tuple(poor_slope), tuple(poor_intercept), lowest, covariance)


def cross_fit(distance: np.ndarray, same: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return P(same) of each pair, (P,), from a calibration that was fitted without its people.

    Args:
        distance: (P,) float.
        same: (P,) bool, the genuine pairs.
        groups: (P, 2) int ≥ 0, the group of each of the two people. A pair is judged by the pairs of the other groups.
    """
    count = groups.max() + 1
    pair_of_groups = groups.min(axis=1) * count + groups.max(axis=1)  # (P,)
    probability = np.empty(len(same))
    for number in np.unique(pair_of_groups):
        judged, others = pair_of_groups == number, ~np.isin(groups, divmod(number, count)).any(axis=1)
        probability[judged] = fit_calibration(distance[others], same[others]).probability(distance[judged])
    return probability


def measure_operating_points(genuine: np.ndarray, impostor: np.ndarray) -> tuple[OperatingPoint, ...]:
    """Find the thresholds of the score at `FALSE_MATCH_RATES`, given the scores of genuine and impostor pairs.

    A rate with fewer than `MIN_FALSE_MATCHES`, or whose threshold is not above that of the next higher rate, is left
    out.
    """
    counts = {
        rate: int(rate * len(impostor)) for rate in FALSE_MATCH_RATES if rate * len(impostor) >= MIN_FALSE_MATCHES
    }
    largest = max(counts.values(), default=0)
    highest = -np.sort(np.partition(-impostor, largest)[:largest]) if largest else impostor[:0]
    points: list[OperatingPoint] = []
    for rate, count in counts.items():
        threshold = float(highest[count - 1])
        if not points or threshold > points[-1].score:
            points.append(OperatingPoint(rate, threshold, float((np.asarray(genuine) < threshold).mean())))
    return tuple(points)


def _bootstrap_covariance(
    distance: np.ndarray, same: np.ndarray, quality: np.ndarray | None, weight: np.ndarray, people: np.ndarray
) -> tuple[tuple[float, ...], ...]:
    """Return the covariance of the parameters over samples of people."""
    rng = np.random.default_rng(0)
    samples = []
    with threadpool_limits(1, user_api="blas"):  # threads make these small fits ten times slower
        for _ in range(BOOTSTRAP_SAMPLES):
            times = rng.poisson(1.0, people.max() + 1)  # how often each person is drawn
            drawn = weight * np.where(same, times[people[:, 0]], times[people[:, 0]] * times[people[:, 1]])
            if drawn[same].any() and drawn[~same].any():
                samples.append(_fit_logistic(distance, same, quality, drawn))
    return tuple(map(tuple, np.cov(np.transpose(samples)).tolist()))


def _fit_logistic(distance: np.ndarray, same: np.ndarray, quality: np.ndarray | None, weight: np.ndarray) -> np.ndarray:
    """Return the parameters in the order of `Calibration.covariance`."""
    if not (weight[same].any() and weight[~same].any()):
        raise ValueError(f"need genuine and impostor pairs, got {same.sum()} and {(~same).sum()}")
    balance = np.where(same, weight[~same].sum(), weight[same].sum()) / weight.sum() * 2
    unit = np.average(distance, weights=weight * balance) or 1.0
    scaled = -distance[:, None] / unit
    poor = np.empty((len(same), 0)) if quality is None else poorness(quality)
    undecided = np.outer([1e-3, 1e-3 / unit], np.eye(1, 1 + poor.shape[1])[0]).ravel()
    if not np.ptp(distance):
        return undecided
    x = np.hstack([poor, scaled, poor * scaled])
    # Weak regularization keeps the slope finite if genuine and impostor distances do not overlap.
    model = LogisticRegression(C=100, solver="newton-cholesky").fit(x, same, sample_weight=weight * balance)
    intercepts = np.append(model.intercept_, model.coef_[0, : poor.shape[1]])
    slopes = model.coef_[0, poor.shape[1] :] / unit
    return undecided if slopes[0] <= 0 or intercepts[0] <= 0 else np.concatenate([intercepts, slopes])
