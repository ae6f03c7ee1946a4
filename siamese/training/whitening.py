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
from siamese.evaluation.pairs import distances_of
from siamese.network import SiameseNetwork

WHITENING_FOLDS = 5  # of people, to choose the shrinkage
MIN_GAIN = 2.0  # standard errors over the folds; a smaller gain is chance


@torch.no_grad()
def fit_whitening(network: SiameseNetwork, dataset: IdentityDataset, shrinkages: Sequence[float]) -> None:
    """Set the whitening layer of a network to whiten its embeddings within people, and to center them at 0.

    Of several shrinkages, the first is used unless others have a lower equal error rate in cross-validation over
    people, by more than chance; then the best of these. With infinity the layer does not change. A layer that was
    fitted before stays in effect, before the new one.
    """
    plain = deepcopy(network)
    plain.unit = False

    def embed(people: IdentityDataset) -> Iterator[tuple[Tensor, Tensor]]:
        start, identity = 0, torch.from_numpy(people.identity)
        for x in people.batches():
            yield plain.embed(x.to(network.device)).cpu().double(), identity[start : start + len(x)]
            start += len(x)

    embedded: Iterable[tuple[Tensor, Tensor]] = embed(dataset)
    shrinkage = shrinkages[0]
    if len(shrinkages) > 1:
        sample = dataset.subsample()
        batches = list(embed(sample))
        z, identity = (torch.cat(column) for column in zip(*batches, strict=True))  # (N, D), (N,)
        shrinkage = choose_shrinkage(z, identity, shrinkages)
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
    zero = torch.zeros((), dtype=torch.double)
    moment, between, center, images, people = zero, zero, zero, 0, 0
    for z, sums, counts in _sums_by_person(batches):
        moment, images = moment + z.T @ z, images + len(z)
        between = between + sums.T @ (sums / counts)
        center, people = center + (sums / counts).sum(0), people + len(counts)
    covariance = (moment - between) / images  # (D, D), within people
    if math.isinf(shrinkage) or covariance.trace() <= 1e-9 * moment.trace() / images:
        return torch.eye(len(covariance)).to(center), torch.zeros_like(center)
    covariance.diagonal().add_(shrinkage * covariance.diagonal().mean())
    values, vectors = torch.linalg.eigh(covariance)
    # The scale keeps the weights in the range of half precision.
    root = vectors * (values.mean() / values).sqrt() @ vectors.T
    return root, -root @ center / people


def choose_shrinkage(z: Tensor, identity: Tensor, shrinkages: Sequence[float]) -> float:
    """Return the first shrinkage, or the best of those that are better by more than chance, see `MIN_GAIN`.

    The identities (N,) of the embeddings (N, D) count from 0, in ascending order.
    """
    folds = min(WHITENING_FOLDS, int(identity.max() + 1) // 2)
    if folds < 2:
        return shrinkages[0]
    errors = {shrinkage: fold_errors(z, identity, shrinkage, folds) for shrinkage in shrinkages}

    def better(shrinkage: float) -> bool:
        gain = errors[shrinkages[0]] - errors[shrinkage]  # (F,)
        return gain.mean() > MIN_GAIN * gain.std(ddof=1) / math.sqrt(folds)

    return min(filter(better, shrinkages), key=lambda shrinkage: errors[shrinkage].mean(), default=shrinkages[0])


def fold_errors(z: Tensor, identity: Tensor, shrinkage: float, folds: int) -> np.ndarray:
    """Return the equal error rate on each fold of people, (F,), with a layer that was fitted to the others."""
    errors = []
    for fold in range(folds):
        test = identity % folds == fold
        weight, bias = whitening_layer([(z[~test], identity[~test])], shrinkage)
        whitened = F.normalize(z[test] @ weight.T + bias)
        first, second, same = all_pairs(identity[test].numpy())
        errors.append(metrics.eer(distances_of(whitened, first, second), same))
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
