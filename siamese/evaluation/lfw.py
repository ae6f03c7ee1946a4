"""Evaluate a face network by the standard protocol of Labeled Faces in the Wild."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

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
from siamese.wording import VERDICT_PROBABILITY

PHOTOGRAPHS_PER_BLOCK = 512
CLOSEST_IMPOSTORS = 30
MIN_QUALITY_SHARE = 0.002  # of the photographs have a lower quality than `Calibration.min_quality`


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
        calibration: the model's, with operating points that are measured on all impostor pairs.
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


def evaluate_lfw(
    model: Model,
    lfw: Lfw,
    folds: int | None = None,
    cache: bool = True,
    calibrations: Sequence[Calibration] | None = None,
) -> LfwResult:
    """Run View 2 of LFW, see `judge_lfw`, and measure operating points on all impostor pairs of its photographs.

    Args:
        model: a model that was not trained on people of LFW.
        lfw: the photographs and lists of pairs.
        folds: the number of folds to run, or None for all ten.
        cache: keep embeddings in `cache_folder()`, so that an interrupted run can continue.
        calibrations: one for each fold, not fitted on its people; None for the model's own.

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
    if seen := {person(file) for file in files} & known_seen(model.record.people):
        raise ValueError(f"the network was trained on {len(seen)} people of LFW; it cannot be tested on LFW")
    z, quality = embed_files(model, lfw.read(files), len(files), cache)
    known = None if model.network.reference_norm is None else quality
    scores = judge_lfw(z, parts, calibrations or [model.calibration] * folds, known)
    genuine = scores.scored.distance[scores.scored.same]
    impostor, closest = all_impostor_distances(z)
    width, genuine_counts, impostor_counts = metrics.histogram(genuine, impostor)
    return LfwResult(
        test=scores.folds.pooled,
        folds=scores.folds,
        curves=replace(scores.curves, width=width, genuine=genuine_counts, impostor=impostor_counts),
        calibration=replace(
            model.calibration,
            operating_points=calibration.measure_operating_points(genuine, impostor),
            min_quality=float(np.nanquantile(list(known.values()), MIN_QUALITY_SHARE)) if known else 0.0,
        ),
        protocol=replace(
            scores.protocol,
            impostor_pairs=len(impostor),
            default_fmr=default_fmr(z, known, model.calibration),
            closest_impostors=closest,
        ),
        scored=scores.scored,
    )


def judge_lfw(
    z: dict[str, np.ndarray],
    parts: list[list[LfwPair]],
    calibrations: Sequence[Calibration] = (),
    quality: dict[str, float] | None = None,
) -> LfwScores:
    """Compute the metrics of folds of LFW's pairs.

    The accuracy of a fold is that at the best threshold of all other folds; a single fold is judged at the threshold of
    its calibration. A pair with a missing face counts as different, with probability 0 and twice the largest distance,
    and is not used for fitting.

    Args:
        z: (D,) float embedding of each photograph; NaN if no face was found.
        parts: the folds.
        calibrations: one for each fold. If empty, they are fitted on the distances in all other folds.
        quality: quality of each photograph, in [0, 1]; None if it is not known.
    """
    scored, found = score_lfw(z, [pair for part in parts for pair in part], quality)
    fold = np.repeat(np.arange(len(parts)), [len(part) for part in parts])  # (P,)
    probability, each = np.empty(len(fold)), []
    for k in range(len(parts)):
        part, others = scored.select(fold == k), scored.select((fold != k) & found)
        fitted = calibrations[k] if calibrations else calibration.fit(others.distance, others.same)
        threshold = metrics.best_threshold(others.distance, others.same) if len(parts) > 1 else fitted.threshold
        probability[fold == k] = np.where(found[fold == k], fitted.probability(part.distance, part.quality), 0)
        accuracy = ((part.distance <= threshold) == part.same).mean()
        each.append(replace(part.report(probability[fold == k]), accuracy=float(accuracy)))
    accuracies = [report.accuracy for report in each]
    judged = probability[found]
    protocol = LfwProtocol(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        images=len(z),
        without_face=sum(bool(np.isnan(row).any()) for row in z.values()),
        default_fnmr=float((judged[scored.same[found]] < VERDICT_PROBABILITY).mean()),
        unsure=float(((judged > 1 - VERDICT_PROBABILITY) & (judged < VERDICT_PROBABILITY)).mean()),
    )
    return LfwScores(
        Folds(each, scored.report(probability)), scored.curves(probability), protocol, scored.select(found)
    )


def all_impostor_distances(z: dict[str, np.ndarray]) -> tuple[np.ndarray, list[tuple[str, str, float]]]:
    """Compare each photograph with all photographs of other people, block by block to limit memory.

    Args:
        z: see `judge_lfw`; rows of NaN are skipped.

    Returns:
        (I,) float32 distances, and the `CLOSEST_IMPOSTORS` closest pairs with their distances, closest first.
    """
    files = _with_face(z)
    distances, closest = [], []
    for block, d, impostor in _blocks(z):
        distances.append(d[impostor].numpy())
        count = min(CLOSEST_IMPOSTORS, int(impostor.sum()))
        values, cells = d.where(impostor, torch.inf).flatten().topk(count, largest=False)
        for value, cell in zip(values.tolist(), cells.tolist(), strict=True):
            row, column = divmod(cell, d.shape[1])
            closest.append((value, files[block + row], files[block + column]))
    closest = sorted(closest)[:CLOSEST_IMPOSTORS]
    return np.concatenate(distances), [(first, second, value) for value, first, second in closest]


def default_fmr(z: dict[str, np.ndarray], quality: dict[str, float] | None, judge: Calibration) -> float:
    """Return the share of all impostor pairs with the default verdict "same".

    Args:
        z: see `all_impostor_distances`.
        quality: quality of each photograph, in [0, 1]; None if it is not known.
        judge: the calibration.
    """
    known = np.array([quality[file] if quality else 1.0 for file in _with_face(z)])
    matches = total = 0
    for block, d, impostor in _blocks(z):
        row, column = impostor.nonzero(as_tuple=True)
        pairs = np.stack([known[block + row.numpy()], known[block + column.numpy()]], axis=1)
        probability = judge.probability(d[row, column].numpy(), pairs)
        matches, total = matches + int((probability >= VERDICT_PROBABILITY).sum()), total + len(row)
    return matches / total


def _with_face(z: dict[str, np.ndarray]) -> list[str]:
    return [file for file, row in z.items() if not np.isnan(row).any()]


def _blocks(z: dict[str, np.ndarray]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the distances of pairs of photographs with a face, each pair once.

    Yields:
        The number b of the first photograph of the block; distances (B, N - b) of the photographs from b to b + B from
        those from b on; and a mask of the same shape of the impostor pairs.
    """
    files = _with_face(z)
    names = [person(file) for file in files]
    _, numbers = np.unique([LFW_ALIASES.get(name, name) for name in names], return_inverse=True)
    embeddings, people = torch.from_numpy(np.stack([z[file] for file in files])), torch.from_numpy(numbers)
    for start in range(0, len(files), PHOTOGRAPHS_PER_BLOCK):
        block = slice(start, start + PHOTOGRAPHS_PER_BLOCK)
        impostor = (people[block, None] != people[start:]).triu(1)  # each pair once
        yield start, torch.cdist(embeddings[block], embeddings[start:]), impostor


def score_lfw(
    z: dict[str, np.ndarray], pairs: Sequence[LfwPair], quality: dict[str, float] | None = None
) -> tuple[Scored, np.ndarray]:
    """Return all pairs with their distances, and (P,) bool, whether both faces were found; see `judge_lfw`."""
    first = torch.from_numpy(np.stack([z[pair.first] for pair in pairs]))  # (P, D)
    second = torch.from_numpy(np.stack([z[pair.second] for pair in pairs]))  # (P, D)
    distances = distance(first, second).numpy()
    found = ~np.isnan(distances)
    distances[~found] = 2 * distances[found].max()
    number = {name: k for k, name in enumerate(sorted({person(file) for file in z}))}
    people = np.array([[number[person(file)] for file in (pair.first, pair.second)] for pair in pairs])
    same, qualities = np.array([pair.same for pair in pairs]), None
    if quality:
        qualities = np.array([(quality[pair.first], quality[pair.second]) for pair in pairs], np.float32)
    return Scored(distances, same, people, qualities), found


def person(file: str) -> str:
    """Return the name of the person on a photograph of LFW."""
    return file.partition("/")[0]
