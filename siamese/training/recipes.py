"""Training recipes: the interface, the tutorial recipe and the modern recipe.

To add a recipe, write a class here, name it in `RECIPES`, and add its defaults to `RECIPE_DEFAULTS` in config.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siamese.data.dataset import IdentityDataset, draw_people
from siamese.data.pairs import draw_pairs
from siamese.loss import all_pairs_loss, contrastive_loss
from siamese.network import SiameseNetwork, distance
from siamese.record import Settings
from siamese.training.whitening import fit_whitening

# The modern recipe.
EMBEDDING_DIM = 512
IMAGES_PER_PERSON = 4  # in a batch
HARDNESS = 10.0  # see `all_pairs_loss`
WARM_UP = 0.2  # share of all steps in which the learning rate rises

# If there are at least `MIN_PEOPLE_TO_VALIDATE` training people, one in `VALIDATION_SHARE` of them validates.
VALIDATION_SHARE, MIN_PEOPLE_TO_VALIDATE = 8, 48
# See `fit_whitening`. From scratch the strength is fixed; pretrained weights need none, or a weaker one.
SHRINKAGE, TURNED_SHRINKAGE = 0.03, 1.0
PRETRAINED_SHRINKAGES = (math.inf, 3.0, 1.0)
PRETRAINED_RATE = 0.2  # of the learning rate, for pretrained layers below a new one
TURNS = 4  # by 90 degrees each


@dataclass(frozen=True)
class Augmentation:
    """The limits of random changes of an image, in both directions."""

    rotation: float  # angle in radians
    zoom: float  # share of the size
    shift: float  # share of the width and of the height
    brightness: float  # share of the range
    contrast: float  # share of the contrast
    stretch: float = 0.0  # share of the width that is added, and of the height that is taken away
    shear: float = 0.0  # shift of the top edge, as a share of half the height
    color: float = 0.0  # share of the range, of each color channel


ALIGNED = Augmentation(math.radians(4), zoom=0.04, shift=0.025, brightness=0.1, contrast=0.2)
TURNED = Augmentation(math.radians(15), zoom=0.1, shift=0.1, brightness=0.1, contrast=0.2, stretch=0.1, shear=0.3)
PHOTOS = Augmentation(
    math.radians(10), zoom=0.25, shift=0.1, brightness=0.15, contrast=0.3, stretch=0.1, shear=0.1, color=0.05
)

Batch = tuple[np.ndarray, ...]  # rows: (B,) int, the distinct images of the batch; then labels for `Recipe.loss`


@dataclass(frozen=True)
class Recipe:
    """How to train a network: its layers, batches, augmentation, loss and learning rate.

    A recipe must implement `network`, `epoch_batches` and `loss`; the other methods have defaults. It has no random
    state: everything follows from seed and epoch, or from random numbers that it gets, so that a resumed run equals an
    uninterrupted one.
    """

    settings: Settings
    draws: ClassVar[int] = 0

    def network(self) -> SiameseNetwork:
        """Build the network, with random weights from PyTorch's global generator."""
        raise NotImplementedError

    def split(self, dataset: IdentityDataset) -> tuple[IdentityDataset, IdentityDataset | None]:
        """Split off the people whose equal error rate decides which epoch is best; None to keep the last epoch."""
        return dataset, None

    def epoch_batches(self, identity: np.ndarray, epoch: int) -> list[Batch]:
        """Draw the batches of an epoch, counted from 0, from images of the identities (N,). Each epoch has as many."""
        raise NotImplementedError

    def augment(self, x: Tensor, draws: Tensor, *labels: Tensor) -> Tensor:
        """Augment images (B, C, H, W) uint8, given uniform random numbers (`draws`, B) and their labels, (B,) each."""
        return x

    def loss(self, z: Tensor, *labels: Tensor) -> Tensor:
        """Compute the loss of a batch, a scalar, from its embeddings (B, D) and its labels."""
        raise NotImplementedError

    def parameter_groups(self, network: SiameseNetwork) -> list[tuple[list[nn.Parameter], float]]:
        """Return groups of parameters, each with a factor of the learning rate."""
        return [(list(network.parameters()), 1.0)]

    def lr_scale(self, progress: float) -> float:
        """Return the factor of the learning rate after a share of all steps, `progress` in (0, 1]."""
        return 1.0

    def finish(self, network: SiameseNetwork, dataset: IdentityDataset, shrinkage: float | None = None) -> float | None:
        """Set what gradient descent does not train, with training and validation people.

        Returns the shrinkage of the whitening layer, if there is one. It is chosen if None is given.
        """


class TutorialRecipe(Recipe):
    """The contrastive loss of random pairs without augmentation, as in the DataHacker tutorial."""

    def network(self) -> SiameseNetwork:
        """Build the network of the tutorial."""
        return SiameseNetwork()

    def epoch_batches(self, identity: np.ndarray, epoch: int) -> list[Batch]:
        """Draw as many pairs as there are images, and split them into batches of at most `batch_size` pairs.

        An image in several pairs of a batch is embedded once. With the default sizes this saves a sixth of the
        computation, and the gradient is the same. A batch is (rows, sides, same): rows (U,), its distinct images; sides
        (2, P), positions in `rows` of the two images of each pair; same (P,) bool.
        """
        batch_size = self.settings.batch_size
        rng = np.random.default_rng([self.settings.seed, epoch])
        first, second, same = draw_pairs(identity, len(identity), rng)
        batches: list[Batch] = []
        for start in range(0, len(identity), batch_size):
            part = slice(start, start + batch_size)
            pairs = np.stack([first[part], second[part]])  # (2, P)
            rows, sides = np.unique(pairs, return_inverse=True)
            batches.append((rows, sides.reshape(pairs.shape), same[part]))
        return batches

    def loss(self, z: Tensor, *labels: Tensor) -> Tensor:
        """Compute the loss of the pairs of a batch."""
        sides, same = labels
        z1, z2 = z[sides]  # (P, D) each
        return contrastive_loss(distance(z1, z2), same, self.settings.margin)


class ModernRecipe(Recipe):
    """All pairs of batches with several images per person, augmentation, and whitening.

    The batches are those of FaceNet (Schroff et al., CVPR 2015); the loss weights harder pairs more.

    With `turned`, an image that is turned by 90, 180 or 270 degrees shows a further class, as for the characters of
    Santoro et al., "Meta-Learning with Memory-Augmented Neural Networks", ICML 2016. Four times as many classes feed a
    deeper network and stronger augmentation. Faces are not like this: nobody is a turned person. On AT&T, with
    `--flip`, training takes seconds on a CPU.
    """

    draws = 12

    @property
    def augmentation(self) -> Augmentation:
        """How images are augmented: characters, photos of things, or aligned faces."""
        if self.settings.turned:
            return TURNED
        return PHOTOS if self.settings.init and self.settings.align == "none" else ALIGNED

    def network(self) -> SiameseNetwork:
        """Build a network with a whitening layer."""
        settings = self.settings
        return SiameseNetwork(
            "deep" if settings.turned else "small",
            settings.embedding_dim or EMBEDDING_DIM,
            mirror=settings.flip,
            unit=True,
            whiten=True,
            image_size=settings.image_size or None,
        )

    def split(self, dataset: IdentityDataset) -> tuple[IdentityDataset, IdentityDataset | None]:
        """Split off one in `VALIDATION_SHARE` people, if there are at least `MIN_PEOPLE_TO_VALIDATE`."""
        if len(dataset.names) < MIN_PEOPLE_TO_VALIDATE:
            return dataset, None
        names = draw_people(dataset.names, VALIDATION_SHARE, self.settings.seed)
        return dataset.select(set(dataset.names) - names), dataset.select(names).subsample()

    def epoch_batches(self, identity: np.ndarray, epoch: int) -> list[Batch]:
        """Draw each image once, in groups of `IMAGES_PER_PERSON` of one person, and the groups in batches.

        If the images of a person do not fill the last group, some of them are repeated. The groups of each person are
        spread over the epoch, so that a batch has as many different people as possible. A batch is (rows, identity),
        both (B,), with B of at most `batch_size` and as equal as possible. With `turned`, each image is drawn `TURNS`
        times, and identity k turned t times is the identity `TURNS` k + t.
        """
        rng = np.random.default_rng([self.settings.seed, epoch])
        turns = TURNS if self.settings.turned else 1
        identity = (identity[:, None] * turns + np.arange(turns)).ravel()
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
        count = -(-len(shuffled) // (self.settings.batch_size // IMAGES_PER_PERSON))
        batches = np.array_split(shuffled, count)
        return [(rows.ravel() // turns, identity[rows.ravel()]) for rows in batches]

    def augment(self, x: Tensor, draws: Tensor, *labels: Tensor) -> Tensor:
        """Change each image: its geometry, light and color, and with `flip` the side; with `turned`, turn it.

        A draw of 0.5 means no change. Pixels from outside the image repeat its border.
        """
        if not len(x):  # with several processes, one may have no share of a small batch
            return x / 255
        (identity,), most = labels, self.augmentation
        side, *signed = draws * 2 - 1  # (B,) each, in [-1, 1)
        # Coordinates are in [-1, 1], so a shift by the width is 2.
        limits = most.rotation, most.zoom, 2 * most.shift, 2 * most.shift, most.brightness, most.contrast
        limits = *limits, most.stretch, most.shear, most.color, most.color, most.color
        angle, zoom, dx, dy, brightness, contrast, stretch, shear, *color = (
            draw * limit for draw, limit in zip(signed, limits, strict=True)
        )
        if self.settings.turned:
            angle = angle + identity % TURNS * (math.pi / 2)

        # Geometry: one affine transformation per image.
        mirror = 1 - 2 * (side > 0).float() if self.settings.flip else 1
        cos, sin, width, height = angle.cos(), angle.sin(), 1 + zoom + stretch, 1 + zoom - stretch
        rows = [
            [mirror * width * cos, shear * cos - height * sin, dx],
            [mirror * width * sin, shear * sin + height * cos, dy],
        ]
        affine = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (B, 2, 3)
        grid = F.affine_grid(affine, list(x.shape), align_corners=False)  # (B, H, W, 2)
        x = F.grid_sample(x.float() / 255, grid, padding_mode="border", align_corners=False)

        # Light and color.
        mean = x.mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        brightness, contrast = brightness[:, None, None, None], contrast[:, None, None, None]
        x = (x - mean) * (1 + contrast) + mean + brightness
        return x + torch.stack(color, 1)[:, : x.shape[1], None, None] if most.color else x

    def loss(self, z: Tensor, *labels: Tensor) -> Tensor:
        """Compute the loss of all pairs of a batch."""
        (identity,) = labels
        return all_pairs_loss(distance(z[:, None], z), identity, self.settings.margin, HARDNESS)

    def parameter_groups(self, network: SiameseNetwork) -> list[tuple[list[nn.Parameter], float]]:
        """With a new last layer, train the pretrained layers at a lower rate."""
        if not (self.settings.init and self.settings.embedding_dim):
            return super().parameter_groups(network)
        *layers, last = network.backbone.children()
        pretrained = [parameter for layer in layers for parameter in layer.parameters()]
        return [(pretrained, PRETRAINED_RATE), (list(last.parameters()), 1.0)]

    def lr_scale(self, progress: float) -> float:
        """Return the factor of the learning rate: linear warm-up, then cosine decay to 0."""
        if progress < WARM_UP:
            return progress / WARM_UP
        return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2

    def finish(self, network: SiameseNetwork, dataset: IdentityDataset, shrinkage: float | None = None) -> float:
        """Fit the whitening layer."""
        choices = (TURNED_SHRINKAGE if self.settings.turned else SHRINKAGE,)
        if self.settings.init:
            choices = PRETRAINED_SHRINKAGES
        return fit_whitening(network, dataset, choices if shrinkage is None else (shrinkage,))


RECIPES: dict[str, type[Recipe]] = {"tutorial": TutorialRecipe, "modern": ModernRecipe}


def make_recipe(settings: Settings) -> Recipe:
    """Build the recipe that the settings name."""
    return RECIPES[settings.recipe](settings)
