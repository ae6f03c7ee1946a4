"""Cluster embeddings with average linkage, exactly, without a matrix of all distances.

The mean squared distance between the members of two clusters A and B is q_A + q_B - 2 m_A · m_B, where m is the mean
of a cluster and q the mean of the squared norms of its members. So a cluster needs only D + 2 numbers.

Two clusters whose mean squared distance is at most t² have members that are at most t apart. So no cluster crosses the
connected components of the graph of such pairs, and each component is clustered on its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 2048  # embeddings that are compared with as many others at once
GRAPH_SLACK = 1e-5  # of squared distances in the graph, in squared norms, because it is computed in single precision
TIE = 1e-12  # distances that differ by less are equal


def cluster(z: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Merge the two closest clusters, again and again, until none are at most `threshold` apart.

    The distance of two clusters is the root mean square of the distances between their members (average linkage on
    squared distances; Sokal and Michener, "A Statistical Method for Evaluating Systematic Relationships", 1958).

    Args:
        z: (N, D) float embeddings.
        threshold: ≥ 0.

    Returns:
        The clusters as sorted arrays of row numbers; the largest first, then by their first row.
    """
    clusters: list[np.ndarray] = []
    for rows in _components(z, threshold):
        clusters += [rows] if len(rows) == 1 else [rows[part] for part in _link(z[rows], threshold)]
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
    starts = range(0, len(z), BLOCK)
    for above, left in ((above, left) for above in starts for left in starts if above <= left):
        near = squared_distances(z[above : above + BLOCK], z[left : left + BLOCK]) <= limit
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


def _link(z: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Cluster the rows of one component with nearest-neighbour chains.

    A chain goes from a cluster to its nearest one, and on from there, until two clusters are nearest to each other;
    these are merged. For average linkage the order of such merges does not matter (Murtagh, "A Survey of Recent
    Advances in Hierarchical Clustering Algorithms", 1983). A cluster that is further than `threshold` from its nearest
    one is complete, because merges of others bring none closer; and then so is the rest of the chain.
    """
    sums, squares, sizes = z.astype(np.float64), np.einsum("nd,nd->n", z, z, dtype=np.float64), np.ones(len(z))
    members = [[row] for row in range(len(z))]
    active, complete = np.ones(len(z), bool), []
    chain: list[int] = []
    while active.any():
        if not chain:
            if active.mean() < 0.5:  # forget the others
                sums, squares, sizes = sums[active], squares[active], sizes[active]
                members = [members[row] for row in np.flatnonzero(active)]
                active = np.ones(len(members), bool)
            chain.append(int(active.argmax()))
        top = chain[-1]
        norms = squares / sizes
        distance = norms + norms[top] - 2 * (sums @ (sums[top] / sizes[top])) / sizes
        distance[~active] = np.inf
        distance[top] = np.inf
        nearest = int(distance.argmin())
        if not distance[nearest] <= threshold**2:
            complete += [np.array(sorted(members[row])) for row in chain]
            active[chain] = False
            chain.clear()
        elif len(chain) > 1 and distance[chain[-2]] <= distance[nearest] + TIE:
            kept = chain[-2]
            for values in (sums, squares, sizes):
                values[kept] += values[top]
            members[kept] += members[top]
            active[top] = False
            del chain[-2:]
        else:
            chain.append(nearest)
    return complete
