"""Draw the embeddings of a network with two-dimensional output as SVG."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from siamese.page.html import data_uri
from siamese.record import Plane

SIDE = 480  # longest side of the extent of all points, in SVG units
MARGIN = 84  # around them, for the thumbnails
TILE = 64  # side of a thumbnail
TILE_DISTANCE = 50  # of its centre from its point
LABEL_DISTANCE = 18  # of the number from the line
TRAINING_RADIUS, TEST_RADIUS = 3, 6
TURN = 0.618  # of the colour wheel from one person to the next
Points = Sequence[tuple[int, float, float]]


def colour(person: int) -> str:
    """Return the colour of a person as #rrggbb. People with close numbers get very different colours."""
    rgb = colorsys.hls_to_rgb(person * TURN % 1, 0.5, 0.65)
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)


def draw(plane: Plane, faces: Sequence[Image.Image], embeddings: np.ndarray) -> str:
    """Draw people as dots and two faces at the ends of a line, which is labelled with their distance.

    Args:
        plane: the people.
        faces: the two faces.
        embeddings: (2, 2) their embeddings.

    Returns:
        SVG. A unit of the embedding has the same length in both directions.
    """
    known = [(x, y) for _, x, y in (*plane.training, *plane.test)]
    low, high = (edge(np.concatenate([known, embeddings]), axis=0) for edge in (np.min, np.max))
    unit = SIDE / (high - low).max()
    width, height = 2 * MARGIN + (high - low) * unit

    def to_pixels(points: np.ndarray) -> np.ndarray:
        return MARGIN + np.stack([points[:, 0] - low[0], high[1] - points[:, 1]], axis=1) * unit

    marks = ""
    for points, radius, name in (
        (plane.training, TRAINING_RADIUS, "training"),
        (plane.test, TEST_RADIUS, "test"),
    ):
        places = to_pixels(np.array([(x, y) for _, x, y in points]))
        marks += f'<g class="{name}">{_dots([person for person, _, _ in points], places, radius)}</g>'
    distance = f"{np.linalg.norm(embeddings[0] - embeddings[1]):.2f}"
    return f"""
<svg class="plane" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="Map of the embeddings of
  {_count(plane.training)} people of the training set, {_count(plane.test)} other people, and the two faces, with a
  dissimilarity of {distance}">{marks}
  {_joined(to_pixels(embeddings), faces, distance)}
</svg>"""


def _count(points: Points) -> int:
    return len({person for person, _, _ in points})


def _dots(people: Sequence[int], places: np.ndarray, radius: int) -> str:
    return "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour(person)}"/>'
        for person, (x, y) in zip(people, places, strict=True)
    )


def _joined(ends: np.ndarray, faces: Sequence[Image.Image], label: str) -> str:
    """Draw a line between two points, (2, 2) in pixels, with a label at its middle and the faces beyond its ends."""
    (ax, ay), (bx, by) = ends
    length = np.linalg.norm(ends[1] - ends[0])
    along = (ends[1] - ends[0]) / length if length else np.array([1.0, 0.0])
    across = np.array([along[1], -along[0]])
    if across[1] > 0:
        across = -across  # above the line
    marks = f'<path class="join" d="M{ax:.1f} {ay:.1f} L{bx:.1f} {by:.1f}"/>'
    for end, face, sign in zip(ends, faces, (-1, 1), strict=True):
        x, y = end + sign * TILE_DISTANCE * along - TILE / 2
        marks += f"""
  <circle class="end" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="7"/>
  <image href="{data_uri(face)}" x="{x:.1f}" y="{y:.1f}" width="{TILE}" height="{TILE}"/>
  <rect class="tile" x="{x:.1f}" y="{y:.1f}" width="{TILE}" height="{TILE}"/>"""
    x, y = ends.mean(axis=0) + LABEL_DISTANCE * across
    return f'{marks}\n  <text x="{x:.1f}" y="{y + 6:.1f}" text-anchor="middle">{label}</text>'
