"""The seed's recipe: random pairs of images as they are, as in the DataHacker tutorial."""

import numpy as np
from torch import Tensor

from siamese.data.dataset import IdentityDataset
from siamese.evaluation.pairs import draw_pairs
from siamese.loss import contrastive_loss
from siamese.network import SiameseNetwork, distance
from siamese.training.config import TrainConfig

DRAWS = 0  # it varies no image


def network(config: TrainConfig) -> SiameseNetwork:
    """Return the network that training starts from."""
    return SiameseNetwork()


def split(dataset: IdentityDataset, seed: int) -> tuple[IdentityDataset, IdentityDataset | None]:
    """Return the people to train on, and those who validate: nobody."""
    return dataset, None


def epoch_batches(
    identity: np.ndarray, config: TrainConfig, epoch: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw an epoch's pairs, as many as there are images, and cut them into batches of at most `batch_size`.

    An image that several pairs of a batch share is to be embedded once: with the seed's sizes this saves a sixth of
    the arithmetic, and the gradient is the same.

    Returns:
        A list of rows: (U,) the distinct images of the batch; sides: (2, P) which of them each pair joins;
        same: (P,) bool.
    """
    rng = np.random.default_rng([config.seed, epoch])
    first, second, same = draw_pairs(identity, len(identity), rng)
    batches = []
    for start in range(0, len(identity), config.batch_size):
        part = slice(start, start + config.batch_size)
        pairs = np.stack([first[part], second[part]])
        rows, sides = np.unique(pairs, return_inverse=True)
        batches.append((rows, sides.reshape(pairs.shape), same[part]))
    return batches


def augment(x: Tensor, draws: Tensor, config: TrainConfig) -> Tensor:
    """Return the images as they are."""
    return x


def loss(z: Tensor, sides: Tensor, same: Tensor, config: TrainConfig) -> Tensor:
    """Return the loss of a batch's pairs, see `epoch_batches`."""
    return contrastive_loss(distance(*z[sides]), same, config.margin)


def lr_scale(progress: float) -> float:
    """Return the share of the learning rate at a share of all steps: all of it."""
    return 1.0


def fit_whitening(network: SiameseNetwork, dataset: IdentityDataset, config: TrainConfig) -> None:
    """Leave the network as it was trained."""
