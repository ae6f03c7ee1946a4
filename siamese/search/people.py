"""Group faces by person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from siamese.calibration import Calibration
from siamese.search.collection import Collection, FoundFace
from siamese.search.embedder import Embedder
from siamese.search.linkage import BLOCK, cluster, squared_distances
from siamese.search.strictness import GROUP_FMR, probability_among, search_threshold
from siamese.wording import VERDICT_PROBABILITY


@dataclass(frozen=True)
class People:
    """Faces by person.

    Attributes:
        people: the faces of each person; the person with the most faces first.
        left_over: faces that are too poor to tell who it is.
        threshold: root mean square distance up to which two groups of faces were merged.
        fmr: expected number of false matches of a face among all faces.
    """

    people: tuple[tuple[FoundFace, ...], ...]
    left_over: tuple[FoundFace, ...]
    threshold: float
    fmr: float

    @property
    def faces(self) -> int:
        """The number of all faces."""
        return sum(map(len, self.people)) + len(self.left_over)

    def __str__(self) -> str:
        count = len(self.people)
        several = sum(len(faces) > 1 for faces in self.people)
        rest = f", {len(self.left_over):,} too poor to group" if self.left_over else ""
        return f"{count:,} {'person' if count == 1 else 'people'}, {several:,} of them with several faces{rest}"

    def to_dict(self) -> dict:
        """Return all of it, for JSON."""
        return asdict(self)


def group_people(model: Embedder, photos: Collection, fmr: float = GROUP_FMR) -> People:
    """Group the faces of many photos by person, see `partition`.

    Args:
        model: the network that embedded the photos.
        photos: N faces.
        fmr: expected number of false matches of a face among all N faces, see `search_threshold`.

    Raises:
        ValueError: see `search_threshold`.
    """
    threshold = search_threshold(model.calibration, len(photos), fmr)
    people, left_over = partition(photos.vectors(), photos.qualities(), model.calibration, threshold)
    faces = photos.faces()
    return People(
        tuple(tuple(faces[row] for row in rows) for rows in people),
        tuple(faces[row] for row in left_over),
        threshold,
        fmr,
    )


def partition(
    z: np.ndarray, quality: np.ndarray, calibration: Calibration, threshold: float
) -> tuple[list[list[int]], list[int]]:
    """Group embeddings by person.

    Good faces are clustered, see `cluster`. Faces of a lower quality than `calibration.min_quality` look alike whoever
    they show, and would join the clusters of different people. So each of them is added at the end to the closest
    cluster, if that is likely to be the same person, and is left over otherwise.

    Args:
        z: (N, D) float32 embeddings.
        quality: (N,) qualities in [0, 1]; NaN if the network has no quality scores.
        calibration: of the network.
        threshold: see `cluster`.

    Returns:
        The rows of each person, the person with the most faces first; and the rows that are left over.
    """
    quality = np.where(np.isnan(quality), 1, quality)
    good, poor = (
        np.flatnonzero(side) for side in (quality >= calibration.min_quality, quality < calibration.min_quality)
    )
    people = [good[rows].tolist() for rows in cluster(z[good], threshold)]
    left_over = poor.tolist()
    if people and left_over:
        closest, likely = _closest_people(z, quality, calibration, people, poor)
        for row, person in zip(poor[likely].tolist(), closest[likely].tolist(), strict=True):
            people[person].append(row)
        left_over = poor[~likely].tolist()
    return sorted(map(sorted, people), key=lambda rows: (-len(rows), rows[0])), left_over


def _closest_people(
    z: np.ndarray, quality: np.ndarray, calibration: Calibration, people: Sequence[Sequence[int]], poor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of the P poor rows the closest person, (P,) int, and whether it is likely that one, (P,) bool."""
    means = np.stack([z[rows].mean(axis=0) for rows in people])  # (G, D)
    spread = np.array([np.square(z[rows] - mean).sum(1).mean() for rows, mean in zip(people, means, strict=True)])
    typical = np.array([np.median(quality[rows]) for rows in people])
    closest, distance = np.empty(len(poor), int), np.empty(len(poor))
    for start in range(0, len(poor), BLOCK):
        block = slice(start, start + BLOCK)
        squares = squared_distances(z[poor[block]], means) + spread  # the mean squared distance from all faces
        closest[block] = squares.argmin(axis=1)
        distance[block] = np.sqrt(squares.min(axis=1))
    qualities = np.stack([quality[poor], typical[closest]], axis=1)
    return closest, probability_among(calibration, distance, qualities, len(people)) >= VERDICT_PROBABILITY
