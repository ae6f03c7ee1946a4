"""Fit and calibrate a face network on LFW's View 1, and judge it on View 2.

The network itself is not trained. A calibration that judges a fold of View 2 is fitted without the people in that fold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from siamese.calibration import Calibration
from siamese.data.lfw import Lfw, LfwPair
from siamese.evaluation import degraded
from siamese.evaluation.lfw import LfwResult, evaluate_lfw, person
from siamese.faces.detection import Landmarks
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.record import DataSource, People, Record, Source

GENUINE_STEP = 2  # every second genuine pair of View 1 is degraded to fit the calibration
IMPOSTORS_EACH = 5  # impostor pairs for each of their photographs
MIN_NORM_SPREAD = 0.01  # standard deviation of the norms by their median; below it, the norm says nothing


def fit(
    network: SiameseNetwork,
    template: Landmarks,
    lfw: Lfw,
    people: People,
    reference_norm: float | None = None,
    step: int = GENUINE_STEP,
) -> tuple[Model, list[Calibration]]:
    """Fit quality scores, the removal of nuisances and the calibration on untouched and degraded photographs of View 1.

    Args:
        network: a network without quality scores.
        people: that the network was trained on.
        reference_norm: see `SiameseNetwork`. None to measure it, and to use quality scores only if they help, see
            `quality_helps`.
        step: every `step`-th genuine pair of View 1 is used.

    Returns:
        The network with its calibration, and the calibrations for the folds of View 2. The model has no record yet.
    """
    pairs = fitting_pairs(lfw, step)
    features = degraded.embed_degraded(unmeasured(network, template, people), lfw, files_of(pairs))
    with_quality = add_quality(network, features, reference_norm)
    if reference_norm or quality_helps(network, with_quality, features, pairs):
        network = with_quality

    def calibrate(exclude: Collection[str] = (), with_people: bool = False) -> Calibration:
        kinds = degraded.degraded_pairs(network, features, without(pairs, exclude))
        # One curve of the distance cannot hold for good and for poor photos. Without quality, it is for good ones.
        return degraded.fit_calibration(kinds if network.reference_norm else kinds[:1], with_people)

    calibrations = [calibrate({person(file) for file in files_of(fold)}) for fold in lfw.folds()]
    model = unmeasured(network, template, people)
    model.calibration = calibrate(with_people=True)
    return model, calibrations


def judge(model: Model, lfw: Lfw, calibrations: Sequence[Calibration], source: Source) -> LfwResult:
    """Evaluate a network on View 2. Sets the record of the model, and adds operating points to its calibration."""
    result = evaluate_lfw(model, lfw, calibrations=calibrations)
    assert result.calibration, "evaluate_lfw sets it"
    model.calibration = result.calibration
    model.record = Record(
        data=DataSource("LFW, View 2", result.protocol.images),
        people=model.record.people,
        test=result.test,
        curves=result.curves,
        test_calibration=result.calibration,
        folds=result.folds,
        source=source,
        lfw=result.protocol,
    )
    return result


def fitting_pairs(lfw: Lfw, step: int = GENUINE_STEP) -> list[LfwPair]:
    """Return every `step`-th genuine pair of View 1, and random impostor pairs of their photographs."""
    genuine = [pair for pair in lfw.view1() if pair.same][::step]
    files, rng = np.array(files_of(genuine)), np.random.default_rng(0)
    drawn = [(str(first), str(second)) for first in files for second in rng.choice(files, IMPOSTORS_EACH)]
    return genuine + [LfwPair(*files, False) for files in drawn if person(files[0]) != person(files[1])]


@torch.inference_mode()
def add_quality(
    network: SiameseNetwork, features: degraded.DegradedFeatures, reference_norm: float | None = None
) -> SiameseNetwork:
    """Return the network with quality scores, and with the removal of nuisances from poor faces.

    By default, a face of quality 1 has at least the median norm of the untouched photographs.
    """
    nuisance = torch.from_numpy(degraded.nuisance_directions(features))  # (K, D)
    if reference_norm is None:
        untouched = torch.from_numpy(
            np.stack([row.embedding for row in features[degraded.UNTOUCHED].values()])
        )  # (N, D)
        kept = untouched - untouched @ nuisance.T @ nuisance
        reference_norm = float(torch.linalg.vector_norm(kept, dim=1).nanmedian())
    arguments: Any = network._hub_mixin_config
    changes = {"reference_norm": reference_norm, "nuisance_dim": len(nuisance)}
    made = SiameseNetwork(**arguments | changes).eval()
    made.backbone, made.nuisance = network.backbone, nuisance
    return made


def quality_helps(
    network: SiameseNetwork, with_quality: SiameseNetwork, features: degraded.DegradedFeatures, pairs: Sequence[LfwPair]
) -> bool:
    """Return whether the norm of the features improves the probabilities of pairs of other people.

    It cannot if all norms are the same. Else both networks are calibrated on one half of the people, and the log-loss
    of the pairs of the other half decides.
    """
    norms = np.linalg.norm([row.embedding for row in features[degraded.UNTOUCHED].values()], axis=1)
    if np.nanstd(norms) < MIN_NORM_SPREAD * np.nanmedian(norms):
        return False
    names = sorted({person(file) for file in files_of(pairs)})
    halves = set(names[::2]), set(names[1::2])

    def loss(tried: SiameseNetwork) -> float:
        kinds = [degraded.degraded_pairs(tried, features, without(pairs, half)) for half in halves]
        return sum(
            _log_loss(test, degraded.fit_calibration(fitted, with_people=False))
            for fitted, test in (kinds, kinds[::-1])
        )

    return loss(with_quality) < loss(network)


def _log_loss(kinds: Sequence[degraded.DegradedPairs], fitted: Calibration) -> float:
    """Return the mean log-loss of pairs. Kinds count as in `fit_calibration`, genuine and impostor pairs the same."""
    total = weights = 0.0
    for kind in kinds:
        score, same = fitted.log_odds(kind.scored.distance, kind.scored.quality), kind.scored.same
        each = np.logaddexp(0, np.where(same, -score, score))
        weight = degraded.UNTOUCHED_WEIGHT if kind.degradation == degraded.UNTOUCHED else 1.0
        total += weight * float(each[same].mean() + each[~same].mean()) / 2
        weights += weight
    return total / weights


def files_of(pairs: Iterable[LfwPair]) -> list[str]:
    """Return the photographs of pairs, sorted."""
    return sorted({file for pair in pairs for file in (pair.first, pair.second)})


def without(pairs: Iterable[LfwPair], people: Collection[str]) -> list[LfwPair]:
    """Return the pairs that show none of these people."""
    return [pair for pair in pairs if person(pair.first) not in people and person(pair.second) not in people]


def unmeasured(network: SiameseNetwork, template: Landmarks, people: People) -> Model:
    """Return a model that is not calibrated yet. Of its record, only the people are read before `judge` sets it."""
    record: Any = SimpleNamespace(people=people)
    return Model(network, Calibration(1.0, 1.0), record, "", template)
