"""How strict a search among many faces has to be."""

from __future__ import annotations

import math

import numpy as np

from siamese.calibration import Calibration
from siamese.wording import VERDICT_PROBABILITY

# Expected false matches, unless the caller chooses. With the second, LFW's View 1 is grouped best: distances of groups
# of faces vary less than those of single faces.
FIND_FMR, GROUP_FMR = 0.01, 0.1


def search_threshold(calibration: Calibration, count: int, fmr: float) -> float:
    """Return the largest distance of a match in a search among many faces.

    If each of `count` comparisons has the false-match rate fmr / count, the search as a whole has `fmr` false matches
    on average. The result is never above the distance at which two photos count as the same person. Networks without
    measured false-match rates use odds of 3 to 1, see `probability_among`.

    Args:
        calibration: of the network.
        count: number of faces that one face is compared with, at least 1.
        fmr: expected number of false matches at most, above 0.

    Raises:
        ValueError: if `fmr` is not above 0.
    """
    if not fmr > 0:
        raise ValueError(f"a false-match rate is above 0, got {fmr:g}")
    if len(calibration.operating_points) < 2:
        odds = VERDICT_PROBABILITY / (1 - VERDICT_PROBABILITY) * max(count, 1)
        return max(0.0, calibration.distance_at(odds / (1 + odds)))
    rate = min(fmr / max(count, 1), calibration.operating_points[0].fmr)
    return min(calibration.distance_at_fmr(rate), calibration.distance_at(VERDICT_PROBABILITY))


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
    log_odds = calibration.log_odds(distance, quality)
    if len(calibration.operating_points) >= 3:
        measured = _log_likelihood_ratio(calibration, distance)
        good = True if quality is None else quality.min(axis=-1) >= calibration.min_quality
        log_odds = np.where(good, measured, log_odds)
    return 0.5 * (1 + np.tanh((log_odds - math.log(max(count, 1))) / 2))


def _log_likelihood_ratio(calibration: Calibration, distance: np.ndarray) -> np.ndarray:
    """Return the logarithm of the likelihood ratio of good faces, from the measured operating points.

    The logistic function of a calibration is fitted to pairs at even odds. It is too cautious for the small distances
    that count among many faces. Between two operating points, the likelihood ratio is the share of genuine pairs by the
    share of impostor pairs. It is interpolated on a logarithmic scale, and extrapolated on both sides.
    """
    points = calibration.operating_points[::-1]  # the smallest distance first
    edges, fmr, fnmr = (np.array([getattr(point, name) for point in points]) for name in ("distance", "fmr", "fnmr"))
    # At least one in a million, because no genuine pair of a small test may be in between.
    ratio = np.log(np.maximum(-np.diff(fnmr), 1e-6) / np.diff(fmr))
    middle = (edges[1:] + edges[:-1]) / 2
    slope = np.diff(ratio) / np.diff(middle)
    nearest = np.clip(distance, middle[0], middle[-1])
    outside = np.where(distance < middle[0], slope[0], slope[-1]) * (distance - nearest)
    return np.interp(nearest, middle, ratio) + outside
