"""Evaluate a face network by the standard protocol of Labeled Faces in the Wild."""

import json
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import torch

from siamese import calibration
from siamese.calibration import Calibration
from siamese.data.lfw import LFW_ALIASES, Lfw, LfwPair
from siamese.evaluation import metrics
from siamese.evaluation.embedding_cache import embed_files
from siamese.evaluation.pairs import Scored
from siamese.evaluation.people import known_seen
from siamese.model import Model
from siamese.network import distance
from siamese.record import Curves, Folds, LfwProtocol, Report

PHOTOGRAPHS_PER_BLOCK = 512
CLOSEST_IMPOSTORS = 30


class LfwScores(NamedTuple):
    """The result of `judge_lfw`.

    Attributes:
        folds: metrics of each fold, with its accuracy, and of all pairs.
        curves: of all pairs.
        protocol: accuracy over the folds.
        scored: the pairs in which both faces were found.
    """

    folds: Folds
    curves: Curves
    protocol: LfwProtocol
    scored: Scored


class LfwResult(NamedTuple):
    """The result of `evaluate_lfw`.

    Attributes:
        test: metrics of all pairs.
        folds: metrics of each fold, with its accuracy, and of all pairs.
        curves: of the genuine pairs and all impostor pairs.
        calibration: fitted on all pairs of the folds; its operating points are measured on all impostor pairs.
        protocol: accuracy over the folds, and the closest impostor pairs.
        scored: the pairs in which both faces were found.
    """

    test: Report
    folds: Folds
    curves: Curves
    calibration: Calibration
    protocol: LfwProtocol
    scored: Scored

    def to_json(self) -> str:
        """Return all of it but `scored` as JSON."""
        fields = ("test", "folds", "curves", "calibration", "protocol")
        return json.dumps({name: asdict(getattr(self, name)) for name in fields}, indent=1) + "\n"


def evaluate_lfw(model: Model, lfw: Lfw, folds: int | None = None, cache: bool = True) -> LfwResult:
    """Run View 2 of LFW, see `judge_lfw`, and measure operating points on all impostor pairs of its photographs.

    Args:
        model: a model that was not trained on people of LFW.
        lfw: the photographs and lists of pairs.
        folds: the number of folds to run, or None for all ten. A single fold is judged by the model's own calibration.
        cache: keep embeddings in `cache_folder()`, so that an interrupted run can continue.

    Raises:
        ValueError: if `folds` is out of range, the model was trained on people of LFW, or a photograph cannot be read.
        FileNotFoundError: if a photograph is missing.
    """
    parts = lfw.folds()
    folds = len(parts) if folds is None else folds
    if not 1 <= folds <= len(parts):
        raise ValueError(f"LFW has {len(parts)} folds: choose 1 to {len(parts)}, got {folds}")
    parts = parts[:folds]
    files = sorted({file for part in parts for pair in part for file in (pair.first, pair.second)})
    if seen := {_person(file) for file in files} & known_seen(model.record.people):
        raise ValueError(f"the network was trained on {len(seen)} people of LFW; it cannot be tested on LFW")
    z = embed_files(model, lfw.read(files), len(files), cache)
    scores = judge_lfw(z, parts, model.calibration)
    genuine = scores.scored.distance[scores.scored.same]
    impostor, closest = all_impostor_distances(z)
    width, genuine_counts, impostor_counts = metrics.histogram(genuine, impostor)
    return LfwResult(
        test=scores.folds.pooled,
        folds=scores.folds,
        curves=replace(scores.curves, width=width, genuine=genuine_counts, impostor=impostor_counts),
        calibration=replace(
            scores.scored.calibrate(), operating_points=calibration.measure_operating_points(genuine, impostor)
        ),
        protocol=replace(scores.protocol, impostor_pairs=len(impostor), closest_impostors=closest),
        scored=scores.scored,
    )


def judge_lfw(z: dict[str, np.ndarray], parts: list[list[LfwPair]], fallback: Calibration | None = None) -> LfwScores:
    """Compute the metrics of folds of LFW's pairs.

    The accuracy of a fold is that at the best threshold of all other folds, and its probabilities come from a
    calibration fitted on all other folds. A pair with a missing face counts as different, with probability 0 and twice
    the largest distance, and is not used for fitting.

    Args:
        z: (D,) float embedding of each photograph; NaN if no face was found.
        parts: the folds.
        fallback: the calibration that judges a single fold. Not used for several folds.
    """
    scored, found = _score(z, [pair for part in parts for pair in part])
    fold = np.repeat(np.arange(len(parts)), [len(part) for part in parts])  # (P,)
    probability, each = np.empty(len(fold)), []
    for k in range(len(parts)):
        judged, others = (Scored(*(column[rows] for column in scored)) for rows in (fold == k, (fold != k) & found))
        if len(parts) == 1 and fallback:
            fitted, threshold = fallback, fallback.threshold
        else:
            fitted = calibration.fit(others.distance, others.same)
            threshold = metrics.best_threshold(others.distance, others.same)
        probability[fold == k] = np.where(found[fold == k], fitted.probability(judged.distance), 0)
        accuracy = ((judged.distance <= threshold) == judged.same).mean()
        each.append(replace(judged.report(probability[fold == k]), accuracy=float(accuracy)))
    accuracies = [report.accuracy for report in each]
    protocol = LfwProtocol(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        images=len(z),
        without_face=sum(bool(np.isnan(row).any()) for row in z.values()),
    )
    both_found = Scored(*(column[found] for column in scored))
    return LfwScores(Folds(each, scored.report(probability)), scored.curves(probability), protocol, both_found)


def all_impostor_distances(z: dict[str, np.ndarray]) -> tuple[np.ndarray, list[tuple[str, str, float]]]:
    """Compare each photograph with all photographs of other people, block by block to limit memory.

    Args:
        z: see `judge_lfw`; rows of NaN are skipped.

    Returns:
        (I,) float32 distances, and the `CLOSEST_IMPOSTORS` closest pairs with their distances, closest first.
    """
    files = [file for file in z if not np.isnan(z[file]).any()]
    names = [_person(file) for file in files]
    _, numbers = np.unique([LFW_ALIASES.get(name, name) for name in names], return_inverse=True)
    embeddings, person = torch.from_numpy(np.stack([z[file] for file in files])), torch.from_numpy(numbers)
    distances, closest = [], []
    for start in range(0, len(files), PHOTOGRAPHS_PER_BLOCK):
        block = slice(start, start + PHOTOGRAPHS_PER_BLOCK)
        d = torch.cdist(embeddings[block], embeddings[start:])
        impostor = (person[block, None] != person[start:]).triu(1)  # each pair once
        distances.append(d[impostor].numpy())
        count = min(CLOSEST_IMPOSTORS, int(impostor.sum()))
        values, cells = d.where(impostor, torch.inf).flatten().topk(count, largest=False)
        for value, cell in zip(values.tolist(), cells.tolist(), strict=True):
            row, column = divmod(cell, d.shape[1])
            closest.append((value, files[start + row], files[start + column]))
    closest = sorted(closest)[:CLOSEST_IMPOSTORS]
    return np.concatenate(distances), [(first, second, value) for value, first, second in closest]


def _score(z: dict[str, np.ndarray], pairs: list[LfwPair]) -> tuple[Scored, np.ndarray]:
    """Return all pairs with their distances, and (P,) bool, whether both faces were found."""
    first = torch.from_numpy(np.stack([z[pair.first] for pair in pairs]))  # (P, D)
    second = torch.from_numpy(np.stack([z[pair.second] for pair in pairs]))  # (P, D)
    distances = distance(first, second).numpy()
    found = ~np.isnan(distances)
    distances[~found] = 2 * distances[found].max()
    number = {name: k for k, name in enumerate(sorted({_person(file) for file in z}))}
    people = np.array([[number[_person(file)] for file in (pair.first, pair.second)] for pair in pairs])
    return Scored(distances, np.array([pair.same for pair in pairs]), people), found


def _person(file: str) -> str:
    return file.partition("/")[0]
