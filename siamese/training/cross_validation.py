"""Cross-validation over people."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from siamese import calibration
from siamese.calibration import Calibration
from siamese.data.dataset import IdentityDataset
from siamese.evaluation.pairs import Scored, score_all_pairs
from siamese.network import SiameseNetwork
from siamese.record import Folds, Report
from siamese.training.config import TrainConfig
from siamese.training.trainer import Log, fit


def cross_validate(
    start: SiameseNetwork,
    dataset: IdentityDataset,
    config: TrainConfig,
    device: torch.device,
    folder: Path,
    exclude: Collection[str] = (),
    log: Log | None = None,
) -> tuple[Folds, Calibration]:
    """Train one network per fold of people, and test it on the people that it has not seen.

    The probabilities of a fold come from a calibration that is fitted on all other folds.

    Args:
        start: the initial network of each fold.
        dataset: all people.
        config: the settings, with the number of folds.
        device: the device of this process.
        folder: an existing folder, for the checkpoints of the folds.
        exclude: people whose pairs are not used for the returned calibration.
        log: see `fit`.

    Returns:
        The metrics of the folds, with `before` if training starts from weights, and a calibration fitted on all folds.
    """
    scored, kept, before = [], [], []
    for k, (training, test) in enumerate(dataset.folds(config.folds)):
        file, title = folder / f"fold-{k}-of-{config.folds}.pt", f"fold {k + 1} of {config.folds}"
        network, _ = fit(start, training, config, device, file, title, log)
        test = test.subsample()
        # Each fold numbers its people from 0; the offset makes the numbers unique.
        offset = k * len(dataset.names)
        scored.append(_shift_people(score_all_pairs(network, test), offset))
        excluded = [offset + number for number, name in enumerate(test.names) if name in exclude]
        rows = ~np.isin(scored[-1].people, excluded).any(1)
        kept.append(scored[-1].select(rows))
        if config.init:
            before.append(_shift_people(score_all_pairs(deepcopy(start).to(device), test), offset))

    each, pooled = _report_folds(scored)
    return Folds(each, pooled, _report_folds(before)[1] if before else None), Scored.concatenate(kept).calibrate()


def _report_folds(folds: list[Scored]) -> tuple[list[Report], Report]:
    """Return the metrics of each fold and of all pairs together."""
    probabilities = []
    for k, fold in enumerate(folds):
        others = Scored.concatenate(folds[:k] + folds[k + 1 :])
        probabilities.append(calibration.fit(others.distance, others.same).probability(fold.distance))
    each = [fold.report(probability) for fold, probability in zip(folds, probabilities, strict=True)]
    return each, Scored.concatenate(folds).report(np.concatenate(probabilities))


def _shift_people(scored: Scored, offset: int) -> Scored:
    return scored._replace(people=scored.people + offset)
