"""Draw the distances of a network's test pairs as SVG, and look up rates in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from siamese.page.reliability import MIN_PAIRS, Estimate
from siamese.record import Curves
from siamese.wording import Vocabulary

WILSON = "https://doi.org/10.1080/01621459.1927.10502953"
Ticks = Sequence[tuple[float, str]]
QUARTERS: Ticks = [(tick, f"{tick:.0%}") for tick in (0, 0.25, 0.5, 0.75, 1)]


class PairDistances:
    """Cumulative histograms of the distances of a network's test pairs.

    Attributes:
        edges: (K + 1,) float, edges of the K bins; the first is 0.
        genuine, impostor: (K,) int, number of pairs in each bin.
        tmr, fmr: (K + 1,) float, true-match and false-match rate if the threshold is at each edge.
    """

    def __init__(self, curves: Curves):
        self.edges = np.arange(len(curves.genuine) + 1) * curves.width
        self.genuine, self.impostor = np.array(curves.genuine), np.array(curves.impostor)
        self.tmr = np.append(0, self.genuine.cumsum()) / self.genuine.sum()
        self.fmr = np.append(0, self.impostor.cumsum()) / self.impostor.sum()

    def tmr_at(self, distance: float) -> float:
        """Return the share of genuine pairs up to a distance, interpolated within a bin."""
        return float(np.interp(distance, self.edges, self.tmr))

    def fmr_at(self, distance: float) -> float:
        """Return the share of impostor pairs up to a distance, interpolated within a bin."""
        return float(np.interp(distance, self.edges, self.fmr))

    @property
    def end(self) -> float:
        """A distance that is larger than 99.9 % of the genuine and of the impostor distances."""
        return max(float(np.interp(0.999, rates, self.edges)) for rates in (self.tmr, self.fmr))


def scale(pairs: PairDistances, distance: float, threshold: float, words: Vocabulary) -> str:
    """Draw a distance among the distances of test pairs.

    Args:
        pairs: test pairs of the network.
        distance: the distance to mark.
        threshold: the largest distance with the verdict "same"; below 0 if there is none.
        words: what the network compares.
    """
    end = max(pairs.end, 1.05 * threshold)
    here, limit = (f"{min(max(value / end, 0), 1):.1%}" for value in (distance, threshold))
    curves = f'<path class="impostor" d="{_outline(pairs.impostor, pairs.edges, end)}"/>'
    curves += f'<path class="genuine" d="{_outline(pairs.genuine, pairs.edges, end)}"/>'
    beyond = ", beyond the scale" if distance > end else ""
    line, label, said = "", "", ""
    if threshold >= 0:
        line = f'<i class="limit" style="left: {limit}"></i>'
        label = f'<p class="at" style="--at: {limit}"><span>“same” up to {threshold:.2f}</span></p>'
        said = f' It is "same" up to {threshold:.2f}.'
    return f"""
<p class="number at" style="--at: {here}"><span>Dissimilarity: <b>{distance:.2f}</b>{beyond}</span></p>
<div class="scale" role="img" aria-label='Dissimilarity {distance:.2f} on a scale from 0 to {end:.2f}.{said}
  Behind it, the distribution for test pairs of {words.same} and of {words.different}.'>
  <svg viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">{curves}</svg>
  {line}<i class="here" style="left: {here}"></i>
</div>
<div aria-hidden="true">{label}
  <p class="ends"><span>0 (alike)</span><span>{end:.2f} (unlike)</span></p>
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
        f"Of {genuine:,} test pairs of {words.same}, {share(1 - pairs.tmr_at(distance), genuine)} less alike than "
        f"this pair. Of {impostor:,} test pairs of {words.different}, {share(pairs.fmr_at(distance), impostor)} more "
        "alike."
    )


def share(value: float, count: int) -> str:
    """Return a share of `count` pairs as words, with the verb: "12% are", "1 in 3,000 is", "none is"."""
    if value * count < 0.5:
        return "none is"
    if 0.01 <= value <= 0.995:
        return f"{value:.0%} are"
    if value > 0.5:
        return "all are" if value == 1 else "nearly all are"
    return f"{rate(value)} is"


def rate(value: float) -> str:
    """Return a small rate as "1 in 3,100", with two significant digits."""
    if not value:
        return "none"
    step = 10 ** max(0, math.floor(math.log10(1 / value)) - 1)
    return f"1 in {round(1 / value / step) * step:,}"


def charts(pairs: PairDistances, reliability: Sequence[Estimate], words: Vocabulary) -> str:
    """Draw the ROC curve, with a logarithmic axis of false-match rates, and the reliability diagram.

    Args:
        pairs: test pairs of the network.
        reliability: predicted and observed probabilities.
        words: what the network compares.
    """
    decades = max(1, min(5, math.floor(math.log10(pairs.impostor.sum()))))
    percentages = [(1 - power / decades, f"{100 / 10**power:g}%") for power in range(decades + 1)]
    drawn = pairs.fmr >= 10.0**-decades
    curve = list(zip(1 + np.log10(pairs.fmr[drawn]) / decades, pairs.tmr[drawn], strict=True))
    rates = ", ".join(
        f"{np.interp(10.0**-power, pairs.fmr, pairs.tmr):.0%} at {100 / 10**power:g}%"
        for power in range(1, decades + 1)
    )
    roc = _chart("false-match rate", "true-match rate", f"ROC curve: {rates}", percentages, QUARTERS, _line(curve))
    values = ", ".join(f"{dot.observed:.0%} at {dot.predicted:.0%}" for dot in reliability)
    diagonal = _line([(0, 0), (1, 1)], "ideal")
    calibration = _chart(
        "predicted probability",
        f"observed share of {words.same}",
        f"Reliability diagram: {values}",
        QUARTERS,
        QUARTERS,
        diagonal + "".join(map(_with_error_bar, reliability)),
    )
    return f"""
<div class="charts">
  <figure>{roc}
    <figcaption>ROC curve: the share of matches that are found at each false-match rate.</figcaption></figure>
  <figure>{calibration}
    <figcaption>Reliability diagram: predicted and observed probability of test pairs. The bars are 95% confidence
      intervals (<a href="{WILSON}">Wilson</a>); each has at least {MIN_PAIRS} pairs.</figcaption></figure>
</div>"""


def _to_pixels(x: float, y: float) -> tuple[float, float]:
    return 40 + 200 * x, 165 - 150 * y


def _line(points: Sequence[tuple[float, float]], name: str = "line") -> str:
    """Draw a line of (x, y) in [0, 1]."""
    path = " L".join(f"{x:.1f} {y:.1f}" for x, y in (_to_pixels(*point) for point in points))
    return f'<path class="{name}" d="M{path}"/>'


def _with_error_bar(dot: Estimate) -> str:
    x, y = _to_pixels(dot.predicted, dot.observed)
    (_, low), (_, high) = (_to_pixels(0, edge) for edge in (dot.low, dot.high))
    bar = f"M{x:.1f} {low:.1f} V{high:.1f} M{x - 4:.1f} {low:.1f} h8 M{x - 4:.1f} {high:.1f} h8"
    return f"""<g><title>{dot.pairs:,} pairs: predicted {dot.predicted:.1%}, observed {dot.observed:.1%}
  ({dot.low:.1%} to {dot.high:.1%})</title><path class="line" d="{bar}"/>
  <circle cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>"""


def _chart(x_label: str, y_label: str, name: str, x_ticks: Ticks, y_ticks: Ticks, content: str) -> str:
    """Draw axes with ticks of (place in [0, 1], text) around lines and dots."""
    marks = ""
    for x, tick in x_ticks:
        marks += f'<text x="{_to_pixels(x, 0)[0]:.0f}" y="178" text-anchor="middle">{tick}</text>'
    for y, tick in y_ticks:
        marks += f'<text x="30" y="{_to_pixels(0, y)[1] + 3:.0f}" text-anchor="end">{tick}</text>'
    return f"""<svg viewBox="0 0 250 200" role="img" aria-label="{name}"><path class="axis" d="M40 15 V165 H240"/>
  {content}{marks}<text x="140" y="194" text-anchor="middle">{x_label}</text>
  <text x="40" y="9">{y_label}</text></svg>"""
