"""How strict a search among many faces has to be."""

from __future__ import annotations

import math

import numpy as np

from siamese.calibration import Calibration
from siamese.wording import VERDICT_PROBABILITY

DEFAULT_FMR = 0.01  # expected false matches of a search, unless the caller chooses


def search_threshold(calibration: Calibration, count: int, fmr: float = DEFAULT_FMR) -> float:
    """Return the largest distance of a match in a search among many faces.

    If each of `count` comparisons has the false-match rate fmr / count, the search as a whole has `fmr` false matches
    on average. Networks without measured false-match rates use odds of 3 to 1, see `probability_among`.

    Args:
        calibration: of the network.
        count: number of faces that one face is compared with, at least 1.
        fmr: expected number of false matches, above 0.

    Raises:
        ValueError: if `fmr` is not above 0, or so high that its threshold was not measured.
    """
    if not fmr > 0:
        raise ValueError(f"a false-match rate is above 0, got {fmr:g}")
    if len(calibration.operating_points) < 2:
        odds = VERDICT_PROBABILITY / (1 - VERDICT_PROBABILITY) * count
        return max(0.0, calibration.distance_at(odds / (1 + odds)))
    highest = calibration.operating_points[0].fmr
    return calibration.distance_at_fmr(min(fmr / max(count, 1), highest))


def probability_among(
    calibration: Calibration, distance: np.ndarray, quality: np.ndarray | None, count: int
) -> np.ndarray:
    """Return the probability that a face is a certain person, if one of `count` faces is expected to be.

    So the prior odds are 1 to `count`; for one face they are even, as in a comparison of two photos.

    Args:
        calibration: of the network.
        distance: (...) float ≥ 0.
        quality: (..., 2), the qualities of both faces; None for 1.
        count: number of faces that are searched, at least 1.
    """
    log_odds = calibration.log_odds(distance, quality) - math.log(max(count, 1))
    return 0.5 * (1 + np.tanh(log_odds / 2))
