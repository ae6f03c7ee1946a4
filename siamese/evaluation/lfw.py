"""Evaluate a face network by the standard protocol of Labeled Faces in the Wild."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from siamese import images
from siamese.calibration import LOWEST_SCORE, VERDICT_PROBABILITY, Calibration
from siamese.data.lfw import LFW_ALIASES, Lfw, LfwPair
from siamese.distributed import progress_bar
from siamese.evaluation import metrics
from siamese.evaluation.calibrate import fit_calibration, measure_operating_points
from siamese.evaluation.folder import known_seen
from siamese.evaluation.pairs import Scored
from siamese.model import Model
from siamese.network import distance
from siamese.record import Curves, Folds, LfwProtocol, Report

EMBEDDED_TOGETHER = 32  # photos
PHOTOS_PER_BLOCK = 512
CLOSEST_IMPOSTORS = 30


class LfwResult(NamedTuple):
    """Metrics of pairs of LFW: of each fold, with its accuracy, and pooled. `scored` are the pairs with two faces.

    `evaluate_lfw` adds what it measures on all impostor pairs: histograms, the calibration with operating points, and
    the closest impostor pairs.
    """

    folds: Folds
    curves: Curves
    protocol: LfwProtocol
    scored: Scored
    calibration: Calibration | None = None

    @property
    def test(self) -> Report:
        """The metrics of all pairs."""
        return self.folds.pooled

    def to_json(self) -> str:
        """Return all but `scored` as JSON."""
        fields = ("test", "folds", "curves", "calibration", "protocol")
        return json.dumps({name: asdict(getattr(self, name)) for name in fields}, indent=1) + "\n"


def evaluate_lfw(
    model: Model, lfw: Lfw, folds: int | None = None, calibrations: Sequence[Calibration] | None = None
) -> LfwResult:
    """Run View 2 of LFW, or its first `folds` folds, and measure operating points on all impostor pairs of its photos.

    The calibrations, one for each fold, must not be fitted on its people; by default all folds use the model's own.
    """
    parts = lfw.folds()
    folds = len(parts) if folds is None else folds
    if not 1 <= folds <= len(parts):
        raise ValueError(f"LFW has {len(parts)} folds: choose 1 to {len(parts)}, got {folds}")
    parts = parts[:folds]
    files = sorted({file for part in parts for pair in part for file in (pair.first, pair.second)})
    if seen := {person(file) for file in files} & known_seen(model.record.people):
        raise ValueError(f"the network was trained on {len(seen)} people of LFW; it cannot be tested on LFW")
    z, quality = embed_main_faces(model, lfw.read(files), len(files))
    known = None if model.network.reference_norm is None else quality
    judge = model.calibration
    result = judge_lfw(z, parts, calibrations or [judge] * folds, known)
    genuine = result.scored.select(result.scored.same)
    impostor, impostor_scores, closest = all_impostors(z, known, judge)
    width, genuine_counts, impostor_counts = metrics.histogram(genuine.distance, impostor)
    points = measure_operating_points(judge.score(genuine.distance, genuine.quality), impostor_scores)
    return result._replace(
        curves=replace(result.curves, width=width, genuine=genuine_counts, impostor=impostor_counts),
        calibration=replace(judge, operating_points=points),
        protocol=replace(
            result.protocol,
            impostor_pairs=len(impostor),
            default_fmr=float((impostor_scores >= judge.needed()).mean()),
            closest_impostors=closest,
        ),
    )


def embed_main_faces(
    model: Model, files: Iterable[tuple[str, bytes]], total: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the embedding (D,) and the quality of each photo by its name, see `Model.embed_with_quality`."""
    z: dict[str, np.ndarray] = {}
    quality: dict[str, float] = {}
    waiting = iter(progress_bar(files, total=total, unit=" images", desc="embedding"))
    while batch := list(islice(waiting, EMBEDDED_TOGETHER)):
        photos = []
        for name, content in batch:
            try:
                photos.append(images.read(content))
            except ValueError as error:
                raise ValueError(f"{name} cannot be read: {error}") from error
        for (name, _), row, value in zip(batch, *model.embed_with_quality(photos), strict=True):
            z[name], quality[name] = row, float(value)
    return z, quality


def judge_lfw(
    z: dict[str, np.ndarray],
    parts: list[list[LfwPair]],
    calibrations: Sequence[Calibration] = (),
    quality: dict[str, float] | None = None,
) -> LfwResult:
    """Compute the metrics of folds of LFW's pairs. The embeddings (D,) are NaN where no face was found.

    The accuracy of a fold is that at the best threshold of all other folds; a single fold is judged at the threshold of
    its calibration. Without calibrations, they are fitted on the distances in all other folds. A pair with a missing
    face counts as different, with probability 0 and twice the largest distance, and is not used for fitting.
    """
    scored, found = score_lfw(z, [pair for part in parts for pair in part], quality)
    fold = np.repeat(np.arange(len(parts)), [len(part) for part in parts])  # (P,)
    probability, score, each = np.empty(len(fold)), np.empty(len(fold)), []
    for k in range(len(parts)):
        part, others = scored.select(fold == k), scored.select((fold != k) & found)
        fitted = calibrations[k] if calibrations else fit_calibration(others.distance, others.same)
        threshold = metrics.best_threshold(others.distance, others.same) if len(parts) > 1 else fitted.threshold
        probability[fold == k] = np.where(found[fold == k], fitted.probability(part.distance, part.quality), 0)
        score[fold == k] = fitted.score(part.distance, part.quality)
        accuracy = ((part.distance <= threshold) == part.same).mean()
        each.append(replace(part.report(probability[fold == k]), accuracy=float(accuracy)))
    accuracies = [report.accuracy for report in each]
    missed = score[found] < LOWEST_SCORE
    protocol = LfwProtocol(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        images=len(z),
        without_face=sum(bool(np.isnan(row).any()) for row in z.values()),
        default_fnmr=float(missed[scored.same[found]].mean()),
        unsure=float((missed & (probability[found] > 1 - VERDICT_PROBABILITY)).mean()),
    )
    return LfwResult(
        Folds(each, scored.report(probability)), scored.curves(probability), protocol, scored.select(found)
    )


def all_impostors(
    z: dict[str, np.ndarray], quality: dict[str, float] | None, judge: Calibration
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str, float]]]:
    """Compare each photo that has a face with all photos of other people, block by block to limit memory.

    Returns (I,) float32 distances, (I,) float32 scores, and the `CLOSEST_IMPOSTORS` pairs with their distances.
    """
    files = [file for file, row in z.items() if not np.isnan(row).any()]
    names = [person(file) for file in files]
    people = torch.from_numpy(np.unique([LFW_ALIASES.get(name, name) for name in names], return_inverse=True)[1])
    embeddings = torch.from_numpy(np.stack([z[file] for file in files]))
    known = np.array([quality[file] if quality else 1.0 for file in files])
    distances, scores, closest = [], [], []
    for start in range(0, len(files), PHOTOS_PER_BLOCK):
        block = slice(start, start + PHOTOS_PER_BLOCK)
        d = torch.cdist(embeddings[block], embeddings[start:])  # (B, N - start)
        impostor = (people[block, None] != people[start:]).triu(1)  # each pair once
        row, column = (rows.numpy() for rows in impostor.nonzero(as_tuple=True))
        distances.append(d[impostor].numpy())
        pairs = np.stack([known[start + row], known[start + column]], axis=1)
        scores.append(judge.score(distances[-1], pairs).astype(np.float32))
        count = min(CLOSEST_IMPOSTORS, len(row))
        values, cells = d.where(impostor, torch.inf).flatten().topk(count, largest=False)
        for value, cell in zip(values.tolist(), cells.tolist(), strict=True):
            first, second = divmod(cell, d.shape[1])
            closest.append((value, files[start + first], files[start + second]))
    closest = sorted(closest)[:CLOSEST_IMPOSTORS]
    return np.concatenate(distances), np.concatenate(scores), [(first, second, d) for d, first, second in closest]


def score_lfw(
    z: dict[str, np.ndarray], pairs: Sequence[LfwPair], quality: dict[str, float] | None = None
) -> tuple[Scored, np.ndarray]:
    """Return all pairs with their distances, and (P,) bool, whether both faces were found."""
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
    """Return the name of the person on a photo of LFW."""
    return file.partition("/")[0]
