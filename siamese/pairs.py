"""Pairs of images: drawn to train on, or all of them with their distances to measure."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from siamese import calibrate, metrics
from siamese.data import Gallery
from siamese.network import SiameseNetwork, distance

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_pairs(identity: np.ndarray, count: int, rng: np.random.Generator) -> Pairs:
    """Draw random pairs as the tutorial does: any image first, then by a coin a genuine or an impostor partner.

    Images are ordered by person, so that one random offset picks the partner: nothing is searched or drawn twice.

    Args:
        identity: (N,) int, the person each image shows; at least 2 people with at least 2 images each.
        count: P, how many pairs.
        rng: the source of chance.

    Returns:
        first, second: (P,) int rows, never equal within a pair; same: (P,) bool, about half true.
    """
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
    """Return every pair of different images once: first, second (P,) int rows and same (P,) bool; P = N (N − 1) / 2."""
    first, second = np.triu_indices(len(identity), k=1)
    return first, second, identity[first] == identity[second]


class Scored(NamedTuple):
    """Pairs with their distances.

    Attributes:
        distance: (P,) float32.
        same: (P,) bool.
        people: (P, 2) int, who is in each pair.
    """

    distance: np.ndarray
    same: np.ndarray
    people: np.ndarray

    def calibrate(self) -> calibrate.Calibration:
        points = calibrate.operating_points(self.distance[self.same], self.distance[~self.same])
        return replace(calibrate.fit(self.distance, self.same, self.people), points=points)

    def curves(self, probability: np.ndarray) -> dict:
        return metrics.curves(self.distance, self.same, probability)

    def report(self, probability: np.ndarray) -> dict:
        return metrics.report(self.distance, self.same, probability)


@torch.inference_mode()
def score_all_pairs(network: SiameseNetwork, gallery: Gallery) -> Scored:
    """Embed each image once and measure every pair.

    Args:
        network: on any device; left in evaluation mode.
        gallery: N images.

    Returns:
        P = N (N − 1) / 2 pairs, in the order of `all_pairs`; people are rows of `gallery.names`.

    Raises:
        ValueError: where a distance is not finite.
    """
    network.eval()
    z = torch.cat([network.embed(pixels.to(network.device)).float().cpu() for pixels in gallery.pixels.split(256)])
    first, second, same = all_pairs(gallery.identity)
    distances = distance(z[first], z[second]).numpy()
    if not np.isfinite(distances).all():
        raise ValueError("the network's distances are not finite; train it anew, with a lower learning rate")
    return Scored(distances, same, gallery.identity[np.stack([first, second], axis=1)])
