"""Find images that are probably in the folder of the wrong person."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from siamese.data.dataset import IdentityDataset

# Of the genuine distances. A pair up to the first is close, one above the second is distant.
CLOSE_QUANTILE, DISTANT_QUANTILE = 0.75, 0.9
MIN_CLOSE_PAIRS = 0.5  # share of the pairs of two folders of one person
MIN_CLOSE_IMAGES = 0.25  # share of the images in a folder that a misplaced image belongs to
# Shares of the impostor pairs: that are close, and that are close but not due to label errors. If there are more, the
# network cannot judge the labels.
MAX_CLOSE_IMPOSTORS, MAX_UNEXPLAINED = 0.1, 0.001
IMAGES_PER_BLOCK = 1024


def find_label_errors(z: Tensor, dataset: IdentityDataset) -> list[str]:
    """Find folders that show the same person, and images in the folder of another person. Returns a sentence for each.

    A pair is close if its distance is at most that of three quarters of the genuine pairs, and distant if it is above
    that of nine tenths. Two folders are named if half of the pairs of their images are close. An image is named if it
    is close to a quarter of the images in another folder, and distant from all others in its own. A network with many
    other close impostor pairs is too poor to judge, and finds nothing.

    Args:
        z: (N, D) float embeddings on the CPU, from a network that was not trained on these labels.
        dataset: N images of known files, sorted by person, each with at least two images.
    """
    names, identity, counts = dataset.names, dataset.identity, np.bincount(dataset.identity)
    genuine, nearest = _genuine(z, counts)
    close, distant = np.quantile(genuine, (CLOSE_QUANTILE, DISTANT_QUANTILE))
    impostors = (len(z) ** 2 - np.square(counts).sum()) // 2
    blocks, found = [], 0
    for block in _close_impostors(z, torch.from_numpy(identity), close):
        blocks.append(block)
        found += block.shape[1]
        if found > MAX_CLOSE_IMPOSTORS * impostors:
            return []
    rows = np.concatenate(blocks, axis=1)  # (2, K)

    # --- folders of the same person
    couples, couple, matches = np.unique(
        identity[rows[0]] * len(names) + identity[rows[1]], return_inverse=True, return_counts=True
    )
    first, second = np.divmod(couples, len(names))
    pairs = counts[first] * counts[second]
    alike = matches >= MIN_CLOSE_PAIRS * pairs
    rows = rows[:, ~alike[couple]]

    # --- images in the wrong folder
    image, other = np.concatenate([rows, rows[::-1]], axis=1)  # each pair in both directions
    keys, close_images = np.unique(image * len(names) + identity[other], return_counts=True)
    images, likely = np.divmod(keys, len(names))
    misplaced = (close_images >= MIN_CLOSE_IMAGES * counts[likely]) & (nearest[images] > distant)
    if (~np.isin(rows, images[misplaced]).any(0)).sum() > MAX_UNEXPLAINED * impostors:
        return []
    return [
        f"{names[first[k]]} and {names[second[k]]} look the same ({matches[k]} of {pairs[k]} pairs of images are "
        "close); if they are, put their images into one folder"
        for k in np.flatnonzero(alike)
    ] + [
        f"{dataset.path(images[k])} looks unlike the other images in its folder, and like {names[likely[k]]}"
        for k in np.flatnonzero(misplaced)
    ]


def _genuine(z: Tensor, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the genuine distances, and for each image the least distance to another image of the same person, (N,)."""
    genuine, nearest = [], []
    for part in z.split(counts.tolist()):  # the images of one person
        genuine.append(torch.pdist(part))
        nearest.append(torch.cdist(part, part).fill_diagonal_(torch.inf).min(1).values)
    return torch.cat(genuine).numpy(), torch.cat(nearest).numpy()


def _close_impostors(z: Tensor, identity: Tensor, limit: float) -> Iterator[np.ndarray]:
    """Yield the impostor pairs with a distance up to `limit`, as (2, K) rows of `z`; the lower identity comes first."""
    for start in range(0, len(z), IMAGES_PER_BLOCK):
        block = slice(start, start + IMAGES_PER_BLOCK)
        is_close = torch.cdist(z[block], z) <= limit  # (B, N)
        is_close &= identity[block, None] < identity
        first, second = is_close.nonzero(as_tuple=True)
        yield np.stack([first.numpy() + start, second.numpy()])
