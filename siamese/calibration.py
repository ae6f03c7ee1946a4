"""Calibration: from distance and quality to the probability that two images show the same identity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

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

    Raises:
        ValueError: if a value is out of range.
    """

    fmr: float
    distance: float
    fnmr: float

    def __post_init__(self) -> None:
        if not (0 < self.fmr < 1 and 0 <= self.distance < math.inf and 0 <= self.fnmr <= 1):
            raise ValueError(f"an operating point has rates from 0 to 1 and a distance of at least 0, got {self}")


@dataclass(frozen=True)
class Calibration:
    """P(same) at even prior odds as a logistic function of distance and quality.

    The log-odds of a pair at distance d are a - b d (Platt, 1999). If the network has quality scores, both parameters
    also depend on the lower quality q and the higher quality r of the two images. With p = (1 - q, (1 - q)², 1 - r,
    (1 - r)²), a = intercept + p · poor_intercept and b = slope + p · poor_slope. So the same distance says less about
    poor images.

    Attributes:
        slope: > 0, the decrease of the log-odds per unit of distance for two images of quality 1.
        intercept: > 0, the log-odds at distance 0 for two images of quality 1.
        poor_slope: four coefficients of p; empty if the network has no quality scores.
        poor_intercept: four coefficients of p; empty if the network has no quality scores.
        lowest_quality: lower qualities are treated like this one, because the calibration was not fitted on them.
        covariance: of (intercept, poor_intercept, slope, poor_slope), (2, 2) or (10, 10); None if it was not estimated.
        operating_points: thresholds at chosen false-match rates, the highest rate first; empty if not measured.
        min_quality: the lowest quality of an image for which `operating_points` hold.

    Raises:
        ValueError: if a value is out of range.
    """

    slope: float
    intercept: float
    poor_slope: tuple[float, ...] = ()
    poor_intercept: tuple[float, ...] = ()
    lowest_quality: float = 0.0
    covariance: tuple[tuple[float, ...], ...] | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    min_quality: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.poor_slope)
        if len(self.poor_intercept) != count or count not in (0, 4):
            raise ValueError(f"poor_slope and poor_intercept have 0 or 4 numbers, got {self}")
        grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 21)] * 2), axis=-1)  # (21, 21, 2), all pairs of qualities
        slopes = self._parameters(grid)[1]
        if not (0 < self.intercept < math.inf and (slopes > 0).all() and np.isfinite(slopes).all()):
            raise ValueError(f"a calibration needs slopes and an intercept above 0, got {self}")
        if self.covariance is not None:
            matrix = np.array(self.covariance, dtype=float)
            if matrix.shape != (2 + 2 * count,) * 2 or not np.isfinite(matrix).all():
                raise ValueError(f"a covariance has {2 + 2 * count} rows and columns, got {self.covariance}")
        if not (0 <= self.lowest_quality <= 1 and 0 <= self.min_quality <= 1):
            raise ValueError(f"lowest_quality and min_quality are in [0, 1], got {self}")
        rates = [point.fmr for point in self.operating_points]
        if rates != sorted(set(rates), reverse=True):
            raise ValueError(
                f"the operating points start with the highest rate, and each rate occurs once, got {rates}"
            )
        if not math.isfinite(self.threshold):
            raise ValueError(f"the threshold of a calibration must be finite, got {self.threshold}")

    @property
    def threshold(self) -> float:
        """The distance at which P(same) is 0.5 for images of quality 1."""
        return self.distance_at(0.5)

    def probability(self, distance: ArrayLike, quality: ArrayLike | None = None) -> np.ndarray:
        """Return P(same) at even prior odds, in [0, 1].

        Args:
            distance: one distance or an array of distances, ≥ 0.
            quality: (..., 2), the qualities of the two images, in [0, 1]; None for 1.
        """
        return _logistic(self.log_odds(distance, quality))

    def log_odds(self, distance: ArrayLike, quality: ArrayLike | None = None) -> np.ndarray:
        """Return the log-odds of `probability`. At even prior odds, this is the log of the likelihood ratio."""
        intercept, slope = self._parameters(quality)
        return intercept - slope * np.asarray(distance)

    def log_odds_margin(self, distance: float, quality: ArrayLike | None = None) -> float | None:
        """Return the distance of `log_odds` from the ends of its 95 % confidence interval; None if it is not known."""
        if self.covariance is None:
            return None
        poor = self._poorness(quality)
        gradient = np.concatenate([[1], poor, [-distance], -distance * poor])
        return Z_95 * math.sqrt(max(float(gradient @ np.array(self.covariance) @ gradient), 0))

    def confidence_interval(self, distance: float, quality: ArrayLike | None = None) -> tuple[float, float] | None:
        """Return the 95 % confidence interval of `probability`, or None if `covariance` is not known."""
        margin = self.log_odds_margin(distance, quality)
        if margin is None:
            return None
        log_odds = self.log_odds(distance, quality)
        return float(_logistic(log_odds - margin)), float(_logistic(log_odds + margin))

    def operating_point(self, fmr: float) -> OperatingPoint:
        """Return the operating point at a false-match rate.

        Raises:
            ValueError: if no threshold was measured at this rate. The message lists the rates that were.
        """
        if not isinstance(fmr, Real):
            raise ValueError(f"a false-match rate is a number such as 0.001, got {type(fmr).__name__}")
        for point in self.operating_points:
            if math.isclose(point.fmr, fmr):
                return point
        known = ", ".join(f"{point.fmr:g}" for point in self.operating_points)
        hint = f"choose one of: {known}" if known else "this network was tested on too few pairs, so omit it"
        raise ValueError(f"no threshold was measured for a false-match rate of {fmr:g}; {hint}")

    def distance_at_fmr(self, fmr: float) -> float:
        """Return the threshold at a false-match rate between or below those of the operating points.

        log(FMR) is interpolated linearly in the distance, and extrapolated below the lowest measured rate. If N pairs
        are compared to find one match, the threshold at FMR/N keeps the rate for all of them together.

        Args:
            fmr: in (0, 1), at most the highest rate that was measured.

        Raises:
            ValueError: if fewer than two operating points were measured.
        """
        if len(self.operating_points) < 2:
            raise ValueError("this network was tested on too few pairs to choose a false-match rate; omit it")
        rates = [math.log(point.fmr) for point in self.operating_points]
        lower = next((row for row in range(1, len(rates) - 1) if rates[row] <= math.log(fmr)), len(rates) - 1)
        (x0, x1), (point0, point1) = rates[lower - 1 : lower + 1], self.operating_points[lower - 1 : lower + 1]
        slope = (point1.distance - point0.distance) / (x1 - x0)
        return max(0.0, point0.distance + slope * (math.log(fmr) - x0))

    def distance_at(self, probability: float, quality: ArrayLike | None = None) -> float:
        """Return the distance at which P(same) is `probability`, in (0, 1), for two images of these qualities.

        It is below 0 if P(same) never reaches `probability`.
        """
        intercept, slope = self._parameters(quality)
        return float((intercept - math.log(probability / (1 - probability))) / slope)

    def _parameters(self, quality: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
        """Return intercept and slope for pairs of qualities, (..., 2)."""
        poor = self._poorness(quality)
        return self.intercept + poor @ np.array(self.poor_intercept), self.slope + poor @ np.array(self.poor_slope)

    def _poorness(self, quality: ArrayLike | None) -> np.ndarray:
        """Return p for pairs of qualities, (..., 4); (..., 0) if the network has no quality scores."""
        q = np.asarray((1.0, 1.0) if quality is None else quality)
        return _poorness(q.clip(self.lowest_quality))[..., : len(self.poor_slope)]


def fit(
    distance: np.ndarray,
    same: np.ndarray,
    people: np.ndarray | None = None,
    quality: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Calibration:
    """Fit a calibration. Genuine and impostor pairs have the same total weight.

    If genuine pairs are not closer than impostor pairs, the result is about 0.5 for every distance.

    Args:
        distance: (P,) float ≥ 0, distances of pairs of people that the network was not trained on.
        same: (P,) bool, true for genuine pairs.
        people: (P, 2) int, the two people of each pair. If given, the covariance is estimated by a bootstrap with
            `BOOTSTRAP_SAMPLES` samples of people, because pairs that share a person are correlated.
        quality: (P, 2) float in [0, 1], the qualities of the two images; None for a calibration without quality.
        weight: (P,) float ≥ 0, how much each pair counts; None for equal weights.

    Raises:
        ValueError: if genuine or impostor pairs are missing.
    """
    distance, same = np.asarray(distance, dtype=float), np.asarray(same, dtype=bool)
    weight = np.ones(len(same)) if weight is None else weight
    parameters = _fit_logistic(distance, same, quality, weight)
    covariance = None if people is None else _bootstrap_covariance(distance, same, quality, weight, np.asarray(people))
    (intercept, *poor_intercept), (slope, *poor_slope) = parameters.reshape(2, -1).tolist()
    lowest = 0.0 if quality is None else float(np.min(quality))
    return Calibration(slope, intercept, tuple(poor_slope), tuple(poor_intercept), lowest, covariance)


def _bootstrap_covariance(
    distance: np.ndarray, same: np.ndarray, quality: np.ndarray | None, weight: np.ndarray, people: np.ndarray
) -> tuple[tuple[float, ...], ...]:
    """Return the covariance of the parameters over samples of people."""
    from threadpoolctl import threadpool_limits  # comes with sklearn

    rng = np.random.default_rng(0)
    samples = []
    with threadpool_limits(1, user_api="blas"):  # threads make these small fits ten times slower
        for _ in range(BOOTSTRAP_SAMPLES):
            times = rng.poisson(1.0, people.max() + 1)  # how often each person is drawn
            drawn = weight * np.where(same, times[people[:, 0]], times[people[:, 0]] * times[people[:, 1]])
            if drawn[same].any() and drawn[~same].any():
                samples.append(_fit_logistic(distance, same, quality, drawn))
    return tuple(map(tuple, np.cov(np.transpose(samples)).tolist()))


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


def _fit_logistic(distance: np.ndarray, same: np.ndarray, quality: np.ndarray | None, weight: np.ndarray) -> np.ndarray:
    """Return the parameters in the order of `Calibration.covariance`."""
    from sklearn.linear_model import LogisticRegression  # needed to fit, not to use

    if not (weight[same].any() and weight[~same].any()):
        raise ValueError(f"need genuine and impostor pairs, got {same.sum()} and {(~same).sum()}")
    balance = np.where(same, weight[~same].sum(), weight[same].sum()) / weight.sum() * 2
    unit = np.average(distance, weights=weight * balance) or 1.0
    scaled = -distance[:, None] / unit
    poor = np.empty((len(same), 0)) if quality is None else _poorness(quality)
    x = np.hstack([poor, scaled, poor * scaled])
    # Weak regularisation keeps the slope finite if genuine and impostor distances do not overlap.
    model = LogisticRegression(C=100, solver="newton-cholesky").fit(x, same, sample_weight=weight * balance)
    intercepts = np.append(model.intercept_, model.coef_[0, : poor.shape[1]])
    slopes = model.coef_[0, poor.shape[1] :] / unit
    if slopes[0] <= 0 or intercepts[0] <= 0:
        intercepts, slopes = (np.eye(1, len(slopes))[0] * value for value in (1e-3, 1e-3 / unit))
    return np.concatenate([intercepts, slopes])


def _poorness(quality: np.ndarray) -> np.ndarray:
    """Return p of `Calibration`, (..., 4), for pairs of qualities, (..., 2)."""
    p = 1 - np.sort(quality, axis=-1)
    return np.stack([p[..., 0], p[..., 0] ** 2, p[..., 1], p[..., 1] ** 2], axis=-1)


def _logistic(log_odds: np.ndarray | float) -> np.ndarray:
    return 0.5 * (1 + np.tanh(log_odds / 2))
