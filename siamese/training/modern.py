"""The strong recipe: batches of some images each of many people, all their pairs, and no image seen the same way twice.

FaceNet's batches (Schroff et al., CVPR 2015), with a contrastive loss in which the hard pairs weigh most; at the end
the embeddings are whitened within people. On AT&T, with `--flip`, it takes seconds on a CPU.
"""

import math
from collections.abc import Iterable, Iterator
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from siamese.data.dataset import BATCH, IdentityDataset
from siamese.evaluation import metrics
from siamese.evaluation.pairs import all_pairs, distances_of
from siamese.loss import all_pairs_loss
from siamese.network import SiameseNetwork, distance
from siamese.training.config import TrainConfig

EMBEDDING_DIM = 512
IMAGES = 4  # of a person in a batch
HARDNESS = 10.0  # see `all_pairs_loss`
WARM_UP = 0.2  # of all steps
SHRINKAGE = 0.03  # see `_whitening`
STRENGTHS = math.inf, 3.0, 1.0  # to choose from where training began from weights; of equally good ones, the first
VALIDATION = 8  # one training person in so many validates …
SPARE = 48  # … where there are so many

# The furthest that an image is varied, each way; `DRAWS` numbers decide how.
DRAWS = 7
TURN, ZOOM, SHIFT = math.radians(4), 0.04, 0.025  # radians, share, share of the width
LIGHT, CONTRAST = 0.1, 0.2  # of the range, share


def network(config: TrainConfig) -> SiameseNetwork:
    """Return the network that training starts from."""
    return SiameseNetwork("small", EMBEDDING_DIM, mirror=config.flip, unit=True, whiten=True)


def split(dataset: IdentityDataset, seed: int) -> tuple[IdentityDataset, IdentityDataset | None]:
    """Draw by the seed who of these people is to validate, where there are enough to spare some.

    Returns:
        The people to train on, and those who validate.
    """
    if len(dataset.names) < SPARE:
        return dataset, None
    spared = dataset.draw_people(VALIDATION, seed)
    return dataset.select(set(dataset.names) - spared), dataset.select(spared).subsample()


def epoch_batches(identity: np.ndarray, config: TrainConfig, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw an epoch: each image once, in groups of `IMAGES` of one person, and the groups in batches.

    A person whose images do not fill the last group gives some of them again. Everybody's groups are spread over the
    whole epoch, so that a batch holds as many people as it can.

    Returns:
        A list, of one length in all epochs, of rows: (B,) images, B at most `batch_size` and as equal as can be;
        identity: (B,) whom they show.
    """
    rng = np.random.default_rng([config.seed, epoch])
    order = np.argsort(identity, kind="stable")
    groups, rounds, counts = [], [], []
    for rows in np.split(order, np.flatnonzero(np.diff(identity[order])) + 1):
        count = -(-len(rows) // IMAGES)
        groups.append(np.resize(rng.permutation(rows), (count, IMAGES)))
        rounds.append(np.arange(count))
        counts.append(np.full(count, count))
    groups, rounds, counts = map(np.concatenate, (groups, rounds, counts))
    groups = groups[((rounds + rng.random(len(rounds))) / counts).argsort()]
    batches = np.array_split(groups, -(-len(groups) // (config.batch_size // IMAGES)))
    return [(rows.ravel(), identity[rows.ravel()]) for rows in batches]


def augment(x: Tensor, draws: Tensor, config: TrainConfig) -> Tensor:
    """Vary each image on its own: turned, zoomed and shifted a little, lighter or darker, of more or less contrast,
    and where `config.flip` says so half of them mirrored.

    Args:
        x: (B, C, H, W) uint8, on any device.
        draws: (DRAWS, B) float in [0, 1], on the same device.
        config: see there.

    Returns:
        (B, C, H, W) float in about [0, 1]; what comes in from outside repeats the border.
    """
    if not len(x):  # of a small batch, one of many processes may have no share
        return x / 255
    mirrored, *draws = draws * 2 - 1
    furthest = TURN, ZOOM, 2 * SHIFT, 2 * SHIFT, LIGHT, CONTRAST  # coordinates run from −1 to 1, so that a width is 2
    angle, zoom, across, down, light, contrast = (draw * most for draw, most in zip(draws, furthest, strict=True))
    mirror = 1 - 2 * (mirrored > 0).float() if config.flip else 1
    cos, sin = (1 + zoom) * angle.cos(), (1 + zoom) * angle.sin()
    rows = [mirror * cos, -sin, across], [mirror * sin, cos, down]
    grid = F.affine_grid(torch.stack([torch.stack(row, 1) for row in rows], 1), list(x.shape), align_corners=False)
    x = F.grid_sample(x.float() / 255, grid, padding_mode="border", align_corners=False)
    mean = x.mean((1, 2, 3), keepdim=True)
    light, contrast = light[:, None, None, None], contrast[:, None, None, None]
    return (x - mean) * (1 + contrast) + mean + light


def loss(z: Tensor, identity: Tensor, config: TrainConfig) -> Tensor:
    """Return the loss of all pairs of a batch."""
    return all_pairs_loss(distance(z[:, None], z), identity, config.margin, HARDNESS)


def lr_scale(progress: float) -> float:
    """Return the share of the highest learning rate at a share of all steps: up on a line, down on a cosine."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


@torch.no_grad()
def fit_whitening(network: SiameseNetwork, dataset: IdentityDataset, config: TrainConfig) -> None:
    """Set the last layer so that what varies within people counts for little, and the mean person lies at 0.

    It takes no step downhill, and so does not learn the training people by heart. Where training began from weights,
    how strongly it whitens is decided on these people, in folds; where it does not help people whom it was not fitted
    to, the layer stays as it was.

    Args:
        network: with a whitening, in evaluation mode.
        dataset: the training people.
        config: the settings.
    """
    plain = deepcopy(network)
    plain.unit = False

    def embed(people: IdentityDataset) -> Iterator[tuple[Tensor, Tensor]]:
        for x, identity in zip(people.batches(), torch.from_numpy(people.identity).split(BATCH), strict=True):
            yield plain.embed(x.to(network.device)).cpu().double(), identity

    embedded, shrinkage = embed(dataset), SHRINKAGE
    if config.init:
        some = dataset.subsample()
        batches = list(embed(some))
        z, identity = map(torch.cat, zip(*batches, strict=True))
        shrinkage = min(STRENGTHS, key=lambda shrinkage: _error(z, identity, shrinkage))
        if math.isinf(shrinkage):
            return
        embedded = batches if some is dataset else embedded
    weight, bias = _whitening(embedded, shrinkage)
    last = network.whitening  # which is put before, where there was one
    last.bias.copy_(weight @ last.bias.cpu().double() + bias)
    last.weight.copy_(weight @ last.weight.cpu().double())


def _whitening(batches: Iterable[tuple[Tensor, Tensor]], shrinkage: float) -> tuple[Tensor, Tensor]:
    """Return the weight (D, D) and the bias (D,) of a layer that whitens within people.

    Within-class covariance normalisation (Hatch, Kajarekar and Stolcke, Interspeech 2006): the weight is the root of
    the inverse of C, the covariance of embeddings around the mean of their person, with `shrinkage` times its mean
    variance added to each, and the bias takes the mean person to 0. Where `shrinkage` is infinite, or nobody's images
    differ, the layer does nothing.

    Args:
        batches: embeddings (B, D) double and whom they show, (B,) int, one person after the other.
        shrinkage: > 0.
    """
    moment, between, center, images, people = 0, 0, 0, 0, 0
    for z, sums, counts in _by_person(batches):
        moment, images = moment + z.T @ z, images + len(z)
        between = between + sums.T @ (sums / counts)
        center, people = center + (sums / counts).sum(0), people + len(counts)
    covariance = (moment - between) / images
    if math.isinf(shrinkage) or covariance.trace() <= 1e-9 * moment.trace() / images:
        return torch.eye(len(covariance)).to(center), torch.zeros_like(center)
    covariance.diagonal().add_(shrinkage * covariance.diagonal().mean())
    values, vectors = torch.linalg.eigh(covariance)
    # To the size of what it replaces, so that half precision holds it.
    root = vectors * (values.mean() / values).sqrt() @ vectors.T
    return root, -root @ center / people


def _by_person(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield each batch of embeddings (B, D), with the sums (K, D) and the counts (K, 1) of the people who end in it, so
    that of many people no table is kept; at last an empty batch with whoever ends there."""
    total, count, last = 0, 0, None
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


def _error(z: Tensor, identity: Tensor, shrinkage: float) -> float:
    """Return the equal error rate among people whom the layer was not fitted to, in up to five folds; 0 where there are
    too few people for two."""
    folds = min(5, int(identity.max() + 1) // 2)
    distances, same = [], []
    for fold in range(folds if folds > 1 else 0):
        test = identity % folds == fold
        weight, bias = _whitening([(z[~test], identity[~test])], shrinkage)
        of_test = F.normalize(z[test] @ weight.T + bias)
        first, second, genuine = all_pairs(identity[test].numpy())
        distances.append(distances_of(of_test, first, second))
        same.append(genuine)
    return metrics.eer(np.concatenate(distances), np.concatenate(same)) if same else 0.0
