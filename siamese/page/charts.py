"""How the distances of a network's test pairs are spread, looked up and drawn as SVG."""

import math

import numpy as np


class Spread:
    """How the distances of a network's test pairs are spread: `metrics.curves`, to be looked up and drawn.

    Attributes:
        edges: (K + 1,) float, of K equally wide bins; the first is 0.
        counts: of "genuine" and "impostor" pairs, (K,) int, how many lie in each bin.
        below: of both, (K + 1,) float, the share of pairs up to each edge.
        reliability: rows (share, stated, true), see `metrics.reliability`.
    """

    def __init__(self, curves: dict):
        self.edges = np.arange(len(curves["genuine"]) + 1) * curves["width"]
        self.counts = {kind: np.array(curves[kind]) for kind in ("genuine", "impostor")}
        self.below = {kind: np.append(0, counts.cumsum()) / counts.sum() for kind, counts in self.counts.items()}
        self.reliability = curves["reliability"]

    def closer(self, kind: str, distance: float) -> float:
        """Return the share of "genuine" or "impostor" pairs that are at most `distance` apart, to a bin's width."""
        return float(np.interp(distance, self.edges, self.below[kind]))

    @property
    def end(self) -> float:
        """A distance beyond which hardly a pair lies."""
        return max(float(np.interp(0.999, below, self.edges)) for below in self.below.values())


def kinds(faces: bool) -> tuple[str, str]:
    """Return what genuine and impostor pairs are pairs of."""
    return ("one person", "different people") if faces else ("one kind", "different kinds")


def scale(spread: Spread, distance: float, threshold: float, name: str, faces: bool) -> str:
    """Draw where a distance lies among those of genuine and of impostor pairs, and on which side of the threshold.

    Args:
        spread: of the network's test pairs.
        distance: of this pair.
        threshold: a distance.
        name: of the threshold.
        faces: whether the pictures show faces, else things of any kind.
    """
    end = max(spread.end, 1.05 * threshold)
    here, limit = (f"{min(value / end, 1):.1%}" for value in (distance, threshold))
    curves = "".join(f'<path class="{kind}" d="{_density(spread, kind, end)}"/>' for kind in ("impostor", "genuine"))
    one, several = kinds(faces)
    return f"""
<p class="number">Dissimilarity: <b>{distance:.2f}</b>{", beyond the scale" if distance > end else ""}</p>
<div class="scale" role="img" aria-label="Dissimilarity {distance:.2f} on a scale from 0, alike, to {end:.2f}, unlike,
  with {name} at {threshold:.2f}; behind it the distances of test pairs of {one} and of {several}.">
  <svg viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">{curves}</svg>
  <i class="limit" style="left: {limit}"></i><i class="here" style="left: {here}"></i>
</div>
<div class="ends" aria-hidden="true"><span>0, alike</span><span>{end:.2f}, unlike</span></div>
<div class="ends" aria-hidden="true"><span class="at" style="left: {limit}">{name} {threshold:.2f}</span></div>
<p class="key"><span class="genuine">pairs of {one}</span><span class="impostor">pairs of {several}</span></p>"""


def _density(spread: Spread, kind: str, end: float) -> str:
    """Return the outline of a histogram that is as high as the picture, smoothed over three bins."""
    counts = np.convolve(spread.counts[kind], [0.25, 0.5, 0.25], "same")
    middles = (spread.edges[:-1] + spread.edges[1:]) / 2
    inside = middles <= end
    x, y = 100 * middles[inside] / end, 30 - 28 * counts[inside] / counts.max()
    return f"M0 30 {' '.join(f'L{a:.1f} {b:.1f}' for a, b in zip(x, y, strict=True))} L{x[-1]:.1f} 30 Z"


def usual(spread: Spread, distance: float, faces: bool) -> str:
    """Say how usual a distance is among genuine and among impostor pairs."""
    one, several = kinds(faces)
    further, closer = 1 - spread.closer("genuine", distance), spread.closer("impostor", distance)
    counts = {kind: int(count.sum()) for kind, count in spread.counts.items()}
    return (
        f"Of {counts['genuine']:,} test pairs of {one}, {share(further, counts['genuine'])} further apart than these "
        f"two; of {counts['impostor']:,} of {several}, {share(closer, counts['impostor'])} closer."
    )


def share(value: float, count: int) -> str:
    """Return a share of so many pairs as words, with the verb: "12% are", "1 in 3,000 is", "none is"."""
    if value * count < 0.5:
        return "none is"
    if 0.01 <= value <= 0.995:
        return f"{value:.0%} are"
    if value > 0.5:
        return "all are" if value == 1 else "nearly all are"
    return f"{rate(value)} is"


def rate(value: float) -> str:
    """Return a small share as "1 in 3,000", to two digits."""
    return f"1 in {_two_digits(1 / value):,}" if value else "none"


def _two_digits(value: float) -> int:
    step = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return round(value / step) * step


def charts(spread: Spread, faces: bool) -> str:
    """Draw the ROC curve, with false-match rates on a logarithmic axis, and whether probabilities come true."""
    decades = max(1, min(5, math.floor(math.log10(spread.counts["impostor"].sum()))))
    fmr, tmr = spread.below["impostor"], spread.below["genuine"]
    drawn = fmr >= 10.0**-decades
    across = [(1 - power / decades, f"{100 / 10**power:g}%") for power in range(decades + 1)]
    up = [(tick, f"{tick:.0%}") for tick in (0, 0.25, 0.5, 0.75, 1)]
    curve = [(x, y, 0) for x, y in zip(1 + np.log10(fmr[drawn]) / decades, tmr[drawn], strict=True)]
    dots = [(stated, true, 2 + 10 * share) for share, stated, true in spread.reliability]
    one, _ = kinds(faces)
    costs = ", ".join(
        f"{np.interp(10.0**-power, fmr, tmr):.0%} at {100 / 10**power:g}%" for power in range(1, decades + 1)
    )
    return f"""
<div class="charts">
  <figure>{_chart(curve, across, up, "false-match rate", f"pairs of {one} matched", f"ROC curve: {costs}")}
    <figcaption>What each false-match rate costs (ROC).</figcaption></figure>
  <figure>{_chart([(0, 0, 0), (1, 1, 0)], up, up, "probability stated", f"pairs of {one}", "Reliability diagram", dots)}
    <figcaption>Whether probabilities come true; large dots stand for many pairs.</figcaption></figure>
</div>"""


def _chart(line, across, up, below: str, beside: str, name: str, dots=()) -> str:
    """Draw (x, y, radius) in [0, 1] × [0, 1] as a line and as dots, with (place, text) ticks along both axes."""
    line, dots = ([(40 + 200 * x, 165 - 150 * y, radius) for x, y, radius in points] for points in (line, dots))
    path = " L".join(f"{x:.1f} {y:.1f}" for x, y, _ in line)
    marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>' for x, y, radius in dots)
    marks += "".join(f'<text x="{40 + 200 * x:.0f}" y="178" text-anchor="middle">{text}</text>' for x, text in across)
    marks += "".join(f'<text x="36" y="{168 - 150 * y:.0f}" text-anchor="end">{text}</text>' for y, text in up)
    return f"""<svg viewBox="0 0 250 200" role="img" aria-label="{name}"><path class="axis" d="M40 15 V165 H240"/>
  <path class="line" d="M{path}"/>{marks}<text x="140" y="194" text-anchor="middle">{below}</text>
  <text x="40" y="9">{beside}</text></svg>"""
