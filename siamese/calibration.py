"""The score of a pair: the calibrated log-odds that two images show the same identity. It decides what is "same"."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from numbers import Real
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

VERDICT_PROBABILITY = 0.75  # "same" needs at least this P(same), "different" at most its complement
LOWEST_SCORE = math.log(VERDICT_PROBABILITY / (1 - VERDICT_PROBABILITY))  # of a pair that is "same"
# Two people with the same mask, or in two blurred photos, look alike, and odds of 3 to 1 are wrong for many such pairs.
# So "same" needs higher odds for poor images: `ODDS` to 1 if the lower quality is one of `QUALITIES`, in between in
# proportion. Chosen on LFW's View 1, and on half of the photos of benchmarks/no_people.py.
QUALITIES, ODDS = (0.1, 0.3, 1.0), (100.0, 20.0, 3.0)
FALSE_MATCH_RATES = (1e-2, 1e-3, 1e-4, 1e-5)  # of the operating points
MIN_FALSE_MATCHES = 10  # an operating point with fewer is not measured
MAX_VALUE = 1e12  # of all numbers, so that none becomes infinite
Z_95 = 1.96  # standard errors on each side of a 95 % confidence interval
NORMAL = NormalDist()


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold of the score and its error rates.

    Attributes:
        fmr: false-match rate, the share of impostor pairs with a score of at least `score`.
        score: the threshold.
        fnmr: false-non-match rate, the share of genuine pairs with a lower score.

    Raises:
        ValueError: if a value is out of range.
    """

    fmr: float
    score: float
    fnmr: float

    def __post_init__(self) -> None:
        if not (0 < self.fmr < 1 and abs(self.score) < MAX_VALUE and 0 <= self.fnmr <= 1):
            raise ValueError(f"an operating point has rates from 0 to 1 and a finite score, got {self}")


@dataclass(frozen=True)
class Calibration:
    """P(same) at even prior odds as a logistic function of distance and quality.

    The log-odds of a pair at distance d are a - b d (Platt, 1999). If the network has quality scores, both
    parameters also depend on the lower quality q and the higher quality r of the two images. With p = (1 - q, (1 - q)²,
    1 - r, (1 - r)²), a = intercept + p · poor_intercept and b = slope + p · poor_slope. So the same distance says less
    about poor images. The score, which decides, is lower than the log-odds for poor images, see `score`.

    Attributes:
        slope: > 0, the decrease of the log-odds per unit of distance for two images of quality 1.
        intercept: > 0, the log-odds at distance 0 for two images of quality 1.
        poor_slope: four coefficients of p; empty if the network has no quality scores.
        poor_intercept: four coefficients of p; empty if the network has no quality scores.
        lowest_quality: lower qualities are treated like this one, because the calibration was not fitted on them.
        covariance: of (intercept, poor_intercept, slope, poor_slope), (2, 2) or (10, 10); None if it was not estimated.
        operating_points: thresholds at chosen false-match rates, the highest rate and lowest score first; empty if they
            were not measured.

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

    def __post_init__(self) -> None:
        count = len(self.poor_slope)
        if len(self.poor_intercept) != count or count not in (0, 4):
            raise ValueError("poor_slope and poor_intercept have 0 or 4 numbers each")
        grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 21)] * 2), axis=-1)  # (21, 21, 2), all pairs of qualities
        intercepts, slopes = self._parameters(grid)
        if not (self.intercept > 0 and (slopes > 0).all() and (np.maximum(abs(intercepts), slopes) < MAX_VALUE).all()):
            raise ValueError(
                f"a calibration needs slopes and an intercept above 0 and below {MAX_VALUE:g} at all qualities, got "
                f"{self.slope:g} and {self.intercept:g}"
            )
        if self.covariance is not None:
            matrix = np.array(self.covariance, dtype=float)
            if matrix.shape != (2 + 2 * count,) * 2 or not (abs(matrix) < MAX_VALUE).all():
                raise ValueError(f"a covariance has {2 + 2 * count} rows and columns, below {MAX_VALUE:g}")
        if not 0 <= self.lowest_quality <= 1:
            raise ValueError(f"lowest_quality is in [0, 1], got {self.lowest_quality}")
        steps = np.diff([(-math.log(point.fmr), point.score) for point in self.operating_points], axis=0)
        if not (steps > 1e-9).all():
            raise ValueError("at operating points with lower rates the scores are higher")
        if not self.threshold < MAX_VALUE:
            raise ValueError(f"the threshold of a calibration must be below {MAX_VALUE:g}, got {self.threshold}")

    @property
    def threshold(self) -> float:
        """The distance at which P(same) is 0.5 for images of quality 1."""
        return self.distance_at(0.0)

    def score(self, distance: ArrayLike, quality: ArrayLike | None = None) -> np.ndarray:
        """Return the score that decides what is "same": the log-odds, less what poor images need more, see `ODDS`.

        Args:
            distance: (...) distances, ≥ 0.
            quality: (..., 2), the qualities of the two images, in [0, 1]; None for 1.
        """
        return self.log_odds(distance, quality) - _caution(quality)

    def log_odds(self, distance: ArrayLike, quality: ArrayLike | None = None) -> np.ndarray:
        """Return the log-odds of P(same) at even prior odds, see `score`: the logarithm of the likelihood ratio."""
        intercept, slope = self._parameters(quality)
        return intercept - slope * np.asarray(distance)

    def probability(self, distance: ArrayLike, quality: ArrayLike | None = None) -> np.ndarray:
        """Return P(same) at even prior odds, in [0, 1], see `score`."""
        return logistic(self.log_odds(distance, quality))

    def score_margin(self, distance: float, quality: ArrayLike | None = None) -> float | None:
        """Return how far `log_odds` is from the ends of its 95 % confidence interval; None if that is not known."""
        if self.covariance is None:
            return None
        poor = self._poorness(quality)
        gradient = np.concatenate([[1], poor, [-distance], -distance * poor])
        return Z_95 * math.sqrt(max(float(gradient @ np.array(self.covariance) @ gradient), 0))

    def distance_at(self, score: float, quality: ArrayLike | None = None) -> float:
        """Return the distance of two images of these qualities with a score. It is below 0 if no distance has it."""
        intercept, slope = self._parameters(quality)
        return float((intercept - _caution(quality) - score) / slope)

    def needed(self, fmr: float | None = None, pairs: int = 1) -> float:
        """Return the score from which on a pair is "same", if any of several pairs could have matched.

        By default a single pair needs odds of 3 to 1. The false-match rate of that score is kept for several pairs, by
        giving each pair its share of the rate. A requested rate is shared in the same way. It is an upper limit: less
        than odds of 3 to 1 is never "same". So a lower rate never needs a lower score.

        Between the operating points, the normal deviate of the rate is interpolated linearly in the score, because the
        scores of impostor pairs are close to normally distributed (Martin et al., "The DET Curve in Assessment of
        Detection Task Performance", 1997). Beyond them, or without any, a rate that is e times lower needs a score that
        is 1 higher, because the score is the logarithm of a likelihood ratio.

        Args:
            fmr: > 0, expected number of false matches among all pairs, at most; None for odds of 3 to 1.
            pairs: ≥ 1, how many pairs could have matched.

        Raises:
            ValueError: if the rate is not a number above 0, or no rate was measured for this network.
        """
        if not self.operating_points:
            if fmr is not None:
                raise ValueError("this network was tested on too few pairs to choose a false-match rate; omit it")
            return LOWEST_SCORE + math.log(pairs)
        default = self._rate(LOWEST_SCORE)
        if fmr is None:
            rate = default / pairs
        elif not isinstance(fmr, Real) or not 0 < fmr < math.inf:
            raise ValueError(f"a false-match rate is a number above 0, such as 0.001, got {fmr!r}")
        else:
            rate = min(max(float(fmr) / pairs, sys.float_info.min), default)
        fmrs, scores = self._points()
        measured = min(max(rate, fmrs[-1]), fmrs[0])
        deviates = [NORMAL.inv_cdf(point) for point in fmrs]
        score = np.interp(NORMAL.inv_cdf(measured), deviates[::-1], scores[::-1]) + math.log(measured / rate)
        return max(LOWEST_SCORE, float(score))

    def _rate(self, score: float) -> float:
        """Return the false-match rate of a score, as in `needed`."""
        fmrs, scores = self._points()
        measured = min(max(score, scores[0]), scores[-1])
        deviate = np.interp(measured, scores, [NORMAL.inv_cdf(point) for point in fmrs])
        return NORMAL.cdf(float(deviate)) * math.exp(measured - score)

    def _points(self) -> tuple[list[float], list[float]]:
        """Return the false-match rates and the scores of the operating points."""
        return [point.fmr for point in self.operating_points], [point.score for point in self.operating_points]

    def probability_among(self, score: ArrayLike, count: int) -> np.ndarray:
        """Return the probability that a face is a certain person, if one of `count` faces is expected to be.

        The prior odds are 1 to `count`. The score is fitted to pairs at even odds, and too cautious for the few pairs
        that count among many. So the likelihood ratio comes from the operating points if there are three or more: it is
        the share of genuine pairs between two of them by the share of impostor pairs, interpolated on a logarithmic
        scale, and extrapolated.

        Args:
            score: (...) see `score`.
            count: ≥ 1.
        """
        ratio = np.asarray(score, dtype=float)
        if len(self.operating_points) >= 3:
            scores, fmr, fnmr = np.array([(p.score, p.fmr, p.fnmr) for p in self.operating_points]).T
            # At least one in a million, because no genuine pair of a small test may be in between.
            log_ratio = np.log(np.maximum(np.diff(fnmr), 1e-6) / -np.diff(fmr))
            # Impostor pairs get rarer from the lower to the higher score. If the logarithm of their rate falls linearly
            # and genuine pairs are spread evenly, this is the ratio at a score below the middle.
            steps = -np.diff(np.log(fmr))
            share = np.log(steps / -np.expm1(-steps)) / steps
            ratio = _interpolate(ratio, scores[:-1] + share * np.diff(scores), log_ratio)
        return logistic(ratio - math.log(max(count, 1)))

    def _parameters(self, quality: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
        """Return intercept and slope for pairs of qualities, (..., 2)."""
        poor = self._poorness(quality)
        return self.intercept + poor @ np.array(self.poor_intercept), self.slope + poor @ np.array(self.poor_slope)

    def _poorness(self, quality: ArrayLike | None) -> np.ndarray:
        """Return p for pairs of qualities, (..., 4); (..., 0) if the network has no quality scores."""
        q = np.asarray((1.0, 1.0) if quality is None else quality)
        return poorness(q.clip(self.lowest_quality))[..., : len(self.poor_slope)]


def poorness(quality: np.ndarray) -> np.ndarray:
    """Return p of `Calibration`, (..., 4), for pairs of qualities, (..., 2)."""
    p = 1 - np.sort(quality, axis=-1)
    return np.stack([p[..., 0], p[..., 0] ** 2, p[..., 1], p[..., 1] ** 2], axis=-1)


def _caution(quality: ArrayLike | None) -> np.ndarray:
    """Return by how much the scores of pairs of qualities, (..., 2), are below their log-odds."""
    lower = np.min(np.ones(2) if quality is None else quality, axis=-1)
    return np.interp(lower, QUALITIES, np.log(ODDS)) - LOWEST_SCORE


def logistic(score: ArrayLike) -> np.ndarray:
    """Return the probability at these log-odds."""
    return 0.5 * (1 + np.tanh(np.asarray(score) / 2))


def _interpolate(x: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Interpolate linearly between points with ascending `xs`; beyond them, with the slope of the nearest two."""
    slopes = np.diff(ys) / np.diff(xs)
    slope = np.where(x < xs[0], slopes[0], slopes[-1])
    return np.interp(x, xs, ys) + slope * (x - x.clip(xs[0], xs[-1]))
