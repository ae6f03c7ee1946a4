"""Measure on some of the classes what to start from: the image network as it is, or a network trained from scratch."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from siamese.data.dataset import TEST_SHARE, IdentityDataset, draw_people, load_dataset
from siamese.data.folders import LabelledFiles, list_people
from siamese.distributed import broadcast_object
from siamese.evaluation import metrics
from siamese.evaluation.pairs import score_all_pairs
from siamese.network import SiameseNetwork
from siamese.record import Settings
from siamese.training.recipes import make_recipe
from siamese.training.trainer import Job, Trainer

MAX_IMAGES, MAX_IMAGES_EACH = 2000, 100  # of all these classes, and of each
VALIDATION_SHARE = 4  # one of four classes is for the comparison of the candidates
MIN_CLASSES = 4  # to compare them at all
EPOCHS, MIN_BATCHES = 2, 200  # of the network from scratch; the larger one counts


def measure(
    source: Path,
    frozen: tuple[Settings, SiameseNetwork],
    scratch: tuple[Settings, SiameseNetwork],
    device: torch.device,
    progress: bool = True,
) -> tuple[float, float, int] | None:
    """Return the equal error rates of both candidates on classes that they have not seen, and the number of classes.

    They get only some of the training classes, and the network from scratch only some of its epochs. Its early error is
    enough to know which is better: it mostly differs several times from that of the image network.
    """
    classes = draw_classes(list_people(source), scratch[0].seed)
    if len(classes.names) < MIN_CLASSES:
        return None
    errors = []
    for settings, start in (frozen, scratch):
        dataset = load_dataset(source, start.input_shape, progress=False, people=classes)
        validation = draw_people(dataset.names, VALIDATION_SHARE, settings.seed)
        training, test = dataset.select(set(dataset.names) - validation), dataset.select(validation)
        network = _train(settings, start, training, device, progress)
        scored = score_all_pairs(network, test)
        errors.append(metrics.eer(scored.distance, scored.same))
    return broadcast_object((errors[0], errors[1], len(validation)))


def draw_classes(folders: LabelledFiles, seed: int) -> LabelledFiles:
    """Draw classes that are not held out for the test, and images of them. At least `MIN_CLASSES`, if there are."""
    test = folders.test_names or draw_people(folders.names, TEST_SHARE, seed)
    others = np.array([row for row, name in enumerate(folders.names) if name not in test], dtype=int)
    rows = np.random.default_rng(seed).permutation(others)
    total = np.array(folders.counts)[rows].clip(max=MAX_IMAGES_EACH).cumsum()
    count = max(MIN_CLASSES, np.searchsorted(total, MAX_IMAGES, "right"))
    return folders.sample({folders.names[row] for row in rows[:count]}, MAX_IMAGES_EACH)


def _train(
    settings: Settings, start: SiameseNetwork, training: IdentityDataset, device: torch.device, progress: bool
) -> SiameseNetwork:
    if settings.epochs:
        batches = len(make_recipe(settings).epoch_batches(training.identity, 0))
        settings = replace(settings, epochs=min(settings.epochs, max(EPOCHS, math.ceil(MIN_BATCHES / batches))))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(start, settings, device, Path(folder), progress=progress)
        return Trainer(job, training, "trying from scratch").train()[0]
