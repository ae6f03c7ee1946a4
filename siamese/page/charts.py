"""Draw the distances of a network's test pairs as SVG, and look up rates in them."""

import math

import numpy as np

from siamese.record import Curves
from siamese.wording import Vocabulary


class PairDistances:
    """Histograms of the distances of a network's test pairs."""

    def __init__(self, curves: Curves):
        self.edges = np.arange(len(curves.genuine) + 1) * curves.width  # (K + 1,), of K bins
        self.genuine, self.impostor = np.array(curves.genuine), np.array(curves.impostor)  # (K,), number of pairs
        # (K + 1,), the true-match and false-match rate with the threshold at each edge
        self.tmr = np.append(0, self.genuine.cumsum()) / self.genuine.sum()
        self.fmr = np.append(0, self.impostor.cumsum()) / self.impostor.sum()

    def tmr_at(self, distance: float) -> float:
        """Return the share of genuine pairs up to a distance, interpolated within a bin."""
        return float(np.interp(distance, self.edges, self.tmr))

    def fmr_at(self, distance: float) -> float:
        """Return the share of impostor pairs up to a distance, interpolated within a bin."""
        return float(np.interp(distance, self.edges, self.fmr))


def scale(pairs: PairDistances, distance: float, threshold: float | None, words: Vocabulary) -> str:
    """Draw a distance among those of test pairs; it is "same" up to the threshold, or never if that is None."""
    most = (float(np.interp(0.999, rates, pairs.edges)) for rates in (pairs.tmr, pairs.fmr))  # larger than 99.9 %
    end = max(*most, 1.05 * (threshold or 0))
    here, limit = (f"{min(value / end, 1):.1%}" for value in (distance, threshold or 0))
    curves = f'<path class="impostor" d="{_outline(pairs.impostor, pairs.edges, end)}"/>'
    curves += f'<path class="genuine" d="{_outline(pairs.genuine, pairs.edges, end)}"/>'
    beyond = ", beyond the scale" if distance > end else ""
    line, label, said = "", "", ""
    if threshold is not None:
        line = f'<i class="limit" style="left: {limit}"></i>'
        label = f'<p class="at" style="--at: {limit}"><span>same {words.one} up to {threshold:.2f}</span></p>'
        said = f" It is {words.same} up to {threshold:.2f}."
    return f"""
<p class="number at" style="--at: {here}"><span>this pair: <b>{distance:.2f}</b>{beyond}</span></p>
<div class="scale" role="img" aria-label='Dissimilarity {distance:.2f} on a scale from 0 to {end:.2f}.{said}
  Behind it, the distribution for test pairs of {words.same} and of {words.different}.'>
  <svg viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">{curves}</svg>
  {line}<i class="here" style="left: {here}"></i>
</div>
<div aria-hidden="true">{label}
  <p class="ends"><span>0 identical</span><span>{end:.2f} different</span></p>
  <p class="key"><span class="genuine">{words.same}</span><span class="impostor">{words.different}</span></p>
</div>"""


def _outline(counts: np.ndarray, edges: np.ndarray, end: float) -> str:
    """Return the SVG path of a histogram up to `end`, smoothed over three bins and scaled to the full height."""
    smooth = np.convolve(counts, [0.25, 0.5, 0.25], "same")
    centres = (edges[:-1] + edges[1:]) / 2
    inside = centres <= end
    x, y = 100 * centres[inside] / end, 30 - 28 * smooth[inside] / smooth.max()
    return f"M0 30 {' '.join(f'L{a:.1f} {b:.1f}' for a, b in zip(x, y, strict=True))} L{x[-1]:.1f} 30 Z"


def rank(pairs: PairDistances, distance: float, words: Vocabulary) -> str:
    """Return sentences that compare a distance with those of genuine and of impostor pairs."""
    genuine, impostor = int(pairs.genuine.sum()), int(pairs.impostor.sum())
    return (
        f"Of {rounded(genuine)} test pairs of {words.same}, {share(1 - pairs.tmr_at(distance), genuine)} less alike "
        f"than this pair. Of {rounded(impostor)} test pairs of {words.different}, "
        f"{share(pairs.fmr_at(distance), impostor)} more alike."
    )


def rounded(count: int) -> str:
    """Return a number of pairs as "3,000" or "29.6 million"."""
    return f"{count / 1e6:.3g} million" if count >= 1e6 else f"{count:,}"


def share(value: float, count: int) -> str:
    """Return a share of `count` pairs as words, with the verb: "12% are", "1 in 3,000 is", "only 2 are", "none is"."""
    number = round(value * count)
    if not number:
        return "none is"
    if 0.01 <= value <= 0.995:
        return f"{value:.0%} are"
    if value > 0.5:
        return "all are" if value == 1 else "nearly all are"
    return f"{rate(value)} is" if number >= 10 else f"only {number} {'is' if number == 1 else 'are'}"


def rate(value: float) -> str:
    """Return a small rate as "1 in 3,100", with two significant digits."""
    if not value:
        return "none"
    step = 10 ** max(0, math.floor(math.log10(1 / value)) - 1)
    return f"1 in {round(1 / value / step) * step:,}"
