"""Group faces by person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from siamese.calibration import Calibration
from siamese.checkpoint import default_model
from siamese.model import Model
from siamese.network import PROJECTED_QUALITY
from siamese.search.embedding import FoundFace
from siamese.search.update import Photos, open_photos
from siamese.wording import FACES, Vocabulary, counted

# Expected false matches of a face, by default. More than for a search, because the mean distances of groups of faces
# vary less. LFW's View 1 is grouped best with 0.2 to 0.3.
GROUP_FMR = 0.3
BLOCK_FACES = 2048  # embeddings that are compared with as many others at once
# Two faces of one photo are one person only if they are this close, as a share of the distance at which P(same) is 0.5:
# a mirror, or a photo in the photo. All others are different people.
COPY_SHARE = 0.5
GRAPH_SLACK = 1e-5  # of squared distances in the graph, in squared norms, because it is computed in single precision
TIE_DISTANCE = 1e-12  # distances that differ by less are equal


@dataclass(frozen=True)
class People:
    """Faces by person.

    Attributes:
        people: the faces of each person; the person with the most faces first.
        left_over: faces that are too poor to tell who it is.
        threshold: root mean square distance up to which two groups of faces were merged.
        fmr: expected number of false matches of a face among all faces, at most; None if no rate was measured for the
            network.
        warnings: sentences about photos that could not be read; often empty.
        words: what the network compares.
    """

    people: tuple[tuple[FoundFace, ...], ...]
    left_over: tuple[FoundFace, ...]
    threshold: float
    fmr: float | None
    warnings: tuple[str, ...] = ()
    words: Vocabulary = FACES

    @property
    def faces(self) -> int:
        """The number of all faces."""
        return sum(map(len, self.people)) + len(self.left_over)

    def __str__(self) -> str:
        words, several = self.words, sum(len(faces) > 1 for faces in self.people)
        groups = counted(len(self.people), words.group, words.groups)
        rest = f", {len(self.left_over):,} too poor to group" if self.left_over else ""
        return f"{counted(self.faces, words.item)}: {groups}, {several:,} of them with several {words.item}s{rest}"

    def to_dict(self) -> dict:
        """Return all but the crops, for JSON."""
        return {
            "people": [[face.to_dict() for face in faces] for faces in self.people],
            "left_over": [face.to_dict() for face in self.left_over],
            "threshold": self.threshold,
            "fmr": self.fmr,
            "warnings": list(self.warnings),
        }


def group(photos: Photos, *, model: Model | None = None, fmr: float | None = None) -> People:
    """Group the faces of many photos by person, see `partition`.

    Args:
        photos: see `find`.
        model: the network; None for the default face network.
        fmr: for each of the N faces, the expected number of false matches among all N, at most, see
            `Calibration.needed`. By default `GROUP_FMR`, or odds of 3 N to 1 if no rate was measured for the network.

    Raises:
        FileNotFoundError, ValueError, OSError: if the photos or the index cannot be used, or the false-match rate is
            invalid.
    """
    model = model or default_model()
    with open_photos(model, photos) as collection:
        empty = np.empty((0, model.network.embedding_dim), np.float32)
        z = np.concatenate([empty, *(block for _, block in collection.blocks())])
        if fmr is None and model.calibration.operating_points:
            fmr = GROUP_FMR
        needed = model.calibration.needed(fmr, max(len(z), 1))
        faces = collection.faces()
        quality = np.array([face.quality for face in faces], dtype=float)  # NaN without quality scores
        photos = np.unique([face.photo for face in faces], return_inverse=True)[1]
        people, left_over = partition(z, quality, photos, model.calibration, needed)
        return People(
            tuple(tuple(faces[row] for row in rows) for rows in people),
            tuple(faces[row] for row in left_over),
            model.calibration.distance_at(needed),
            fmr,
            tuple(collection.problems),
            model.words,
        )


def partition(
    z: np.ndarray, quality: np.ndarray, photos: np.ndarray, calibration: Calibration, needed: float
) -> tuple[list[list[int]], list[int]]:
    """Group embeddings by person.

    Good faces are clustered, see `cluster`, up to the distance at which two of quality 1 have the score `needed`. Faces
    of a quality below `PROJECTED_QUALITY` look alike whoever they show, and would join clusters of different people. So
    each of them is added at the end to the closest cluster, if its score at their root mean square distance is high
    enough and no face in it is a rival, see `find_rivals`. Otherwise it is left over.

    Args:
        z: (N, D) float32 embeddings.
        quality: (N,) qualities in [0, 1]; NaN if the network has no quality scores.
        photos: (N,) int, the number of the photo of each face.
        calibration: of the network.
        needed: from which score on a pair is the same person, see `Calibration.needed`.

    Returns:
        The rows of each person, the person with the most faces first; and the rows that are left over.
    """
    quality = np.where(np.isnan(quality), 1, quality)
    good, poor = np.flatnonzero(quality >= PROJECTED_QUALITY), np.flatnonzero(quality < PROJECTED_QUALITY)
    copy_distance = COPY_SHARE * calibration.threshold
    clusters = cluster(z[good], max(calibration.distance_at(needed), 0), photos[good], copy_distance)
    people = [good[rows].tolist() for rows in clusters]
    left_over = poor.tolist()
    if people and left_over:
        closest, score = _closest_people(z, quality, calibration, people, poor)
        left_over = []
        for number in np.argsort(-score, kind="stable").tolist():
            row, person = int(poor[number]), people[closest[number]]
            same_photo = np.array(person)[photos[person] == photos[row]]
            if score[number] >= needed and (squared_distances(z[[row]], z[same_photo]) <= copy_distance**2).all():
                person.append(row)
            else:
                left_over.append(row)
    return sorted(map(sorted, people), key=lambda rows: (-len(rows), rows[0])), sorted(left_over)


def find_rivals(z: np.ndarray, photos: np.ndarray, copy_distance: float) -> list[list[int]]:
    """Return for each of N faces the others of the same photo that are other people: further than `copy_distance` away.

    Closer ones can be one person twice: in a mirror, or in a photo of a photo.
    """
    rivals: list[list[int]] = [[] for _ in z]
    order = np.argsort(photos, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(photos[order])) + 1):
        if len(rows) > 1:
            apart = squared_distances(z[rows], z[rows]) > copy_distance**2
            np.fill_diagonal(apart, False)
            for row, others in zip(rows.tolist(), apart, strict=True):
                rivals[row] = rows[others].tolist()
    return rivals


def _closest_people(
    z: np.ndarray, quality: np.ndarray, calibration: Calibration, people: Sequence[Sequence[int]], poor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of the P poor rows the closest person, (P,) int, and the score of their distance, (P,)."""
    means = np.stack([z[rows].mean(axis=0) for rows in people])  # (G, D)
    spread = np.array([np.square(z[rows] - mean).sum(1).mean() for rows, mean in zip(people, means, strict=True)])
    typical = np.array([np.median(quality[rows]) for rows in people])
    closest, distance = np.empty(len(poor), int), np.empty(len(poor))
    for start in range(0, len(poor), BLOCK_FACES):
        block = slice(start, start + BLOCK_FACES)
        squares = squared_distances(z[poor[block]], means) + spread  # the mean squared distance from all faces
        closest[block] = squares.argmin(axis=1)
        distance[block] = np.sqrt(squares.min(axis=1))
    return closest, calibration.score(distance, np.stack([quality[poor], typical[closest]], axis=1))


def cluster(
    z: np.ndarray, threshold: float, photos: np.ndarray | None = None, copy_distance: float = 0.0
) -> list[np.ndarray]:
    """Merge the two closest clusters, again and again, until none are at most `threshold` apart.

    Two clusters with rows of one photo are not merged, unless these are at most `copy_distance` apart.

    The distance of two clusters is the root mean square of the distances between their members (average linkage on
    squared distances; Sokal and Michener, "A Statistical Method for Evaluating Systematic Relationships", 1958). The
    result is exact, without a matrix of all distances: the mean squared distance between the members of two clusters
    A and B is q_A + q_B - 2 m_A · m_B, where m is the mean of a cluster and q the mean of the squared norms of its
    members. Two clusters at most t apart have members at most t apart. So no cluster crosses the connected components
    of the graph of such pairs, and each component is clustered on its own.

    Args:
        z: (N, D) float embeddings.
        photos: (N,) int, the number of the photo of each row; None if each has its own.

    Returns:
        The clusters as sorted arrays of row numbers; the largest first, then by their first row.
    """
    clusters: list[np.ndarray] = []
    for rows in _components(z, threshold):
        if len(rows) == 1:
            clusters.append(rows)
            continue
        rivals = find_rivals(z[rows], np.arange(len(rows)) if photos is None else photos[rows], copy_distance)
        clusters += [rows[part] for part in _link(z[rows], threshold, rivals)]
    return sorted(clusters, key=lambda rows: (-len(rows), rows[0]))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (N, M) squared Euclidean distances of (N, D) and (M, D) float32 embeddings, at least 0."""
    distances = a @ b.T
    distances *= -2
    distances += np.einsum("nd,nd->n", a, a)[:, None]
    distances += np.einsum("md,md->m", b, b)
    return distances.clip(0, out=distances)


def _components(z: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Yield the rows of each connected component of the graph of pairs that are at most `threshold` apart."""
    z = z.astype(np.float32, copy=False)
    root = np.arange(len(z))  # each row points to a row of its component that is not larger
    limit = threshold**2 + GRAPH_SLACK * np.einsum("nd,nd->n", z, z).max(initial=0)
    starts = range(0, len(z), BLOCK_FACES)
    for above, left in ((above, left) for above in starts for left in starts if above <= left):
        near = squared_distances(z[above : above + BLOCK_FACES], z[left : left + BLOCK_FACES]) <= limit
        first, second = np.nonzero(near)
        _join(root, above + first, left + second)
    order = np.argsort(root, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(root[order])) + 1) if len(z) else ()


def _join(root: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Join the components of the ends of each edge. Afterwards each row points to the smallest row of its component."""
    while True:
        a, b = root[first], root[second]
        if np.array_equal(a, b):
            return
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(root, jumped := root[root]):
            root[:] = jumped


def _link(z: np.ndarray, threshold: float, rivals: list[list[int]]) -> list[np.ndarray]:
    """Cluster the rows of one component with nearest-neighbour chains.

    A chain goes from a cluster to its nearest one, and on from there, until two clusters are nearest to each other;
    these are merged. For average linkage the order of such merges does not matter (Murtagh, "A Survey of Recent
    Advances in Hierarchical Clustering Algorithms", 1983). A cluster that is further than `threshold` from its nearest
    one is complete, because merges of others bring none closer. So are the other clusters of its chain. All this holds
    too if the distance of clusters with rivals is infinite.
    """
    sums, squares, sizes = z.astype(np.float64), np.einsum("nd,nd->n", z, z, dtype=np.float64), np.ones(len(z))
    members = [[row] for row in range(len(z))]
    cluster_of = np.arange(len(z))  # of each row; -1 if that is complete
    active, complete = np.ones(len(z), bool), []
    chain: list[int] = []
    while active.any():
        if not chain:
            if active.mean() < 0.5:  # forget the others
                sums, squares, sizes = sums[active], squares[active], sizes[active]
                cluster_of = np.append(np.where(active, np.cumsum(active) - 1, -1), -1)[cluster_of]
                members, rivals = ([of[row] for row in np.flatnonzero(active)] for of in (members, rivals))
                active = np.ones(len(members), bool)
            chain.append(int(active.argmax()))
        top = chain[-1]
        norms = squares / sizes
        distance = norms + norms[top] - 2 * (sums @ (sums[top] / sizes[top])) / sizes
        distance[~active] = np.inf
        distance[top] = np.inf
        taken = cluster_of[rivals[top]]
        distance[taken[taken >= 0]] = np.inf
        nearest = int(distance.argmin())
        if not distance[nearest] <= threshold**2:
            complete += [np.array(sorted(members[row])) for row in chain]
            active[chain] = False
            chain.clear()
        elif len(chain) > 1 and distance[chain[-2]] <= distance[nearest] + TIE_DISTANCE:
            kept = chain[-2]
            for values in (sums, squares, sizes):
                values[kept] += values[top]
            cluster_of[members[top]] = kept
            members[kept] += members[top]
            rivals[kept] += rivals[top]
            active[top] = False
            del chain[-2:]
        else:
            chain.append(nearest)
    return complete
