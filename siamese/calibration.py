"""A distance → the probability that both images show one identity, and the thresholds of chosen error rates."""

import math
from dataclasses import dataclass

import numpy as np

RATES = (1e-2, 1e-3, 1e-4, 1e-5)  # the false-match rates that thresholds are found for
RESAMPLES = 100
CONFIDENCE = 1.96  # standard errors on either side: 95 %


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it costs.

    Attributes:
        fmr: the false-match rate: the share of impostor pairs at most `distance` apart.
        distance: the threshold, ≥ 0.
        fnmr: the false-non-match rate: the share of genuine pairs further apart.
    """

    fmr: float
    distance: float
    fnmr: float


@dataclass(frozen=True)
class Calibration:
    """P(same) at even odds as a logistic function of the distance (Platt, 1999).

    Attributes:
        slope: > 0; by how much the log-odds fall per unit of distance.
        intercept: > 0; the log-odds at distance 0.
        covariance: of intercept and slope: (variance of the intercept, covariance, variance of the slope); None where
            it was not estimated.
        operating_points: thresholds at chosen false-match rates, the highest rate first; empty where they were not measured.
    """

    slope: float
    intercept: float
    covariance: tuple[float, float, float] | None = None
    operating_points: tuple[OperatingPoint, ...] = ()

    def __post_init__(self):
        if not (0 < self.slope < math.inf and 0 < self.intercept < math.inf):
            raise ValueError(f"a calibration needs a slope and an intercept above 0, got {self}")
        if self.covariance is not None and not (len(self.covariance) == 3 and all(map(math.isfinite, self.covariance))):
            raise ValueError(f"a calibration's covariance is three finite numbers, got {self.covariance}")
        thresholds = [self.threshold, *(point.distance for point in self.operating_points)]
        if not all(map(math.isfinite, thresholds)):
            raise ValueError(f"a calibration's thresholds must be finite, got {thresholds}")

    @classmethod
    def from_dict(cls, values: dict) -> "Calibration":
        """Return what `dataclasses.asdict` took apart."""
        points = tuple(
            OperatingPoint(float(point["fmr"]), float(point["distance"]), float(point["fnmr"]))
            for point in values.get("operating_points", ())
        )
        covariance = values.get("covariance")
        if covariance is not None:
            covariance = tuple(map(float, covariance))
        return cls(float(values["slope"]), float(values["intercept"]), covariance, points)

    @property
    def threshold(self) -> float:
        """The distance at which same and different are equally likely."""
        return self.intercept / self.slope

    def probability(self, distance):
        """Return P(same) in [0, 1] at even odds, for a float ≥ 0 or an array of them."""
        return _logistic(self.intercept - self.slope * np.asarray(distance))

    def confidence_interval(self, distance: float) -> tuple[float, float] | None:
        """Return the 95 % confidence limits of `probability`, or None where `covariance` is not known."""
        if self.covariance is None:
            return None
        of_intercept, of_both, of_slope = self.covariance
        variance = of_intercept - 2 * of_both * distance + of_slope * distance**2
        log_odds, margin = self.intercept - self.slope * distance, CONFIDENCE * math.sqrt(max(variance, 0))
        return float(_logistic(log_odds - margin)), float(_logistic(log_odds + margin))

    def operating_point(self, fmr: float) -> OperatingPoint:
        """Return the operating point of a false-match rate.

        Raises:
            ValueError: where it is none of those that were measured; the sentence lists them.
        """
        for point in self.operating_points:
            if math.isclose(point.fmr, fmr):
                return point
        known = ", ".join(f"{point.fmr:g}" for point in self.operating_points)
        there = f"there is one for: {known}" if known else "for this network there is none: leave it out"
        raise ValueError(f"no threshold was measured for a false-match rate of {fmr:g}; {there}")

    def distance_at(self, probability: float) -> float:
        """Return the distance at which P(same) is `probability`, in (0, 1); below 0 where it is never that high."""
        return (self.intercept - math.log(probability / (1 - probability))) / self.slope


def fit(distance: np.ndarray, same: np.ndarray, people: np.ndarray | None = None) -> Calibration:
    """Fit a calibration, with genuine and impostor pairs counting half each however many there are.

    Where genuine pairs are not the closer ones, distances say nothing, and so does the calibration: about even odds for
    any of them.

    Args:
        distance: (P,) float ≥ 0, of pairs of people whom the network has not been trained on.
        same: (P,) bool, true for genuine pairs; both kinds must be there.
        people: (P, 2) int, who is in each pair; where given, `covariance` is estimated by a bootstrap over people,
            since the pairs of one person rise and fall together.

    Raises:
        ValueError: where one kind is missing.
    """
    distance, same = np.asarray(distance, dtype=float), np.asarray(same, dtype=bool)
    slope, intercept = _fit(distance, same, np.ones(len(same)))
    covariance = None
    if people is not None:
        rng = np.random.default_rng(0)
        draws = []
        for _ in range(RESAMPLES):
            times = rng.poisson(1.0, people.max() + 1)
            weight = np.where(same, times[people[:, 0]], times[people[:, 0]] * times[people[:, 1]])
            if weight[same].any() and weight[~same].any():
                draws.append(_fit(distance, same, weight))
        of_slope, of_both, _, of_intercept = np.cov(np.transpose(draws)).ravel()
        covariance = float(of_intercept), float(of_both), float(of_slope)
    return Calibration(slope, intercept, covariance)


def measure_operating_points(genuine: np.ndarray, impostor: np.ndarray) -> tuple[OperatingPoint, ...]:
    """Find the thresholds at the false-match rates `RATES`, but for those that leave fewer than 10 of the impostors, as
    chance decides there.

    Args:
        genuine: (G,) float ≥ 0, distances of genuine pairs.
        impostor: (I,) float ≥ 0, distances of impostor pairs.
    """
    rates = [rate for rate in RATES if rate * len(impostor) >= 10]
    counts = [int(rate * len(impostor)) for rate in rates]
    closest = np.sort(np.partition(impostor, max(counts, default=0))[: max(counts, default=0)])
    thresholds = [float(closest[count - 1]) for count in counts]
    return tuple(
        OperatingPoint(rate, threshold, float((np.asarray(genuine) > threshold).mean()))
        for rate, threshold in zip(rates, thresholds, strict=True)
    )


def _fit(distance: np.ndarray, same: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic curve."""
    from sklearn.linear_model import LogisticRegression  # needed to fit, not to use

    if not (weight[same].any() and weight[~same].any()):
        raise ValueError(f"need genuine and impostor pairs, got {same.sum()} and {(~same).sum()}")
    balance = np.where(same, weight[~same].sum(), weight[same].sum()) / weight.sum() * 2
    unit = np.average(distance, weights=weight * balance) or 1.0
    # A faint ridge keeps the slope finite where the two kinds do not overlap.
    model = LogisticRegression(C=100).fit(distance[:, None] / unit, same, sample_weight=weight * balance)
    slope, intercept = float(-model.coef_[0, 0]) / unit, float(model.intercept_[0])
    return (slope, intercept) if slope > 0 and intercept > 0 else (1e-3 / unit, 1e-3)


def _logistic(log_odds):
    return 0.5 * (1 + np.tanh(log_odds / 2))
