"""The modern recipe: all pairs of batches with several images per person, augmentation, and whitening.

The batches are those of FaceNet (Schroff et al., CVPR 2015); the loss weights harder pairs more. After training, the
embeddings are whitened within people. On AT&T, with `--flip`, it takes seconds on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from siamese.data.dataset import IdentityDataset
from siamese.loss import all_pairs_loss
from siamese.network import SiameseNetwork, distance
from siamese.training.recipe import Batch, Recipe
from siamese.training.whitening import fit_whitening

EMBEDDING_DIM = 512
IMAGES_PER_PERSON = 4  # in a batch
HARDNESS = 10.0  # see `all_pairs_loss`
WARM_UP = 0.2  # share of all steps in which the learning rate rises

VALIDATION_SHARE = 8  # one in eight training people validates ...
MIN_PEOPLE_TO_VALIDATE = 48  # ... if there are at least so many

# See `fit_whitening`. From scratch the strength is fixed; pretrained weights need none, or a weaker one.
SHRINKAGE = 0.03
PRETRAINED_SHRINKAGES = (math.inf, 3.0, 1.0)

# Limits of the augmentation, in both directions.
MAX_ROTATION = math.radians(4)
MAX_ZOOM = 0.04  # share of the size
MAX_SHIFT = 0.025  # share of the width and of the height
MAX_BRIGHTNESS = 0.1  # share of the range
MAX_CONTRAST = 0.2  # share of the contrast


@dataclass(frozen=True)
class ModernRecipe(Recipe):
    """See the module.

    Attributes:
        margin: see `all_pairs_loss`.
        flip: whether an image and its mirror image show the same thing.
        pretrained: whether training starts from trained weights.
    """

    name = "modern"
    draws = 7
    margin: float
    flip: bool = False
    pretrained: bool = False

    def network(self) -> SiameseNetwork:
        """Build a small network with a whitening layer."""
        return SiameseNetwork("small", EMBEDDING_DIM, mirror=self.flip, unit=True, whiten=True)

    def split(self, dataset: IdentityDataset, seed: int) -> tuple[IdentityDataset, IdentityDataset | None]:
        """Split off one in `VALIDATION_SHARE` people, if there are at least `MIN_PEOPLE_TO_VALIDATE`."""
        if len(dataset.names) < MIN_PEOPLE_TO_VALIDATE:
            return dataset, None
        names = dataset.draw_people(VALIDATION_SHARE, seed)
        return dataset.select(set(dataset.names) - names), dataset.select(names).subsample()

    def epoch_batches(self, identity: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[Batch]:
        """Draw each image once, in groups of `IMAGES_PER_PERSON` of one person, and the groups in batches.

        If the images of a person do not fill the last group, some of them are repeated. The groups of each person are
        spread over the epoch, so that a batch has as many different people as possible.

        Returns:
            A list of (rows, identity): rows (B,) int, the images of the batch, with B of at most `batch_size` and as
            equal as possible; identity (B,) int, the identity that each of them shows.
        """
        rng = np.random.default_rng([seed, epoch])
        order = np.argsort(identity, kind="stable")
        groups, rounds, counts = [], [], []
        for rows in np.split(order, np.flatnonzero(np.diff(identity[order])) + 1):  # of one person
            count = -(-len(rows) // IMAGES_PER_PERSON)
            groups.append(np.resize(rng.permutation(rows), (count, IMAGES_PER_PERSON)))
            rounds.append(np.arange(count))
            counts.append(np.full(count, count))
        # Group k of n of a person gets a random place in the k-th of n parts of the epoch.
        number, of = np.concatenate(rounds), np.concatenate(counts)
        place = (number + rng.random(len(number))) / of  # (G,) in [0, 1)
        shuffled = np.concatenate(groups)[place.argsort()]  # (G, IMAGES_PER_PERSON)
        batches = np.array_split(shuffled, -(-len(shuffled) // (batch_size // IMAGES_PER_PERSON)))
        return [(rows.ravel(), identity[rows.ravel()]) for rows in batches]

    def augment(self, x: Tensor, draws: Tensor) -> Tensor:
        """Change each image a little: rotation, zoom, shift, brightness, contrast, and with `flip` the side.

        Args:
            x: (B, C, H, W) uint8, on any device.
            draws: (7, B) float in [0, 1), on the same device; 0.5 means no change.

        Returns:
            (B, C, H, W) float in about [0, 1]. Pixels from outside the image repeat its border.
        """
        if not len(x):  # with several processes, one may have no share of a small batch
            return x / 255
        side, *signed = draws * 2 - 1  # (B,) each, in [-1, 1)
        # Coordinates are in [-1, 1], so a shift by the width is 2.
        limits = MAX_ROTATION, MAX_ZOOM, 2 * MAX_SHIFT, 2 * MAX_SHIFT, MAX_BRIGHTNESS, MAX_CONTRAST
        angle, zoom, dx, dy, brightness, contrast = (draw * most for draw, most in zip(signed, limits, strict=True))

        # Geometry: one affine transformation per image.
        mirror = 1 - 2 * (side > 0).float() if self.flip else 1
        cos, sin = (1 + zoom) * angle.cos(), (1 + zoom) * angle.sin()
        rows = [mirror * cos, -sin, dx], [mirror * sin, cos, dy]
        affine = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (B, 2, 3)
        grid = F.affine_grid(affine, list(x.shape), align_corners=False)  # (B, H, W, 2)
        x = F.grid_sample(x.float() / 255, grid, padding_mode="border", align_corners=False)

        # Light.
        mean = x.mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        brightness, contrast = brightness[:, None, None, None], contrast[:, None, None, None]
        return (x - mean) * (1 + contrast) + mean + brightness

    def loss(self, z: Tensor, *labels: Tensor) -> Tensor:
        """Compute the loss of all pairs of a batch; the label is `identity`, see `epoch_batches`."""
        (identity,) = labels
        return all_pairs_loss(distance(z[:, None], z), identity, self.margin, HARDNESS)

    def lr_scale(self, progress: float) -> float:
        """Return the factor of the learning rate: linear warm-up, then cosine decay to 0."""
        if progress < WARM_UP:
            return progress / WARM_UP
        return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2

    def fit_whitening(self, network: SiameseNetwork, dataset: IdentityDataset) -> None:
        """Fit the whitening layer, see `siamese.training.whitening.fit_whitening`."""
        fit_whitening(network, dataset, PRETRAINED_SHRINKAGES if self.pretrained else (SHRINKAGE,))
