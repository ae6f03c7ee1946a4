"""Pairs of images: drawn to train on, or all of them with their distances to measure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamese import calibration as calibrate
from siamese.data.dataset import IdentityDataset
from siamese.evaluation import metrics
from siamese.network import SiameseNetwork, distance

EVERY = 1000  # images, of which every pair is measured; of more, a sample

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
    """Return every pair of different images once; of more than `EVERY` images a sample, always the same one.

    Returns:
        first, second: (P,) int rows; same: (P,) bool; P = N (N − 1) / 2. Of many images, the distinct pairs among
        EVERY² / 2 draws, see `draw_pairs`.
    """
    if len(identity) <= EVERY:
        first, second = np.triu_indices(len(identity), k=1)
    else:
        drawn = draw_pairs(identity, EVERY**2 // 2, np.random.default_rng(0))[:2]
        first, second = np.unique(np.sort(drawn, axis=0), axis=1)
    return first, second, identity[first] == identity[second]


def distances_of(z: Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the distances (P,) of pairs of rows of embeddings (N, D), a block of pairs at a time."""
    blocks = zip(*(torch.from_numpy(side).split(1 << 16) for side in (first, second)), strict=True)
    return torch.cat([distance(z[a], z[b]) for a, b in blocks]).numpy()


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
        points = calibrate.measure_operating_points(self.distance[self.same], self.distance[~self.same])
        return replace(calibrate.fit(self.distance, self.same, self.people), operating_points=points)

    def confused(self, threshold: float, names: Sequence[str]) -> list[list]:
        """Return whom a threshold confuses: for the ten worst pairs of people their two names, the share of their
        impostor pairs at most `threshold` apart, above 0, and how many impostor pairs they have, at least four; the
        worst first.

        Args:
            threshold: a distance that was not chosen on these people.
            names: of the people, by their numbers in `people`.
        """
        a, b = np.sort(self.people[~self.same], axis=1).T
        couples, couple = np.unique(a * len(names) + b, return_inverse=True)
        count, confused = (
            np.bincount(of, minlength=len(couples)) for of in (couple, couple[self.distance[~self.same] <= threshold])
        )
        share = np.where(count >= 4, confused / count, 0)
        worst = [row for row in np.argsort(-share, kind="stable")[:10] if share[row]]
        pairs = [divmod(int(couples[row]), len(names)) for row in worst]
        return [
            [names[a], names[b], float(share[row]), int(count[row])] for (a, b), row in zip(pairs, worst, strict=True)
        ]

    def curves(self, probability: np.ndarray) -> dict:
        return metrics.curves(self.distance, self.same, probability)

    def report(self, probability: np.ndarray) -> dict:
        return metrics.report(self.distance, self.same, probability)


@torch.inference_mode()
def score_all_pairs(network: SiameseNetwork, dataset: IdentityDataset) -> Scored:
    """Embed each image once and measure every pair.

    Args:
        network: on any device; left in evaluation mode.
        dataset: N images.

    Returns:
        The pairs of `all_pairs`, in its order; people are rows of `dataset.names`.

    Raises:
        ValueError: where a distance is not finite.
    """
    network.eval()
    z = torch.cat([network.embed(x.to(network.device)).float().cpu() for x in dataset.batches()])
    first, second, same = all_pairs(dataset.identity)
    distances = distances_of(z, first, second)
    if not np.isfinite(distances).all():
        raise ValueError("the network's distances are not finite; train it anew, with a lower learning rate")
    return Scored(distances, same, dataset.identity[np.stack([first, second], axis=1)])
