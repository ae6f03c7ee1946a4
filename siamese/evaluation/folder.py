"""Evaluate a network on people that it was not trained on."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from siamese.data.dataset import load_dataset
from siamese.evaluation.pairs import score_all_pairs
from siamese.model import Model
from siamese.record import Curves, People, Report

UNKNOWN_NAMES_NOTE = (
    "note: not all people that this network, or the weights it started from, was trained on are known by name. If some "
    "of the test people are among them, the result is too good."
)


class FolderResult(NamedTuple):
    """The people that a network was tested on, and metrics and curves of their pairs."""

    names: list[str]
    test: Report
    curves: Curves

    def to_json(self) -> str:
        """Return all of it as JSON."""
        content = {"names": self.names, "test": asdict(self.test), "curves": asdict(self.curves)}
        return json.dumps(content, indent=1) + "\n"


def evaluate_folder(model: Model, source: str | Path) -> FolderResult:
    """Evaluate a network on the people of a data set that it was not trained on.

    A published network does not name its training people. If `source` is the data set that it was trained on, they are
    known by their numbers. Otherwise `UNKNOWN_NAMES_NOTE` is printed on stderr.
    """
    record, people = model.record, model.record.people
    dataset = load_dataset(source, model.network.input_shape, model.template)
    if people.anonymous and dataset.fingerprint() == record.data.sha256:
        people = _with_names(people, sorted(dataset.names))
    seen = known_seen(people)
    names = [name for name in dataset.names if name not in seen]
    if len(names) < 2:
        raise ValueError(f"a test needs 2 people that the network was not trained on; {source} has {len(names)}")
    scored = score_all_pairs(model.network, dataset.select(names).subsample())
    calibration = model.calibration
    if set(names) & set(people.test):
        calibration = record.test_calibration  # the model's own may be fitted on these people
    probability = calibration.probability(scored.distance, scored.quality) if calibration else scored.cross_fit()
    return FolderResult(names, scored.report(probability), scored.curves(probability))


def known_seen(people: People) -> set[str]:
    """Return the names that a network is known to have been trained on, and print a note if there may be others."""
    if people.seen is None:
        print(UNKNOWN_NAMES_NOTE, file=sys.stderr)
        return {name for name in people.training if isinstance(name, str)}
    return set(people.seen)


def _with_names(people: People, order: list[str]) -> People:
    """Replace numbers by names, the reverse of `Record.anonymise`."""

    def to_names(numbers: list[str] | list[int]) -> list[str]:
        return [order[int(number)] for number in numbers]

    before = people.pretraining
    return People(to_names(people.training), to_names(people.test), before if before is None else to_names(before))
