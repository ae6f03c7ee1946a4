"""Calibration: from a distance to the probability that two images show the same identity, and operating points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

FALSE_MATCH_RATES = (1e-2, 1e-3, 1e-4, 1e-5)  # of the operating points
MIN_FALSE_MATCHES = 10  # an operating point with fewer is not measured
BOOTSTRAP_SAMPLES = 100
Z_95 = 1.96  # standard errors on each side of a 95 % confidence interval


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its error rates.

    Attributes:
        fmr: false-match rate, the share of impostor pairs with a distance of at most `distance`.
        distance: the threshold, ≥ 0.
        fnmr: false-non-match rate, the share of genuine pairs with a larger distance.
    """

    fmr: float
    distance: float
    fnmr: float


@dataclass(frozen=True)
class Calibration:
    """P(same) at even prior odds as a logistic function of the distance (Platt, 1999).

    Attributes:
        slope: > 0, the decrease of the log-odds per unit of distance.
        intercept: > 0, the log-odds at distance 0.
        covariance: variance of the intercept, covariance of intercept and slope, variance of the slope; None if it was
            not estimated.
        operating_points: thresholds at chosen false-match rates, the highest rate first; empty if not measured.

    Raises:
        ValueError: if a value is out of range.
    """

    slope: float
    intercept: float
    covariance: tuple[float, float, float] | None = None
    operating_points: tuple[OperatingPoint, ...] = ()

    def __post_init__(self) -> None:
        if not (0 < self.slope < math.inf and 0 < self.intercept < math.inf):
            raise ValueError(f"a calibration needs a slope and an intercept above 0, got {self}")
        if self.covariance is not None and not (len(self.covariance) == 3 and all(map(math.isfinite, self.covariance))):
            raise ValueError(f"the covariance of a calibration is three finite numbers, got {self.covariance}")
        thresholds = [self.threshold, *(point.distance for point in self.operating_points)]
        if not all(map(math.isfinite, thresholds)):
            raise ValueError(f"the thresholds of a calibration must be finite, got {thresholds}")

    @property
    def threshold(self) -> float:
        """The distance at which P(same) is 0.5."""
        return self.intercept / self.slope

    def probability(self, distance: ArrayLike) -> np.ndarray:
        """Return P(same) at even prior odds, in [0, 1], for one distance or an array of distances."""
        return _logistic(self.intercept - self.slope * np.asarray(distance))

    def confidence_interval(self, distance: float) -> tuple[float, float] | None:
        """Return the 95 % confidence interval of `probability`, or None if `covariance` is not known."""
        if self.covariance is None:
            return None
        var_intercept, covariance, var_slope = self.covariance
        variance = var_intercept - 2 * covariance * distance + var_slope * distance**2
        log_odds, margin = self.intercept - self.slope * distance, Z_95 * math.sqrt(max(variance, 0))
        return float(_logistic(log_odds - margin)), float(_logistic(log_odds + margin))

    def operating_point(self, fmr: float) -> OperatingPoint:
        """Return the operating point at a false-match rate.

        Raises:
            ValueError: if no threshold was measured at this rate. The message lists the rates that were.
        """
        for point in self.operating_points:
            if math.isclose(point.fmr, fmr):
                return point
        known = ", ".join(f"{point.fmr:g}" for point in self.operating_points)
        hint = f"choose one of: {known}" if known else "this network was tested on too few pairs, so omit it"
        raise ValueError(f"no threshold was measured for a false-match rate of {fmr:g}; {hint}")

    def distance_at(self, probability: float) -> float:
        """Return the distance at which P(same) is `probability`, in (0, 1).

        It is below 0 if P(same) never reaches `probability`.
        """
        return (self.intercept - math.log(probability / (1 - probability))) / self.slope


def fit(distance: np.ndarray, same: np.ndarray, people: np.ndarray | None = None) -> Calibration:
    """Fit a calibration. Genuine and impostor pairs have the same total weight.

    If genuine pairs are not closer than impostor pairs, the result is about 0.5 for every distance.

    Args:
        distance: (P,) float ≥ 0, distances of pairs of people that the network was not trained on.
        same: (P,) bool, true for genuine pairs.
        people: (P, 2) int, the two people of each pair. If given, the covariance is estimated by a bootstrap with
            `BOOTSTRAP_SAMPLES` samples of people, because pairs that share a person are correlated.

    Raises:
        ValueError: if genuine or impostor pairs are missing.
    """
    distance, same = np.asarray(distance, dtype=float), np.asarray(same, dtype=bool)
    slope, intercept = _fit_logistic(distance, same, np.ones(len(same)))
    covariance = None if people is None else _bootstrap_covariance(distance, same, np.asarray(people))
    return Calibration(slope, intercept, covariance)


def _bootstrap_covariance(distance: np.ndarray, same: np.ndarray, people: np.ndarray) -> tuple[float, float, float]:
    """Return variance of the intercept, covariance, and variance of the slope over samples of people."""
    from threadpoolctl import threadpool_limits  # comes with sklearn

    rng = np.random.default_rng(0)
    samples = []
    with threadpool_limits(1, user_api="blas"):  # threads make these small fits ten times slower
        for _ in range(BOOTSTRAP_SAMPLES):
            times = rng.poisson(1.0, people.max() + 1)  # how often each person is drawn
            weight = np.where(same, times[people[:, 0]], times[people[:, 0]] * times[people[:, 1]])
            if weight[same].any() and weight[~same].any():
                samples.append(_fit_logistic(distance, same, weight))
    var_slope, covariance, _, var_intercept = np.cov(np.transpose(samples)).ravel()
    return float(var_intercept), float(covariance), float(var_slope)


def measure_operating_points(genuine: np.ndarray, impostor: np.ndarray) -> tuple[OperatingPoint, ...]:
    """Find the thresholds at each of `FALSE_MATCH_RATES` with at least `MIN_FALSE_MATCHES` impostor pairs.

    Args:
        genuine: (G,) float ≥ 0, distances of genuine pairs.
        impostor: (I,) float ≥ 0, distances of impostor pairs.
    """
    rates = [rate for rate in FALSE_MATCH_RATES if rate * len(impostor) >= MIN_FALSE_MATCHES]
    counts = [int(rate * len(impostor)) for rate in rates]
    largest = max(counts, default=0)
    closest = np.sort(np.partition(impostor, largest)[:largest])
    thresholds = [float(closest[count - 1]) for count in counts]
    return tuple(
        OperatingPoint(rate, threshold, float((np.asarray(genuine) > threshold).mean()))
        for rate, threshold in zip(rates, thresholds, strict=True)
    )


def _fit_logistic(distance: np.ndarray, same: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic function."""
    from sklearn.linear_model import LogisticRegression  # needed to fit, not to use

    if not (weight[same].any() and weight[~same].any()):
        raise ValueError(f"need genuine and impostor pairs, got {same.sum()} and {(~same).sum()}")
    balance = np.where(same, weight[~same].sum(), weight[same].sum()) / weight.sum() * 2
    unit = np.average(distance, weights=weight * balance) or 1.0
    # Weak regularisation keeps the slope finite if genuine and impostor distances do not overlap.
    model = LogisticRegression(C=100).fit(distance[:, None] / unit, same, sample_weight=weight * balance)
    slope, intercept = float(-model.coef_[0, 0]) / unit, float(model.intercept_[0])
    return (slope, intercept) if slope > 0 and intercept > 0 else (1e-3 / unit, 1e-3)


def _logistic(log_odds: np.ndarray | float) -> np.ndarray:
    return 0.5 * (1 + np.tanh(log_odds / 2))
