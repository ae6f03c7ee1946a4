"""Whether drawn heads are found, and how often two different ones are "same".

    python benchmarks/drawings.py --json benchmarks/results/drawings.json

Draws 40 different heads of 400 × 400 pixels: skin, hair, eyes, brows, nose, mouth, shape, glasses, background and line
width vary at random. Every second drawing has smooth edges. The network was trained on photos; it sees little of what
tells drawings apart. `--view 1` draws other heads, to choose settings with. Takes a minute on two CPU cores.
"""

import itertools
import random

import common
import numpy as np
from PIL import Image, ImageDraw

import siamese
from siamese.calibration import logistic

HEADS = 40
SIDE = 400
SMOOTH = 4  # times the side before a drawing with smooth edges is reduced
STRICT_FMR = 1e-3
CONFIDENT = 0.97  # P(same)

SKINS = ("#ffdcb4", "#f1c27d", "#e0ac69", "#c68642", "#96603c", "#8d5524", "#5c3a21", "#ffe0d0")
HAIRS = ("#141414", "#4a2c12", "#8b5a2b", "#d8b04c", "#b03a1e", "#9a9a9a", "#f0f0e8")
IRISES = ("#000000", "#3c7828", "#3a6ea5", "#5b3a1a", "#707070")
LIPS = ("#ff0000", "#962832", "#c0605a", "#7a3030", "#000000")
BACKGROUNDS = ("#ffffff", "#c8e6ff", "#f5e6c8", "#d0f0d0", "#808890", "#ffd0e0")
HAIRCUTS = ("none", "cap", "long", "curls", "spikes")
MOUTHS = ("smile", "frown", "line", "lips", "open")
NOSES = ("angle", "triangle", "arc", "dots")


class Pen:
    """Draws in units of the drawing's side, at `scale` pixels."""

    def __init__(self, image: Image.Image, width: float):
        self.draw, self.scale, self.width = ImageDraw.Draw(image), image.width, max(1, round(width * image.width))

    def at(self, *values: float) -> list[float]:
        return [self.scale * value for value in values]

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: str | None, outline: bool = True) -> None:
        box = self.at(x - rx, y - ry, x + rx, y + ry)
        self.draw.ellipse(box, fill, "black" if outline else None, self.width if outline else 0)

    def half(self, x: float, y: float, rx: float, ry: float, fill: str) -> None:
        """Fill the upper half of an ellipse."""
        self.draw.pieslice(self.at(x - rx, y - ry, x + rx, y + ry), 180, 360, fill)

    def arc(self, x: float, y: float, rx: float, ry: float, angles: tuple[int, int], color: str, wide: float) -> None:
        self.draw.arc(self.at(x - rx, y - ry, x + rx, y + ry), *angles, color, max(1, round(wide * self.width)))

    def line(self, points: list[float], color: str = "black", wide: float = 1) -> None:
        self.draw.line(self.at(*points), color, max(1, round(wide * self.width)))

    def polygon(self, points: list[float], fill: str) -> None:
        self.draw.polygon(self.at(*points), fill, "black")


def draw_head(rng: random.Random, smooth: bool) -> Image.Image:
    """Draw a head with random features."""
    side = SIDE * (SMOOTH if smooth else 1)
    image = Image.new("RGB", (side, side), rng.choice(BACKGROUNDS))
    pen = Pen(image, rng.uniform(0.003, 0.012))
    x, y = rng.uniform(0.46, 0.54), rng.uniform(0.48, 0.56)
    rx, ry = rng.uniform(0.24, 0.34), rng.uniform(0.33, 0.42)
    hair, haircut = rng.choice(HAIRS), rng.choice(HAIRCUTS)
    if haircut == "long":
        pen.ellipse(x, y, 1.25 * rx, 1.15 * ry, hair)
    for ear in (-1, 1) if rng.random() < 0.5 else ():
        pen.ellipse(x + ear * rx, y, 0.15 * rx, 0.2 * ry, "#d9a066")
    pen.ellipse(x, y, rx, ry, rng.choice(SKINS))
    draw_hair(pen, (x, y, rx, ry), hair, haircut, rng)
    draw_eyes(pen, (x, y, rx, ry), rng)
    draw_nose(pen, x, y + rng.uniform(0, 0.1) * ry, rx, ry, rng)
    draw_mouth(pen, x, y + rng.uniform(0.5, 0.62) * ry, rng.uniform(0.25, 0.5) * rx, 0.18 * ry, rng)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS) if smooth else image


def draw_hair(pen: Pen, head: tuple[float, float, float, float], color: str, cut: str, rng: random.Random) -> None:
    x, y, rx, ry = head
    if cut in ("cap", "long"):
        pen.half(x, y - 0.4 * ry, 1.02 * rx, 0.66 * ry, color)
    elif cut == "curls":
        for turn in np.linspace(1.05, 1.95, 9) * np.pi:
            pen.ellipse(x + 0.95 * rx * np.cos(turn), y + 0.95 * ry * np.sin(turn), 0.2 * rx, 0.2 * rx, color)
    elif cut == "spikes":
        for left in np.linspace(-0.75, 0.55, 6):
            tip = y - rng.uniform(1.1, 1.3) * ry
            base = y - 0.65 * ry
            pen.polygon([x + left * rx, base, x + (left + 0.12) * rx, tip, x + (left + 0.28) * rx, base], color)


def draw_eyes(pen: Pen, head: tuple[float, float, float, float], rng: random.Random) -> None:
    x, y, rx, ry = head
    apart, level = rng.uniform(0.35, 0.48) * rx, y - rng.uniform(0.15, 0.28) * ry
    wide, high = rng.uniform(0.14, 0.22) * rx, rng.uniform(0.05, 0.11) * ry
    iris, look, color = rng.uniform(0.5, 0.95) * high, rng.uniform(-0.3, 0.3) * wide, rng.choice(IRISES)
    slope, straight, thick = rng.uniform(-0.05, 0.05) * ry, rng.random() < 0.5, rng.uniform(1, 3)
    glasses = rng.random() < 0.2
    for eye in (-1, 1):
        middle = x + eye * apart
        pen.ellipse(middle, level, wide, high, "white")
        pen.ellipse(middle + look, level, iris, iris, color, outline=False)
        brow = level - high - 0.08 * ry
        if straight:
            pen.line([middle - wide, brow + eye * slope, middle + wide, brow - eye * slope], wide=thick)
        else:
            pen.arc(middle, brow + 0.05 * ry, 1.1 * wide, 0.07 * ry, (200, 340), "black", thick)
        if glasses:
            pen.ellipse(middle, level, 1.5 * wide, 1.5 * wide, None)
    if glasses:
        pen.line([x - apart + 1.5 * wide, level, x + apart - 1.5 * wide, level])


def draw_nose(pen: Pen, x: float, y: float, rx: float, ry: float, rng: random.Random) -> None:
    kind, wide, high = rng.choice(NOSES), rng.uniform(0.08, 0.16) * rx, rng.uniform(0.15, 0.25) * ry
    if kind == "angle":
        pen.line([x, y - high / 2, x - wide, y + high, x + wide, y + high])
    elif kind == "triangle":
        pen.polygon([x, y - high / 2, x - wide, y + high, x + wide, y + high], rng.choice(SKINS))
    elif kind == "arc":
        pen.arc(x, y + high / 2, wide, high / 2, (0, 180), "black", 1)
    else:
        for nostril in (-1, 1):
            pen.ellipse(x + nostril * wide / 2, y + high, 0.25 * wide, 0.2 * wide, "black")


def draw_mouth(pen: Pen, x: float, y: float, rx: float, ry: float, rng: random.Random) -> None:
    kind, color = rng.choice(MOUTHS), rng.choice(LIPS)
    if kind == "smile":
        pen.arc(x, y - ry / 2, rx, ry, (20, 160), color, 2)
    elif kind == "frown":
        pen.arc(x, y + ry, rx, ry, (200, 340), color, 2)
    elif kind == "line":
        pen.line([x - rx, y, x + rx, y], color, 2)
    else:
        pen.ellipse(x, y, rx, 0.5 * ry, color)
        if kind == "open":
            pen.ellipse(x, y, 0.8 * rx, 0.25 * ry, "white", outline=False)
        else:
            pen.line([x - rx, y, x + rx, y])


def draw_heads(view: int, count: int = HEADS) -> list[Image.Image]:
    """Draw different heads for a view."""
    rng = random.Random(view)
    return [draw_head(rng, smooth=number % 2 == 1) for number in range(count)]


def main() -> None:
    parser = common.parser(__doc__, view=2)
    parser.add_argument("--count", type=int, default=HEADS, help="heads (default: %(default)s)")
    args = parser.parse_args()
    model = siamese.load()
    z, quality = model.embed_with_quality(draw_heads(args.view, args.count))
    found = ~np.isnan(z).any(axis=1)
    pairs = np.array(list(itertools.combinations(np.flatnonzero(found), 2)), dtype=int).reshape(-1, 2)
    distance = np.linalg.norm(z[pairs[:, 0]] - z[pairs[:, 1]], axis=1)
    score = model.calibration.score(distance, np.nan_to_num(quality[pairs], nan=1.0))
    result = {"view": args.view, "heads": args.count, "found": int(found.sum()), "pairs": len(pairs)}
    for name, is_so in (
        ("same", score >= model.calibration.needed()),
        ("same_at_fmr_1e_3", score >= model.calibration.needed(STRICT_FMR)),
        ("confident_same", logistic(score) >= CONFIDENT),
    ):
        result[name] = float(is_so.mean()) if len(pairs) else None
    common.finish(result, args.json, {})


if __name__ == "__main__":
    main()
