"""A network and people it has not seen → distances of pairs, and how well they tell people apart."""

import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from siamese.calibration import Calibration, measure_operating_points
from siamese.calibration import fit as fit_calibration
from siamese.data import dataset as data
from siamese.data.sources import LFW_ALIASES, Lfw, LfwPair
from siamese.evaluation import metrics
from siamese.evaluation.embedding_cache import embed_files
from siamese.evaluation.pairs import Scored, score_all_pairs
from siamese.model import Model
from siamese.network import distance
from siamese.training import trainer as loop
from siamese.training.config import TrainConfig

UNNAMED = (
    "note: not all whom this network, or the weights that it began from, has seen are known by name. If some of those "
    "here are among them, it looks better than it is."
)


def evaluate_folder(model: Model, source: str | Path, folds: int = 0) -> tuple[list[str], dict]:
    """Measure a network on the people of a data set (see `data.load`) whom it was not trained on.

    A network that was pushed does not name whom it was trained on. In the very same data they are known by their
    places; with other data a note on stderr says that they are not.

    Args:
        model: any; pictures are taken as it takes them, whole or by their faces.
        source: see `data.load`.
        folds: also train this many networks by the same recipe, each tested on people it has not seen.

    Returns:
        The people, and `test`, `curves` and `folds` as in metrics.json.

    Raises:
        ValueError: where fewer than 2 such people are left, or the model has no recipe to train by.
    """
    record, people = model.record, model.record["people"]
    dataset = data.load(source, model.network.input_shape, model.align)
    if _numbered(people) and dataset.fingerprint() == record["data"]["sha256"]:
        order = sorted(dataset.names)
        people = {side: numbers and [order[number] for number in numbers] for side, numbers in people.items()}
    seen = _seen(people)
    unseen = [name for name in dataset.names if name not in seen]
    if len(unseen) < 2:
        raise ValueError(f"the network was trained on people of these names; of {source} only {len(unseen)} are left")
    calibration = model.calibration
    if _numbered(people) or set(unseen) & set(people["test"]):
        calibration = Calibration.from_dict(record["test_calibration"])  # the other one may rest on these people
    scored = score_all_pairs(model.network, dataset.select(unseen).subsample())
    probability = calibration.probability(scored.distance)
    result = {"test": scored.report(probability), "curves": scored.curves(probability), "folds": None}
    if folds:
        if not (record["recipe"] and "recipe" in record["recipe"]):
            raise ValueError(f"{model.name} was not trained by this version: there is no recipe to train folds by")
        with tempfile.TemporaryDirectory() as folder:
            config = TrainConfig(data=str(source), out=Path(folder), folds=folds, **record["recipe"])
            start, _ = loop.first_network(config)
            result["folds"], _ = loop.cross_validate(start, dataset, config, model.network.device, config.out)
    return unseen, result


class LfwResult(NamedTuple):
    """What the standard protocol of LFW gives.

    Attributes:
        record: `test`, `curves` (with all impostor pairs), `test_calibration` and `folds` as in metrics.json; `folds`
            also has the protocol's `accuracy` and `accuracy_std`, `images`, and `without_face`, how many of these.
            `impostor_pairs`: how many pairs of different people the thresholds rest on.
            `closest_impostors`: photographs of the thirty closest pairs of different people, and their distances.
            `test_calibration` is fitted on all folds that were run, with the thresholds at `calibrate.RATES`.
        scored: the pairs.
    """

    record: dict
    scored: Scored


def evaluate_lfw(model: Model, lfw: Lfw, folds: int | None = None, cache: bool = True) -> LfwResult:
    """Run LFW's View 2, see `judge_lfw`, and find the thresholds at `calibrate.RATES`.

    Args:
        model: trained on other people than LFW's.
        lfw: the photographs and lists.
        folds: how many of the ten to run, or None for all; one alone is judged by the calibration that came with the
            model.
        cache: keep embeddings in `datasets.cache_folder`, so that a run that was stopped goes on where it was.

    Raises:
        ValueError: for a number of folds that is not 1 to 10, or a photograph that cannot be read; it is named.
        FileNotFoundError: for a photograph that is missing; it is named.
    """
    parts = lfw.folds()
    folds = len(parts) if folds is None else folds
    if not 1 <= folds <= len(parts):
        raise ValueError(f"LFW has {len(parts)} folds: run 1 to {len(parts)} of them, got {folds}")
    files = sorted({file for part in parts[:folds] for pair in part for file in pair[:2]})
    if trained_on := {_person(file) for file in files} & _seen(model.record["people"]):
        raise ValueError(f"the network was trained on {len(trained_on)} of these people, so they cannot judge it")
    z = embed_files(model, lfw.read(files), len(files), cache)
    record, scored = judge_lfw(z, parts[:folds], model.calibration)
    distances, closest = _everybody(z)
    points = measure_operating_points(scored.distance[scored.same], distances)
    calibration = replace(scored.calibrate(), operating_points=points)
    # What the thresholds rest on is what is drawn.
    record["curves"] |= metrics.histogram(scored.distance[scored.same], distances)
    record |= {
        "test_calibration": asdict(calibration),
        "impostor_pairs": len(distances),
        "closest_impostors": closest,
    }
    return LfwResult(record, scored)


def judge_lfw(
    z: dict[str, np.ndarray], parts: list[list[LfwPair]], otherwise: Calibration | None = None
) -> tuple[dict, Scored]:
    """Measure embeddings on folds of LFW's pairs.

    The `accuracy` of a fold is at the threshold that is best on all others; its probabilities come from a calibration
    on all others. A fold alone is judged by `otherwise`, which may have seen it. A pair in which a face was not found
    counts as furthest apart and as surely different, and is left out where something is fitted.

    Args:
        z: (D,) float for each photograph; NaN where no face was found.
        parts: folds of pairs.
        otherwise: what to judge a single fold by.

    Returns:
        `test`, `curves` and `folds` of an `LfwResult.record`, and the pairs in which both faces were found.
    """
    pairs = [pair for part in parts for pair in part]
    first, second = (torch.from_numpy(np.stack([z[pair[side]] for pair in pairs])) for side in (0, 1))
    distances = distance(first, second).numpy()
    known = ~np.isnan(distances)
    distances[~known] = 2 * distances[known].max()
    number = {name: k for k, name in enumerate(sorted({_person(file) for file in z}))}
    people = np.array([[number[_person(file)] for file in pair[:2]] for pair in pairs])
    scored = Scored(distances, np.array([pair.same for pair in pairs]), people)

    fold = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    probability, each = np.empty(len(pairs)), []
    for k in range(len(parts)):
        judged, rest = (Scored(*(column[rows] for column in scored)) for rows in (fold == k, (fold != k) & known))
        if len(parts) > 1:
            calibration, threshold = fit_calibration(*rest[:2]), metrics.best_threshold(*rest[:2])
        else:
            calibration, threshold = otherwise, otherwise.threshold
        probability[fold == k] = np.where(known[fold == k], calibration.probability(judged.distance), 0)
        accuracy = ((judged.distance <= threshold) == judged.same).mean()
        each.append(judged.report(probability[fold == k]) | {"accuracy": float(accuracy)})
    accuracies = [report["accuracy"] for report in each]
    pooled = scored.report(probability)
    folds = {
        "each": each,
        "pooled": pooled,
        "accuracy": float(np.mean(accuracies)),
        "accuracy_std": float(np.std(accuracies)),
        "images": len(z),
        "without_face": sum(bool(np.isnan(row).any()) for row in z.values()),
    }
    return {"test": pooled, "folds": folds, "curves": scored.curves(probability)}, Scored(
        *(column[known] for column in scored)
    )


def _everybody(z: dict[str, np.ndarray]) -> tuple[np.ndarray, list[tuple[str, str, float]]]:
    """Compare each photograph with all photographs of other people, a block at a time."""
    files = [file for file in z if not np.isnan(z[file]).any()]
    names = [_person(file) for file in files]
    _, person = np.unique([LFW_ALIASES.get(name, name) for name in names], return_inverse=True)
    embeddings, person = torch.from_numpy(np.stack([z[file] for file in files])), torch.from_numpy(person)
    distances, closest = [], []
    for start in range(0, len(files), 512):
        block = slice(start, start + 512)
        each = torch.cdist(embeddings[block], embeddings[start:])
        # Each pair once: the second photograph comes after the first.
        other = (person[block, None] != person[start:]).triu(1)
        distances.append(each[other].numpy())
        near = each.where(other, torch.inf).flatten().topk(min(30, each.numel()), largest=False)
        closest += [
            (float(value), files[start + int(row) // each.shape[1]], files[start + int(row) % each.shape[1]])
            for value, row in zip(*near, strict=True)
        ]
    return np.concatenate(distances), [(first, second, value) for value, first, second in sorted(closest)[:30]]


def seen_by(people: dict) -> list[str] | None:
    """Return whom a network has seen, itself or by the weights that it began from; None where not all are known by
    name.

    Args:
        people: of its metrics.json.
    """
    before = people.get("pretraining", [])
    return None if _numbered(people) or before is None else people["training"] + before


def _seen(people: dict) -> set[str]:
    """Return who of them is known to have been seen, with a note on stderr where there may be others."""
    if (seen := seen_by(people)) is None:
        print(UNNAMED, file=sys.stderr)
    return set(people["training"] if seen is None else seen)


def _numbered(people: dict) -> bool:
    """Whether the names of the people were left out when the network was pushed, see `hub.push`."""
    return any(isinstance(person, int) for person in people["training"])


def _person(file: str) -> str:
    return file.partition("/")[0]
