"""Distances of pairs of images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamese.calibration import Calibration
from siamese.data.dataset import IMAGES_PER_BATCH, IdentityDataset
from siamese.data.pairs import MAX_EXHAUSTIVE_IMAGES, all_pairs
from siamese.evaluation import metrics
from siamese.evaluation.calibrate import cross_fit, fit_calibration, measure_operating_points
from siamese.network import SiameseNetwork, distance
from siamese.record import MIN_JUDGED, Confusion, Curves, Identity, People, Plane, Report

PAIRS_PER_BLOCK = 1 << 9
VALUES_AT_ONCE = 1 << 20  # of pixels that a network gets on a CPU, so that the activations fit into its caches
MAX_CONFUSIONS = 10
MIN_CONFUSION_PAIRS = 4  # a share of fewer pairs says little
MIN_CONFUSION_SHARE = 0.01
MAX_PLANE_IMAGES = 500  # of the training people, and of the held-out people
PLANE_DECIMALS = 3


class Scored(NamedTuple):
    """Pairs: distances (P,), genuine or not (P,), the two people (P, 2), and the qualities (P, 2), if known."""

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
        fitted = fit_calibration(self.distance, self.same, self.people)
        score = fitted.score(self.distance)
        return replace(fitted, operating_points=measure_operating_points(score[self.same], score[~self.same]))

    def cross_fit(self) -> np.ndarray | None:
        """Return P(same) of each pair, (P,), fitted without its people; None if there are fewer than `MIN_JUDGED`."""
        if self.people.max() + 1 < MIN_JUDGED:
            return None
        return cross_fit(self.distance, self.same, self.people % MIN_JUDGED)  # at least two people are left to fit to

    def confused(self, threshold: float, names: Sequence[str]) -> list[Confusion]:
        """Return the pairs of people that a threshold confuses most, worst first.

        At most `MAX_CONFUSIONS`, each with `MIN_CONFUSION_PAIRS` impostor pairs or more, and `MIN_CONFUSION_SHARE` of
        them confused.
        """
        first, second = np.sort(self.people[~self.same], axis=1).T
        couples, couple = np.unique(first * len(names) + second, return_inverse=True)  # couple: (impostor pairs,)
        pairs = np.bincount(couple, minlength=len(couples))
        matches = np.bincount(couple[self.distance[~self.same] <= threshold], minlength=len(couples))
        share = np.where(pairs >= MIN_CONFUSION_PAIRS, matches / pairs, 0)
        worst = [row for row in np.argsort(-share, kind="stable")[:MAX_CONFUSIONS] if share[row] >= MIN_CONFUSION_SHARE]
        return [
            Confusion(names[number // len(names)], names[number % len(names)], float(share[row]), int(pairs[row]))
            for row, number in zip(worst, couples[worst].tolist(), strict=True)
        ]

    def curves(self, probability: np.ndarray | None) -> Curves:
        """Return `metrics.compute_curves`, given P(same) of each pair, if known."""
        return metrics.compute_curves(self.distance, self.same, probability)

    def report(self, probability: np.ndarray | None) -> Report:
        """Return `metrics.compute_report`, given P(same) of each pair, if known."""
        return metrics.compute_report(self.distance, self.same, probability)


class Embedded(NamedTuple):
    """The embeddings (N, D) of a data set on the CPU, and the qualities (N,), if the network has them."""

    dataset: IdentityDataset
    z: Tensor
    quality: Tensor | None

    def select(self, part: IdentityDataset) -> Embedded:
        """Return the embeddings of some of the images: a selection or subsample of the data set."""
        rows = np.searchsorted(self.dataset.rows, part.rows)
        return Embedded(part, self.z[rows], None if self.quality is None else self.quality[rows])


def features_of(network: SiameseNetwork, dataset: IdentityDataset) -> Iterator[Tensor]:
    """Yield the features of the images in order, (B, D) each. Those that the data set knows are not computed again."""
    if dataset.features is not None:
        yield dataset.features[torch.from_numpy(dataset.rows)].to(network.device)
        return
    values = VALUES_AT_ONCE if network.device.type == "cpu" else 32 * VALUES_AT_ONCE
    count = max(1, min(IMAGES_PER_BATCH, values // math.prod(network.input_shape)))
    for batch in dataset.batches():
        for x in batch.split(count):
            yield network.features(x.to(network.device))


@torch.inference_mode()
def embed(network: SiameseNetwork, dataset: IdentityDataset) -> Embedded:
    """Embed each image once. The network is left in evaluation mode."""
    network.eval()
    features = torch.cat(list(features_of(network, dataset)))  # (N, D)
    quality = network.quality(features)
    return Embedded(dataset, network.head(features).float().cpu(), None if quality is None else quality.cpu())


def score_pairs(embedded: Embedded) -> Scored:
    """Compute the distance of each pair of `all_pairs`. The people are indices into `dataset.names`."""
    identity, quality = embedded.dataset.identity, embedded.quality
    first, second, same = all_pairs(identity)
    distances = distances_of(embedded.z, first, second)
    if not np.isfinite(distances).all():
        raise ValueError("the network's distances are not finite; train it again with a lower learning rate")
    rows = np.stack([first, second], axis=1)  # (P, 2)
    return Scored(distances, same, identity[rows], None if quality is None else quality.numpy()[rows])


def score_all_pairs(network: SiameseNetwork, dataset: IdentityDataset) -> Scored:
    """Embed each image once and compute the distance of each pair."""
    return score_pairs(embed(network, dataset))


def distances_of(z: Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the distances (P,) between two rows (P,) of embeddings (N, D) each, block by block for the caches."""
    if len(z) <= MAX_EXHAUSTIVE_IMAGES:  # then the pairs are most of all pairs; exactly 0 for equal embeddings
        return torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")[first, second].numpy()
    blocks = zip(*(torch.from_numpy(rows).split(PAIRS_PER_BLOCK) for rows in (first, second)), strict=True)
    return torch.cat([distance(z[rows1], z[rows2]) for rows1, rows2 in blocks]).numpy()


def measure_plane(training: Embedded, test: Embedded, people: People) -> Plane | None:
    """Return embeddings to draw, of up to `MAX_PLANE_IMAGES` images each; None if they do not have two dimensions."""
    if training.z.shape[1] != 2:
        return None
    return Plane(_points(training, people.training), _points(test, people.test))


def _points(embedded: Embedded, names: Sequence[Identity]) -> list[tuple[int, float, float]]:
    drawn = embedded.select(embedded.dataset.subsample(MAX_PLANE_IMAGES))
    people = [names.index(name) for name in drawn.dataset.names]
    rows = zip(drawn.dataset.identity, drawn.z.double().numpy().round(PLANE_DECIMALS).tolist(), strict=True)
    return [(people[number], x, y) for number, (x, y) in rows]
