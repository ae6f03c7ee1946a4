"""A distance → the probability that both images show one identity."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Calibration:
    """P(same) at even odds as a logistic function of the distance (Platt, 1999).

    Attributes:
        slope: > 0; by how much the log-odds fall per unit of distance.
        intercept: > 0; the log-odds at distance 0.
    """

    slope: float
    intercept: float

    def __post_init__(self):
        if not (0 < self.slope < math.inf and 0 < self.intercept < math.inf):
            raise ValueError(f"a calibration needs a slope and an intercept above 0, got {self}")

    @property
    def threshold(self) -> float:
        """The distance at which same and different are equally likely."""
        return self.intercept / self.slope

    def probability(self, distance):
        """Return P(same) in [0, 1] at even odds, for a float ≥ 0 or an array of them."""
        return 0.5 * (1 + np.tanh((self.intercept - self.slope * np.asarray(distance)) / 2))

    def distance(self, probability: float) -> float:
        """Return the distance at which P(same) is `probability`, in (0, 1); below 0 where it is never that high."""
        return (self.intercept - math.log(probability / (1 - probability))) / self.slope


def fit(distance: np.ndarray, same: np.ndarray) -> Calibration:
    """Fit a calibration, with genuine and impostor pairs counting half each however many there are.

    Where genuine pairs are not the closer ones, distances say nothing, and so does the calibration: about even odds for
    any of them.

    Args:
        distance: (P,) float ≥ 0, of pairs of people whom the network has not been trained on.
        same: (P,) bool, true for genuine pairs; both kinds must be there.

    Raises:
        ValueError: where one kind is missing.
    """
    from sklearn.linear_model import LogisticRegression  # needed to fit, not to use

    # The default ridge keeps the slope finite where the two kinds do not overlap.
    model = LogisticRegression(class_weight="balanced").fit(np.reshape(distance, (-1, 1)), same)
    slope, intercept = float(-model.coef_[0, 0]), float(model.intercept_[0])
    if slope > 0 and intercept > 0:
        return Calibration(slope, intercept)
    typical = max(float(np.mean(distance)), 1e-6)
    return Calibration(slope=1e-3 / typical, intercept=1e-3)
