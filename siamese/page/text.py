"""Describe a network in Markdown, from its record and its model card."""

from __future__ import annotations

import re

from siamese.checkpoint import find_weights
from siamese.model import Model
from siamese.record import Record
from siamese.wording import FACES, IMAGES, Vocabulary, one_in

LFW = "http://vis-www.cs.umass.edu/lfw/"
LAG = "[LAG](https://arxiv.org/abs/1602.06149)"
FIW = "[FIW](https://arxiv.org/abs/1604.02182)"
MTCNN = "https://arxiv.org/abs/1604.02878"

FACE_LIMITATIONS = """
- Expect more errors for twins and siblings, for faces in profile, for small, blurred or covered faces, and for groups
  of people with few photos in the training set.
- A photo of a photo is not detected.
- Do not identify strangers with this page, and do not use it as the only basis of an important decision.
"""
IMAGE_LIMITATIONS = """
- The network sees the whole image, resized to {width} × {height} pixels, so the object should be upright and fill the
  image.
- Expect more errors with other lighting, backgrounds and cameras than in the training images.
- Do not use this page as the only basis of an important decision.
"""
TRAIN_YOUR_OWN = """
## Train your own network

Run `siamese train --data FOLDER` on a folder with one subfolder of images per person or thing. To show the result on
this page, run `siamese page runs/FOLDER`. To publish both as a [Space](https://huggingface.co/spaces),
run `siamese deploy`.
"""
CREDITS = """
## Example photos

Portraits of Barack Obama and Joe Biden by the [White House](https://www.whitehouse.gov), of Eileen Collins by
[NASA](https://www.nasa.gov), and of Grace Hopper by the [US Navy](https://www.navy.mil). All are in the public domain.
"""


def introduction(model: Model, words: Vocabulary, notice: str = "") -> str:
    """Return the first paragraph of the page: what it does, what happens to uploads, and what the network knows.

    Args:
        model: the network of the page.
        words: what it compares.
        notice: a sentence about the network that every visitor should see.
    """
    paragraphs = [
        "Your photos are deleted within the hour and are not shared.",
        f"> **Note:** {notice}" if notice else "",
        f"This network was trained on images of {len(model.record.people.training)} {words.many}. Expect errors with "
        "other images."
        if words is IMAGES
        else "",
    ]
    return "\n\n".join(filter(None, paragraphs))


def performance(model: Model, words: Vocabulary) -> str:
    """Describe where the network fails, then its measured accuracy."""
    _, height, width = model.network.input_shape
    measured = zip(difficult_pairs(model.record), (LAG, FIW, LAG), strict=False)  # there are all sentences or none
    limitations = (
        "".join(f"\n- {sentence} Measured on {source}." for sentence, source in measured) + FACE_LIMITATIONS
        if words is FACES
        else IMAGE_LIMITATIONS.format(height=height, width=width)
    )
    paragraphs = ["## Where it fails", limitations, "## How accurate it is", _accuracy(model, words)]
    return "\n\n".join([*paragraphs, _operating_points(model)])


def background(model: Model, words: Vocabulary) -> str:
    """Describe how the network works and what it was trained on."""
    finds = f"The page finds and aligns the faces in each photo ([MTCNN]({MTCNN})). " if words is FACES else ""
    paragraphs = [
        "## How it works",
        f"{finds}The network **{model.id}** turns each {words.item} into a list of numbers, its embedding. The "
        "dissimilarity is the Euclidean distance between two embeddings.",
        _card_section(model, "Network"),
        _card_section(model, "Training data"),
        TRAIN_YOUR_OWN,
        CREDITS if words is FACES else "",
    ]
    return "\n\n".join(filter(None, paragraphs))


def difficult_pairs(record: Record) -> list[str]:
    """State how often the default verdict is wrong among children, within families, and between child and adult.

    Returns:
        One sentence each; empty if they were not measured with this network.
    """
    rates = record.difficult_pairs
    if rates is None:
        return []
    return [
        f'By default, {rates.children_fmr:.0%} of the pairs of two different children are wrongly called "same".',
        f'By default, {rates.family_fmr:.0%} of the pairs of two members of one family are wrongly called "same".',
        f"By default, {rates.child_adult_fnmr:.0%} of the pairs of a child and the same person as an adult are missed.",
    ]


def _accuracy(model: Model, words: Vocabulary) -> str:
    record = model.record
    report = record.folds.pooled if record.folds else record.test
    if record.lfw:
        return (
            f"[LFW]({LFW}) is a benchmark with {record.lfw.images:,} photos of public figures. The network "
            f"classifies {record.lfw.accuracy:.1%} of its pairs correctly. The predicted probabilities differ from "
            f"the observed ones by {report.calibration_error:.1%} on average."
        )
    people = record.people
    tested = len(people.test) + (len(people.training) if record.folds else 0)
    start = f", starting from the weights {record.settings.init}" if record.settings and record.settings.init else ""
    return (
        f"The network was trained on images of {len(people.training)} {words.many}{start}. It was "
        f"tested on {tested} {words.many} that were not in the training set. There, a pair of {words.same} is more "
        f"alike than a pair of {words.different} in {report.auc:.1%} of cases (ROC AUC)."
    )


def _operating_points(model: Model) -> str:
    if not model.calibration.operating_points:
        return ""
    rows = "\n".join(
        f"| {one_in(point.fmr)} | {point.distance:.2f} | {point.fnmr:.1%} |"
        for point in model.calibration.operating_points
    )
    return f"| false-match rate | threshold | matches missed |\n|---|---|---|\n{rows}"


def _card_section(model: Model, heading: str) -> str:
    """Return a section of the model card of converted weights, with its heading; empty if there is none."""
    card = find_weights(model.name) / "README.md"
    if not (model.record.source and card.is_file()):
        return ""
    section = re.search(rf"^## {heading}\n+(.*?)\s*(?=^## |\Z)", card.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return f"## {heading}\n\n{section[1]}" if section else ""
