"""Distances of pairs of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamese import calibration
from siamese.calibration import Calibration
from siamese.data.dataset import IdentityDataset
from siamese.data.pairs import all_pairs
from siamese.evaluation import metrics
from siamese.network import SiameseNetwork, distance
from siamese.record import Confusion, Curves, Plane, Report

PAIRS_PER_BLOCK = 1 << 16
MAX_CONFUSIONS = 10
MIN_CONFUSION_PAIRS = 4  # a share of fewer pairs says little
MAX_IMAGES = 500  # of the training people, and of the held-out people
DECIMALS = 3


class Scored(NamedTuple):
    """Pairs with their distances.

    Attributes:
        distance: (P,) float32.
        same: (P,) bool.
        people: (P, 2) int, the two people in each pair.
        quality: (P, 2) float32, the qualities of the two images, in [0, 1]; None if they are not known.
    """

    distance: np.ndarray
    same: np.ndarray
    people: np.ndarray
    quality: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> Scored:
        """Return some of the pairs, by index or by mask."""
        quality = None if self.quality is None else self.quality[rows]
        return Scored(self.distance[rows], self.same[rows], self.people[rows], quality)

    @staticmethod
    def concatenate(parts: Sequence[Scored]) -> Scored:
        """Return the pairs of several parts, all of them with quality or none."""
        *columns, qualities = zip(*parts, strict=True)
        distance, same, people = map(np.concatenate, columns)
        return Scored(distance, same, people, None if qualities[0] is None else np.concatenate(qualities))

    def calibrate(self) -> Calibration:
        """Fit a calibration, with confidence intervals and operating points."""
        points = calibration.measure_operating_points(self.distance[self.same], self.distance[~self.same])
        return replace(calibration.fit(self.distance, self.same, self.people), operating_points=points)

    def confused(self, threshold: float, names: Sequence[str]) -> list[Confusion]:
        """Return the pairs of people that a threshold confuses most, worst first.

        Args:
            threshold: a distance chosen on other people.
            names: the people, indexed by `people`.

        Returns:
            At most `MAX_CONFUSIONS`, each with a share above 0 and at least `MIN_CONFUSION_PAIRS` impostor pairs.
        """
        first, second = np.sort(self.people[~self.same], axis=1).T
        couples, couple = np.unique(first * len(names) + second, return_inverse=True)  # couple: (impostor pairs,)
        pairs = np.bincount(couple, minlength=len(couples))
        matches = np.bincount(couple[self.distance[~self.same] <= threshold], minlength=len(couples))
        share = np.where(pairs >= MIN_CONFUSION_PAIRS, matches / pairs, 0)
        worst = [row for row in np.argsort(-share, kind="stable")[:MAX_CONFUSIONS] if share[row]]
        return [
            Confusion(names[number // len(names)], names[number % len(names)], float(share[row]), int(pairs[row]))
            for row, number in zip(worst, couples[worst].tolist(), strict=True)
        ]

    def curves(self, probability: np.ndarray) -> Curves:
        """Return `metrics.curves`, given P(same) of each pair."""
        return metrics.curves(self.distance, self.same, probability)

    def report(self, probability: np.ndarray) -> Report:
        """Return `metrics.report`, given P(same) of each pair."""
        return metrics.report(self.distance, self.same, probability)


@torch.inference_mode()
def score_all_pairs(network: SiameseNetwork, dataset: IdentityDataset) -> Scored:
    """Embed each image once and compute the distance of each pair.

    Args:
        network: on any device; left in evaluation mode.
        dataset: N images.

    Returns:
        The pairs of `all_pairs`, in its order, with quality if the network has it. `people` indexes `dataset.names`.

    Raises:
        ValueError: if a distance is not finite.
    """
    z, quality = embed(network, dataset)
    first, second, same = all_pairs(dataset.identity)
    distances = distances_of(z, first, second)
    if not np.isfinite(distances).all():
        raise ValueError("the network's distances are not finite; train it again with a lower learning rate")
    rows = np.stack([first, second], axis=1)  # (P, 2)
    return Scored(distances, same, dataset.identity[rows], None if quality is None else quality.numpy()[rows])


@torch.inference_mode()
def embed(network: SiameseNetwork, dataset: IdentityDataset) -> tuple[Tensor, Tensor | None]:
    """Embed each image once.

    Args:
        network: on any device; left in evaluation mode.
        dataset: N images.

    Returns:
        On the CPU: (N, D) float32 embeddings; (N,) qualities, or None if the network has none.
    """
    network.eval()
    features = torch.cat([network.features(x.to(network.device)) for x in dataset.batches()])  # (N, D)
    quality = network.quality(features)
    return network.head(features).float().cpu(), None if quality is None else quality.cpu()


def distances_of(z: Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute distances between rows of embeddings, block by block to limit memory.

    Args:
        z: (N, D) float embeddings.
        first: (P,) int rows of `z`.
        second: (P,) int rows of `z`.

    Returns:
        (P,) distances.
    """
    blocks = zip(*(torch.from_numpy(rows).split(PAIRS_PER_BLOCK) for rows in (first, second)), strict=True)
    return torch.cat([distance(z[rows1], z[rows2]) for rows1, rows2 in blocks]).numpy()


def measure_plane(network: SiameseNetwork, training: IdentityDataset, test: IdentityDataset) -> Plane | None:
    """Embed the training people and the held-out people; None if the embeddings do not have two dimensions.

    Args:
        network: on any device; left in evaluation mode.
        training, test: the people. Of large data sets, `MAX_IMAGES` are embedded, see `IdentityDataset.subsample`.
    """
    if network.embedding_dim != 2:
        return None
    return Plane(_points(network, training), _points(network, test))


@torch.inference_mode()
def _points(network: SiameseNetwork, dataset: IdentityDataset) -> list[tuple[int, float, float]]:
    network.eval()
    drawn = dataset.subsample(MAX_IMAGES)
    z = torch.cat([network.embed(x.to(network.device)) for x in drawn.batches()]).double().cpu().numpy()  # (N, 2)
    people = [dataset.names.index(name) for name in drawn.names]
    rows = zip(drawn.identity, z.round(DECIMALS).tolist(), strict=True)
    return [(people[number], x, y) for number, (x, y) in rows]
