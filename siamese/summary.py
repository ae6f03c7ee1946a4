"""Say how good a trained network is, and why to distrust that, in the same words in the shell, card and page."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import numpy as np

from siamese.calibration import FALSE_MATCH_RATES, MIN_FALSE_MATCHES, Calibration
from siamese.record import MIN_JUDGED, Record, Report
from siamese.wording import listed, one_in

# A balanced accuracy of at least so much gets this word. Guessing has 0.5.
WORDS = ((0.99, "very good"), (0.95, "good"), (0.85, "fair"), (0.7, "weak"), (0.6, "poor"), (0.0, "useless"))
# Held out. At a balanced accuracy of 93 %, 95 % of random draws of ten people are within 5 percentage points of it, and
# of three people within 13 (AT&T with the modern recipe, CFP with the face network).
MIN_TEST_PEOPLE = 10
MIN_AUC, USELESS_AUC = 0.8, 0.6
COLLAPSED_SPREAD = 0.02  # of the largest distance: range of all distances
COLLAPSED_DISTANCE = 0.01  # of the margin: largest distance
DIVERGED_DISTANCE = 10  # margins: mean distance of impostor pairs
FACE_LIMITATIONS = (
    "Expect more errors for twins and siblings, for faces in profile, for small, blurred or covered faces, and for "
    "groups of people with few photos in the training set.",
    "A photo of a printed photo or of a screen is accepted as a real face.",
    "Do not use it to identify strangers, or as the only basis of an important decision.",
)
IMAGE_LIMITATIONS = (
    "The network sees the whole image, resized to its input, so the object should be upright and fill the image.",
    "Expect more errors with other lighting, backgrounds and cameras than in the training images.",
    "Do not use it as the only basis of an important decision.",
)
PICTURES = {  # of a result folder
    "pairs.png": "ten test pairs, each with its dissimilarity",
    "hardest.png": "the ten hardest of all test pairs",
    "loss.png": "the loss during training",
    "map.png": "the two numbers of each embedding as a point",
    "roc.png": "the true matches at each false-match rate",
    "distances.png": "the dissimilarities of all test pairs",
}


def summarise(record: Record, calibration: Calibration, out: Path) -> str:
    """Describe a new result: how good it is, warnings, its pictures, and commands that can be pasted into a shell."""
    pictures = [f"  {name:13}  {text}" for name, text in PICTURES.items() if (out / name).exists()]
    lines = (
        *(describe_accuracy(record), describe_rates(record, calibration)),
        *(f"Warning: {warning}" for warning in warnings(record)),
        *("", f"Written to {out}, with these pictures. README.md in it has all measurements.", *pictures),
        *("", "Next:", *_commands(out)),
    )
    return "\n".join(lines)


def describe_accuracy(record: Record) -> str:
    """Say how well a trained network tells people or classes apart that it was not trained on, in one or two sentences.

    The number is the balanced accuracy at P(same) = 0.5: how many decisions are right if pairs of the same person and
    of different people are equally frequent. With folds it is that of all folds, else that of the held-out people. Of
    fewer than `MIN_JUDGED` of them it is not known.
    """
    folds, people = record.folds, record.identities
    report, before = (folds.pooled, folds.before) if folds else (record.test, record.before)
    who = f"all {_count(record)} {people}, each held out once," if folds else f"{_count(record)} held-out {people}"
    if report.balanced_accuracy is None:
        text = (
            f"On {who}, the AUC is {report.auc:.3f} and the equal error rate {report.eer:.1%} (guessing: 0.5 and 50%). "
            f"How often it is right cannot be known: that takes at least {MIN_JUDGED} held-out {people}."
        )
        return text + (f" Before training: {before.auc:.3f} and {before.eer:.1%}." if before else "")
    word = next(word for least, word in WORDS if report.balanced_accuracy >= least)
    text = f"Tells {who} apart {_percent(report.balanced_accuracy)} of the time (guessing: 50%): {word}."
    if record.unchanged:
        return f"{text} Training did not improve this, so the weights are as they were."
    if before and before.balanced_accuracy is not None:
        text += f" Before training: {_percent(before.balanced_accuracy)}."
    return text


def describe_rates(record: Record, calibration: Calibration) -> str:
    """Say which false-match rates a trained network offers, and how many more people or classes the next one takes."""
    rates = [point.fmr for point in calibration.operating_points]
    text = f"False-match rates to choose from: {listed([one_in(rate) for rate in rates]) if rates else 'none'}."
    following = [rate for rate in FALSE_MATCH_RATES if rate < min(rates, default=1)]
    if following and (more := _more_identities(record, following[0])) > 0:
        text += f" {one_in(following[0])} takes about {more:,} more {record.identities}, with as many images each."
    return text


def _more_identities(record: Record, rate: float) -> int:
    """Return how many more identities it takes to measure a rate; the impostor pairs grow with the square of them."""
    training, count = len(record.people.training), len(record.people.training) + len(record.people.test)
    # With folds, the rates are measured without the held-out people.
    impostor = measured(record).impostor * ((training / count) ** 2 if record.folds else 1)
    return math.ceil(count * (math.sqrt(MIN_FALSE_MATCHES / rate / impostor) - 1))


def measured(record: Record) -> Report:
    """Return the metrics of all people or classes that were held out."""
    return record.folds.pooled if record.folds else record.test


def limitations(record: Record, faces: bool) -> list[str]:
    """Return sentences about where a network fails that compares faces, or whole images."""
    inherited = [record.source.limitations] if record.source and record.source.limitations else []
    return [*inherited, *(FACE_LIMITATIONS if faces else IMAGE_LIMITATIONS)]


def warnings(record: Record) -> list[str]:
    """Return the reasons to distrust a result: too few held-out people, collapsed embeddings, or a low AUC."""
    people, found = record.identities, []
    if (count := _count(record)) < MIN_TEST_PEOPLE:
        enough = len(record.people.training) + len(record.people.test) >= MIN_TEST_PEOPLE
        advice = "add --folds 5 to hold out each of them once" if enough else f"collect more {people}"
        found.append(
            f"{count} {people} are too few to measure this well. With others it can be very different; {advice}."
        )
    auc = measured(record).auc
    if has_collapsed(record):
        found.append(
            "the embeddings have collapsed: all images have nearly the same distance. Train with a lower --lr, and "
            "check that the images differ."
        )
    elif auc < MIN_AUC and has_diverged(record):
        found.append("training has diverged: the distances are far above the margin. Train with a lower --lr.")
    elif auc < MIN_AUC:
        found.append(
            f"the network {'hardly tells' if auc >= USELESS_AUC else 'is useless: it does not tell'} {people} apart "
            f"(AUC {auc:.2f}; guessing has 0.5). Check that each folder shows one of them, and collect more {people} "
            "and more images of each."
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
