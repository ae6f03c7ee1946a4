"""Pairs of labelled images."""

import numpy as np

MAX_EXHAUSTIVE_IMAGES = 1000  # up to this many images `all_pairs` returns every pair

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # first, second: (P,) int rows; same: (P,) bool


def draw_pairs(identity: np.ndarray, count: int, rng: np.random.Generator) -> Pairs:
    """Draw random pairs as the tutorial does: a random image, then with equal odds a genuine or an impostor partner.

    Returns first and second, (P,) rows of the identities (N,), and same, (P,) bool. At least 2 people, each with at
    least 2 images, are needed.
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
    """Return every pair of different images once; for more than `MAX_EXHAUSTIVE_IMAGES` images a fixed sample.

    The sample is the distinct pairs among MAX_EXHAUSTIVE_IMAGES² / 2 random draws.
    """
    if len(identity) <= MAX_EXHAUSTIVE_IMAGES:
        first, second = np.triu_indices(len(identity), k=1)
    else:
        drawn = draw_pairs(identity, MAX_EXHAUSTIVE_IMAGES**2 // 2, np.random.default_rng(0))[:2]
        first, second = np.unique(np.sort(drawn, axis=0), axis=1)
    return first, second, identity[first] == identity[second]
