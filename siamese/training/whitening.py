"""Whitening: a last linear layer that down-weights within-class variance.

Within-class covariance normalisation (Hatch, Kajarekar and Stolcke, Interspeech 2006). The layer is computed, not
trained by gradient descent, so it overfits less to the training people.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siamese.data.dataset import IdentityDataset
from siamese.data.pairs import all_pairs
from siamese.evaluation import metrics
from siamese.evaluation.pairs import distances_of, features_of
from siamese.network import SiameseNetwork

WHITENING_FOLDS = 5  # of people, to choose the shrinkage


@torch.no_grad()
def fit_whitening(network: SiameseNetwork, dataset: IdentityDataset, shrinkages: Sequence[float]) -> None:
    """Set the whitening layer of a network to whiten its embeddings within people, and to center them at 0.

    Of several shrinkages, the one with the lowest equal error rate in cross-validation over people is used; of equally
    good ones the first. With infinity the layer does not change. A layer that was fitted before stays in effect, before
    the new one.
    """
    plain = deepcopy(network)
    plain.unit = False

    def embed(people: IdentityDataset) -> Iterator[tuple[Tensor, Tensor]]:
        start, identity = 0, torch.from_numpy(people.identity)
        for features in features_of(plain, people):
            yield plain.head(features).cpu().double(), identity[start : start + len(features)]
            start += len(features)

    embedded: Iterable[tuple[Tensor, Tensor]] = embed(dataset)
    shrinkage = shrinkages[0]
    if len(shrinkages) > 1:
        sample = dataset.subsample()
        batches = list(embed(sample))
        z, identity = (torch.cat(column) for column in zip(*batches, strict=True))  # (N, D), (N,)
        errors = cross_validated_eers(z, identity, shrinkages)
        shrinkage = shrinkages[errors.index(min(errors))]
        if sample is dataset:
            embedded = batches
    if math.isinf(shrinkage):
        return
    weight, bias = whitening_layer(embedded, shrinkage)
    layer = network.whitening
    assert isinstance(layer, nn.Linear)
    layer.bias.copy_(weight @ layer.bias.cpu().double() + bias)
    layer.weight.copy_(weight @ layer.weight.cpu().double())


def whitening_layer(batches: Iterable[tuple[Tensor, Tensor]], shrinkage: float) -> tuple[Tensor, Tensor]:
    """Compute the weight (D, D) and the bias (D,) of a layer that whitens within people.

    The weight is the inverse square root of C, the covariance of the embeddings around the mean of their person.
    Before, `shrinkage` times the mean of its diagonal is added to the diagonal of C. The bias moves the mean over all
    people to 0. If the shrinkage is infinite, or the images of each person are equal, the layer is the identity. The
    batches are embeddings (B, D), double, and identities (B,), with the images of a person one after the other.
    """
    return _layer(*_within_people(batches), shrinkage)


def _within_people(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the eigenvalues (D,) and eigenvectors (D, D) of C, and the mean over all people (D,)."""
    zero = torch.zeros((), dtype=torch.double)
    moment, between, center, images, people = zero, zero, zero, 0, 0
    for z, sums, counts in _sums_by_person(batches):
        moment, images = moment + z.T @ z, images + len(z)
        between = between + sums.T @ (sums / counts)
        center, people = center + (sums / counts).sum(0), people + len(counts)
    covariance = (moment - between) / images
    if covariance.trace() <= 1e-9 * moment.trace() / images:  # rounding errors
        covariance = torch.zeros_like(covariance)
    values, vectors = torch.linalg.eigh(covariance)
    return values, vectors, center / people


def _layer(values: Tensor, vectors: Tensor, center: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Return weight and bias of `whitening_layer`. A larger diagonal of C changes its eigenvalues only."""
    if math.isinf(shrinkage) or not values.any():
        return torch.eye(len(values)).to(center), torch.zeros_like(center)
    values = values + shrinkage * values.mean()
    # The scale keeps the weights in the range of half precision.
    root = vectors * (values.mean() / values).sqrt() @ vectors.T
    return root, -root @ center


def cross_validated_eers(z: Tensor, identity: Tensor, shrinkages: Sequence[float]) -> list[float]:
    """Return the equal error rates on people that the layer was not fitted to; 0 if they are too few for two folds.

    The identities (N,) count from 0, in ascending order.
    """
    folds = min(WHITENING_FOLDS, int(identity.max() + 1) // 2)
    if folds < 2:
        return [0.0] * len(shrinkages)
    distances, same = [], []  # of each fold
    for fold in range(folds):
        test = identity % folds == fold
        fitted = _within_people([(z[~test], identity[~test])])
        first, second, genuine = all_pairs(identity[test].numpy())
        layers = (_layer(*fitted, shrinkage) for shrinkage in shrinkages)
        whitened = [F.normalize(z[test] @ weight.T + bias).float() for weight, bias in layers]
        distances.append([distances_of(each, first, second) for each in whitened])
        same.append(genuine)
    pairs = np.concatenate(same)
    return [metrics.eer(np.concatenate(column), pairs) for column in zip(*distances, strict=True)]


def _sums_by_person(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield batches (B, D) with the sums (K, D) and counts (K, 1) of the people that end in it. The last is empty."""
    total, count, last = torch.empty(0), torch.empty(0), None
    for z, identity in batches:
        people, place = identity.unique_consecutive(return_inverse=True)
        sums = z.new_zeros(len(people), z.shape[1]).index_add_(0, place, z)
        counts = place.bincount()[:, None].to(z)
        if people[0] == last:
            sums[0] += total
            counts[0] += count
        elif last is not None:
            yield z[:0], total[None], count[None]
        yield z, sums[:-1], counts[:-1]
        total, count, last = sums[-1], counts[-1], people[-1]
    yield z[:0], total[None], count[None]
