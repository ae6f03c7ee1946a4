"""Compare predicted with observed probabilities of test pairs, with error bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from siamese.calibration import Z_95
from siamese.record import Record

MIN_PAIRS = 30  # a bin with fewer is merged with a neighbour


class Bin(NamedTuple):
    """Pairs with similar predicted probabilities.

    Attributes:
        predicted: sum of the predicted probabilities of the pairs, each weighted as in `metrics.reliability`.
        weight: sum of these weights.
        genuine, impostor: number of pairs.
    """

    predicted: float
    weight: float
    genuine: int
    impostor: int

    @property
    def pairs(self) -> int:
        return self.genuine + self.impostor

    def joined(self, other: Bin) -> Bin:
        """Return the pairs of both."""
        return Bin(
            self.predicted + other.predicted,
            self.weight + other.weight,
            self.genuine + other.genuine,
            self.impostor + other.impostor,
        )


class Estimate(NamedTuple):
    """A dot of the reliability diagram; all but `pairs` are in [0, 1].

    Attributes:
        predicted: mean predicted probability.
        observed: share of genuine pairs, as if there were as many genuine as impostor pairs.
        low, high: 95 % confidence interval of `observed`.
        pairs: number of pairs.
    """

    predicted: float
    observed: float
    low: float
    high: float
    pairs: int


def estimates(record: Record) -> list[Estimate]:
    """Return the reliability diagram of a network, the lowest probability first."""
    genuine, impostor = record.test.genuine, record.test.impostor
    bins = [
        Bin(
            share * predicted,
            share,
            round(2 * share * observed * genuine),
            round(2 * share * (1 - observed) * impostor),
        )
        for share, predicted, observed in record.curves.reliability
    ]
    return [_estimate(each, genuine / impostor) for each in merge(bins)]


def merge(bins: Sequence[Bin]) -> list[Bin]:
    """Merge the smallest bin with its smaller neighbour until each has `MIN_PAIRS` pairs, or there is only one."""
    bins = list(bins)
    while len(bins) > 1 and min(each.pairs for each in bins) < MIN_PAIRS:
        place = min(range(len(bins)), key=lambda number: bins[number].pairs)
        neighbours = [number for number in (place - 1, place + 1) if 0 <= number < len(bins)]
        first, second = sorted((place, min(neighbours, key=lambda number: bins[number].pairs)))
        bins[first : second + 1] = [bins[first].joined(bins[second])]
    return bins


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share.

    Equation 1 of Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.

    Args:
        successes: how many of `count` independent draws succeeded.
        count: > 0.
    """
    share, spread = successes / count, Z_95**2 / count
    margin = math.sqrt(spread * (share * (1 - share) + spread / 4))
    centre, whole = share + spread / 2, 1 + spread
    return max((centre - margin) / whole, 0.0), min((centre + margin) / whole, 1.0)


def _estimate(pairs: Bin, ratio: float) -> Estimate:
    """Turn a bin into a dot; `ratio` is the number of genuine pairs per impostor pair in the whole test."""

    def balanced(share: float) -> float:
        return share / (share + (1 - share) * ratio)

    low, high = wilson(pairs.genuine, pairs.pairs)
    observed = balanced(pairs.genuine / pairs.pairs)
    return Estimate(pairs.predicted / pairs.weight, observed, balanced(low), balanced(high), pairs.pairs)
