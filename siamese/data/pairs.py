"""Pairs of labelled images."""

import numpy as np

MAX_EXHAUSTIVE_IMAGES = 1000  # up to this many images `all_pairs` returns every pair

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # first, second: (P,) int rows; same: (P,) bool


def draw_pairs(identity: np.ndarray, count: int, rng: np.random.Generator) -> Pairs:
    """Draw random pairs as the tutorial does: a random image, then with equal odds a genuine or an impostor partner.

    Args:
        identity: (N,) int, the person in each image; at least 2 people, each with at least 2 images.
        count: P, the number of pairs.
        rng: the random generator.

    Returns:
        first, second: (P,) int rows of `identity`, different within a pair; same: (P,) bool, about half true.
    """
    # Sorted by person, a random offset picks the partner: within the person's block, or beyond it.
    order = np.argsort(identity, kind="stable")
    _, starts, sizes = np.unique(identity[order], return_index=True, return_counts=True)
    person = np.repeat(np.arange(len(sizes)), sizes)

    place = rng.integers(len(identity), size=count)
    start, size = starts[person[place]], sizes[person[place]]
    same = rng.random(count) < 0.5
    genuine = start + (place - start + rng.integers(1, size)) % size
    impostor = (start + size + rng.integers(len(identity) - size)) % len(identity)
    return order[place], order[np.where(same, genuine, impostor)], same


def all_pairs(identity: np.ndarray) -> Pairs:
    """Return every pair of different images once, or a fixed sample for more than `MAX_EXHAUSTIVE_IMAGES` images.

    Args:
        identity: (N,) int, the person in each image.

    Returns:
        first, second: (P,) int rows of `identity`; same: (P,) bool. P = N (N − 1) / 2; in a sample, P is the number of
        distinct pairs among MAX_EXHAUSTIVE_IMAGES² / 2 random draws, see `draw_pairs`.
    """
    if len(identity) <= MAX_EXHAUSTIVE_IMAGES:
        first, second = np.triu_indices(len(identity), k=1)
    else:
        drawn = draw_pairs(identity, MAX_EXHAUSTIVE_IMAGES**2 // 2, np.random.default_rng(0))[:2]
        first, second = np.unique(np.sort(drawn, axis=0), axis=1)
    return first, second, identity[first] == identity[second]
