"""Draw the embeddings of a network with two-dimensional output as SVG."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from siamese.images import data_uri
from siamese.record import Plane

SIDE = 480  # longest side of the extent of all points, in SVG units
PADDING = 14  # around dots and thumbnails
TILE = 64  # side of a thumbnail
TILE_DISTANCE = 50  # of its centre from its point
LABEL_DISTANCE = np.array([34, 18])  # of the number from the line, horizontal and vertical
TRAINING_RADIUS, TEST_RADIUS = 3, 6
TURN = 0.618  # of the colour wheel from one person to the next


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
    known = np.array([(x, y) for _, x, y in (*plane.training, *plane.test)])
    unit = SIDE / np.ptp(np.concatenate([known, embeddings]), axis=0).max()
    dots, ends = (points * (unit, -unit) for points in (known, embeddings))  # in pixels
    tiles = _tile_centres(ends)
    corners = np.concatenate([dots, ends, tiles - TILE / 2, tiles + TILE / 2])
    left, top = corners.min(axis=0) - PADDING
    width, height = np.ptp(corners, axis=0) + 2 * PADDING
    people = [person for person, _, _ in (*plane.training, *plane.test)]
    count = len(plane.training)
    distance = f"{np.linalg.norm(embeddings[0] - embeddings[1]):.2f}"
    return f"""
<svg class="plane" viewBox="{left:.0f} {top:.0f} {width:.0f} {height:.0f}" role="img" aria-label="Map of the
  embeddings of {len(set(people[:count]))} people of the training set, {len(set(people[count:]))} other people, and the
  two faces, with a dissimilarity of {distance}">
  <g class="training">{_dots(people[:count], dots[:count], TRAINING_RADIUS)}</g>
  <g class="test">{_dots(people[count:], dots[count:], TEST_RADIUS)}</g>
  {_joined(ends, tiles, faces, distance)}
</svg>"""


def _dots(people: Sequence[int], places: np.ndarray, radius: int) -> str:
    return "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour(person)}"/>'
        for person, (x, y) in zip(people, places, strict=True)
    )


def _tile_centres(ends: np.ndarray) -> np.ndarray:
    """Return where the thumbnails are, (2, 2): beyond the ends of the line."""
    return ends + TILE_DISTANCE * np.stack([-_direction(ends), _direction(ends)])


def _direction(ends: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(ends[1] - ends[0])
    return (ends[1] - ends[0]) / length if length else np.array([1.0, 0.0])


def _joined(ends: np.ndarray, tiles: np.ndarray, faces: Sequence[Image.Image], label: str) -> str:
    """Draw a line between two points, (2, 2) in pixels, with a label beside its middle, and the faces."""
    (ax, ay), (bx, by) = ends
    marks = f'<path class="join" d="M{ax:.1f} {ay:.1f} L{bx:.1f} {by:.1f}"/>'
    for end, tile, face in zip(ends, tiles, faces, strict=True):
        x, y = tile - TILE / 2
        marks += f"""
  <circle class="end" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="7"/>
  <image href="{data_uri(face)}" x="{x:.1f}" y="{y:.1f}" width="{TILE}" height="{TILE}"/>
  <rect class="tile" x="{x:.1f}" y="{y:.1f}" width="{TILE}" height="{TILE}"/>"""
    along = _direction(ends)
    x, y = ends.mean(axis=0) + LABEL_DISTANCE * np.array([along[1], -along[0]]) * (1 if along[0] >= 0 else -1)
    return f'{marks}\n  <text x="{x:.1f}" y="{y + 6:.1f}" text-anchor="middle">{label}</text>'
