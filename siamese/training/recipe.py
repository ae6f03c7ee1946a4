"""The interface of a training recipe."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor

from siamese.data.dataset import IdentityDataset
from siamese.network import SiameseNetwork

Batch = tuple[np.ndarray, ...]  # rows: (B,) int, the distinct images of the batch; then labels for `Recipe.loss`


class Recipe:
    """How to train a network: its layers, batches, augmentation, loss and learning rate.

    `fit` in `siamese.training.trainer` calls these methods. A recipe must implement `network`, `epoch_batches` and
    `loss`; the other methods have defaults. A recipe has no random state: everything follows from seed and epoch, or
    from random numbers that it gets, so that a resumed run equals an uninterrupted one.

    Attributes:
        name: the value of `TrainConfig.recipe`.
        draws: how many random numbers per image `augment` takes.
    """

    name: ClassVar[str]
    draws: ClassVar[int] = 0

    def network(self) -> SiameseNetwork:
        """Build the network, with random weights from PyTorch's global generator."""
        raise NotImplementedError

    def split(self, dataset: IdentityDataset, seed: int) -> tuple[IdentityDataset, IdentityDataset | None]:
        """Split off the people whose equal error rate decides which epoch is best.

        Returns:
            The people to train on, and those to validate on; None to keep the last epoch.
        """
        return dataset, None

    def epoch_batches(self, identity: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[Batch]:
        """Draw the batches of an epoch. All epochs have the same number of batches.

        Args:
            identity: (N,) int, the identity that each image shows.
            batch_size: see `TrainConfig`.
            seed: of the run.
            epoch: counted from 0.
        """
        raise NotImplementedError

    def augment(self, x: Tensor, draws: Tensor) -> Tensor:
        """Augment images.

        Args:
            x: (B, C, H, W) uint8, on any device.
            draws: (`draws`, B) float, uniform in [0, 1), on the same device.

        Returns:
            (B, C, H, W), uint8 or float in about [0, 1].
        """
        return x

    def loss(self, z: Tensor, *labels: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            z: (B, D), the embeddings of the images of a batch.
            labels: the labels of the batch, on the device of `z`.

        Returns:
            Scalar.
        """
        raise NotImplementedError

    def lr_scale(self, progress: float) -> float:
        """Return the factor of the learning rate after a share of all steps, `progress` in (0, 1]."""
        return 1.0

    def fit_whitening(self, network: SiameseNetwork, dataset: IdentityDataset) -> None:
        """Set the whitening layer of a trained network in evaluation mode, if it has one.

        Args:
            network: the trained network.
            dataset: training and validation people.
        """
