"""Say how good a result is, what to be careful about, and which commands come next."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import numpy as np

from siamese.record import Record

# A balanced accuracy of at least so much gets this word. Guessing has 0.5.
WORDS = ((0.99, "very good"), (0.95, "good"), (0.85, "fair"), (0.7, "weak"), (0.0, "poor"))
# Held out. At a balanced accuracy of 93 %, 95 % of random draws of ten people are within 5 percentage points of it, and
# of three people within 13 (AT&T with the modern recipe, CFP with the face network).
MIN_TEST_PEOPLE = 10
MIN_AUC = 0.8
COLLAPSED_SPREAD = 0.02  # of the largest distance: range of all distances
COLLAPSED_DISTANCE = 0.01  # of the margin: largest distance
DIVERGED_DISTANCE = 10  # margins: mean distance of impostor pairs


def summarise(record: Record, out: Path) -> str:
    """Describe a new result: how good it is, warnings, and commands that can be pasted into a shell.

    The number is the balanced accuracy at P(same) = 0.5: how many decisions are right if pairs of the same person and
    of different people are equally frequent. With folds it is that of all folds, else that of the held-out people. The
    calibration was fitted on other people, so without folds the number is rather too low than too high.
    """
    folds, people = record.folds, record.identities
    report, before = (folds.pooled, folds.before) if folds else (record.test, record.before)
    who = f"all {_count(record)} {people}, each held out once," if folds else f"{_count(record)} held-out {people}"
    word = next(word for least, word in WORDS if report.balanced_accuracy >= least)
    lines = [f"Tells {who} apart {_percent(report.balanced_accuracy)} of the time (guessing: 50%): {word}."]
    if before:
        lines.append(f"Before training: {_percent(before.balanced_accuracy)}.")
    lines += [f"Warning: {warning}" for warning in warnings(record)]
    return "\n".join([*lines, "", f"Written to {out}. README.md in it has all measurements. Next:", *_commands(out)])


def warnings(record: Record) -> list[str]:
    """Return the reasons to distrust a result: too few held-out people, collapsed embeddings, or a low AUC."""
    people, found = record.identities, []
    if (count := _count(record)) < MIN_TEST_PEOPLE:
        enough = len(record.people.training) + len(record.people.test) >= MIN_TEST_PEOPLE
        advice = "add --folds 5 to hold out each of them once" if enough else f"collect more {people}"
        found.append(
            f"{count} {people} are too few to measure this well. With others it can be very different; {advice}."
        )
    report = record.folds.pooled if record.folds else record.test
    if has_collapsed(record):
        found.append(
            "the embeddings have collapsed: all images have nearly the same distance. Train with a lower --lr, and "
            "check that the images differ."
        )
    elif report.auc < MIN_AUC and has_diverged(record):
        found.append("training has diverged: the distances are far above the margin. Train with a lower --lr.")
    elif report.auc < MIN_AUC:
        found.append(
            f"the network hardly tells {people} apart (AUC {report.auc:.2f}; guessing has 0.5). Check that each folder "
            f"shows one of them, and collect more {people} and more images of each."
        )
    return found


def has_collapsed(record: Record) -> bool:
    """Return whether the distances of all test pairs are nearly equal, or far below the margin of the loss."""
    assert record.settings  # only converted weights have none
    curves, margin = record.curves, record.settings.margin
    occupied = np.flatnonzero(np.add(curves.genuine, curves.impostor))  # bins
    largest = curves.width * len(curves.genuine)
    return bool(np.ptp(occupied) < COLLAPSED_SPREAD * len(curves.genuine) or largest < COLLAPSED_DISTANCE * margin)


def has_diverged(record: Record) -> bool:
    """Return whether the distances of impostor pairs are far above the margin, beyond which their loss is zero."""
    assert record.settings  # only converted weights have none
    return record.test.mean_impostor > DIVERGED_DISTANCE * record.settings.margin


def _count(record: Record) -> int:
    """Return the number of people that the result was measured on."""
    return len(record.people.test) + (len(record.people.training) if record.folds else 0)


def _percent(share: float) -> str:
    """Format a share, rounded down to a tenth of a percent, so that only a perfect result has 100%."""
    return f"{math.floor(1000 * share + 1e-9) / 10:g}%"


def _commands(out: Path) -> list[str]:
    folder = shlex.quote(str(out))
    return [
        f"  siamese compare A.jpg B.jpg --weights {folder}",
        f"  siamese page {folder}",
        f"  siamese push {folder} USER/NAME",
        f"  siamese deploy USER/SPACE --weights {folder}",
    ]
