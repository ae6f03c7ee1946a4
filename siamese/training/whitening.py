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
MIN_GAIN = 2.0  # standard errors over the folds; a smaller gain is chance


@torch.no_grad()
def fit_whitening(network: SiameseNetwork, dataset: IdentityDataset, shrinkages: Sequence[float]) -> float:
    """Set the whitening layer of a network to whiten its embeddings within people, and to center them at 0.

    Of several shrinkages, the first is used unless others have a lower equal error rate in cross-validation over
    people, by more than chance; then the best of these. With infinity the layer does not change. A layer that was
    fitted before stays in effect, before the new one.

    Returns:
        The shrinkage.
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
        shrinkage = choose_shrinkage(z, identity, shrinkages)
        if sample is dataset:
            embedded = batches
    if not math.isinf(shrinkage):
        weight, bias = whitening_layer(embedded, shrinkage)
        layer = network.whitening
        assert isinstance(layer, nn.Linear)
        layer.bias.copy_(weight @ layer.bias.cpu().double() + bias)
        layer.weight.copy_(weight @ layer.weight.cpu().double())
    return shrinkage


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


def choose_shrinkage(z: Tensor, identity: Tensor, shrinkages: Sequence[float]) -> float:
    """Return the first shrinkage, or the best of those that are better by more than chance, see `MIN_GAIN`.

    The identities (N,) of the embeddings (N, D) count from 0, in ascending order.
    """
    folds = min(WHITENING_FOLDS, int(identity.max() + 1) // 2)
    if folds < 2:
        return shrinkages[0]
    errors = fold_errors(z, identity, shrinkages, folds)
    gain = errors[:, :1] - errors  # (F, S)
    better = gain.mean(0) > MIN_GAIN * gain.std(0, ddof=1) / math.sqrt(folds)  # (S,); the first is not
    return shrinkages[int(np.where(better, errors.mean(0), np.inf).argmin())]


def fold_errors(z: Tensor, identity: Tensor, shrinkages: Sequence[float], folds: int) -> np.ndarray:
    """Return the equal error rates on each fold of people, (F, S), with layers that were fitted to the others."""
    errors = []
    for fold in range(folds):
        test = identity % folds == fold
        fitted = _within_people([(z[~test], identity[~test])])
        first, second, same = all_pairs(identity[test].numpy())
        layers = (_layer(*fitted, shrinkage) for shrinkage in shrinkages)
        whitened = (F.normalize(z[test] @ weight.T + bias).float() for weight, bias in layers)
        errors.append([metrics.eer(distances_of(each, first, second), same) for each in whitened])
    return np.array(errors)


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
