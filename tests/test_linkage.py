"""Average linkage on squared distances, compared with SciPy and with a slow, obvious loop."""

from itertools import product

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from siamese.search.people import cluster, find_rivals


def points(seed: int, unit: bool = True, count: int = 200) -> np.ndarray:
    """Draw clusters of different sizes, some rows twice."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(30, 8))[rng.zipf(1.5, count) % 30] + 0.4 * rng.normal(size=(count, 8))
    z[count // 2 :: 7] = z[count // 2]
    return (z / np.linalg.norm(z, axis=1, keepdims=True) if unit else z).astype(np.float32)


def with_scipy(z: np.ndarray, threshold: float) -> list[list[int]]:
    labels = fcluster(linkage(pdist(z.astype(float), "sqeuclidean"), "average"), threshold**2, "distance")
    return sorted(np.flatnonzero(labels == label).tolist() for label in np.unique(labels))


def with_a_loop(z: np.ndarray, threshold: float, rivals: frozenset[tuple[int, int]] = frozenset()) -> list[list[int]]:
    """Compute the mean squared distance of every two clusters without rivals, and merge the closest two."""
    z, clusters = z.astype(float), [[row] for row in range(len(z))]
    while len(clusters) > 1:
        mean = {
            (a, b): np.mean([np.sum((z[i] - z[j]) ** 2) for i in clusters[a] for j in clusters[b]])
            for b in range(len(clusters))
            for a in range(b)
            if rivals.isdisjoint(product(clusters[a], clusters[b]))
        }
        a, b = min(mean, key=lambda pair: mean[pair], default=(0, 0))
        if a == b or mean[a, b] > threshold**2:
            break
        clusters[a] += clusters.pop(b)
    return sorted(map(sorted, clusters))


@pytest.mark.parametrize("block", [16, 2048])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_clusters_equal_those_of_scipy(seed, unit, block, monkeypatch):
    monkeypatch.setattr("siamese.search.people.BLOCK_FACES", block)
    z = points(seed, unit)
    for threshold in np.quantile(pdist(z), [0.01, 0.05, 0.2, 0.5, 1]):
        clusters = cluster(z, threshold)
        assert sorted(rows.tolist() for rows in clusters) == with_scipy(z, threshold)
        assert [len(rows) for rows in clusters] == sorted(map(len, clusters), reverse=True)


def test_clusters_equal_those_of_an_obvious_loop():
    z = points(5, count=25)
    for threshold in (0.3, 0.6, 0.9, 1.2):
        assert sorted(rows.tolist() for rows in cluster(z, threshold)) == with_a_loop(z, threshold)


@pytest.mark.parametrize("seed", range(3))
def test_clusters_hold_no_rivals_and_equal_those_of_an_obvious_loop(seed):
    z, photos = points(seed, count=40), np.random.default_rng(seed).integers(0, 12, 40)
    rivals = find_rivals(z, photos, 0.2)
    pairs = frozenset((row, rival) for row, others in enumerate(rivals) for rival in others)
    distances = np.linalg.norm(z[:, None] - z, axis=2)
    assert pairs == {(a, b) for a, b in zip(*np.nonzero((distances > 0.2) & (photos[:, None] == photos)), strict=True)}
    for threshold in (0.3, 0.6, 0.9, 1.2, 2.0):
        clusters = [rows.tolist() for rows in cluster(z, threshold, photos, 0.2)]
        assert sorted(clusters) == with_a_loop(z, threshold, pairs)
        assert all(pairs.isdisjoint(product(rows, rows)) for rows in clusters)
    assert len(clusters) > 1  # rivals are apart at any threshold


def test_clusters_of_no_row_of_one_and_of_equal_ones():
    assert cluster(np.empty((0, 3), np.float32), 1.0) == []
    assert [rows.tolist() for rows in cluster(np.zeros((1, 3), np.float32), 1.0)] == [[0]]
    assert [rows.tolist() for rows in cluster(np.ones((50, 3), np.float32), 0.0)] == [list(range(50))]
