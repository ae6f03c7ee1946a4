"""The About tab: a description of the network, and a map of the embeddings of the tutorial network."""

import colorsys
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from siamese import images, summary
from siamese.checkpoint import find_weights, public_name
from siamese.faces.detection import MAX_PHOTO_SIDE, Box
from siamese.images import data_uri
from siamese.model import Model
from siamese.record import Plane, Record
from siamese.wording import FACES, IMAGES, Vocabulary, one_in

PAPER = "https://proceedings.neurips.cc/paper/1993/hash/288cc0ff022877bd3df94bc9360b9c5d-Abstract.html"
LFW = "http://vis-www.cs.umass.edu/lfw/"
LAG = "[LAG](https://arxiv.org/abs/1602.06149)"
FIW = "[FIW](https://arxiv.org/abs/1604.02182)"
RETINAFACE = "https://arxiv.org/abs/1905.00641"

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


def description(words: Vocabulary) -> str:
    """Say in one sentence what a Siamese network measures."""
    return f"A Siamese network measures how different two {words.item}s are"


def model_card(model: Model) -> Path | None:
    """Return the card of converted weights in a folder, which names nobody; None for other networks."""
    card = (find_weights(model.name) / "README.md").resolve()
    return card if model.record.source and card.is_file() else None


def introduction(model: Model, words: Vocabulary, notice: str = "") -> str:
    """Say what the network measures, what happens to uploads, and what every visitor should know."""
    links = {"paper": PAPER}
    if model.revision:
        links["model card"] = f"https://huggingface.co/{model.name}"
    elif card := model_card(model):
        links["model card"] = f"gradio_api/file={card}"
    if space := os.environ.get("SPACE_ID"):
        links["code"] = f"https://huggingface.co/spaces/{space}/tree/main"
    linked = ", ".join(f"[{name}]({address})" for name, address in sorted(links.items()))
    paragraphs = [
        f"# Siamese: compare {words.item}s",
        f"{description(words)} ({linked}). {words.photo.capitalize()}s are kept about half an hour, never shared.",
    ]
    if notice:
        paragraphs.append(f"> **Note:** {notice}")
    record, notes = model.record, []
    if words is IMAGES:
        made = "Trained" if record.settings else "Calibrated"
        known = f"{len(record.people.training)} {record.identities}"
        notes.append(f"{made} on images of {known}; not reliable for others.")
    if record.settings:
        notes += [f"**Warning:** {sentence}" for sentence in summary.warnings(record)]
    paragraphs += [f"> {' '.join(notes)}"] if notes else []
    return "\n\n".join(paragraphs)


def held_out_pairs(model: Model, words: Vocabulary) -> list[tuple[str, Sequence[Path]]]:
    """Return pairs of held-out images of a result folder, with their captions; empty if it has none."""
    if model.revision:
        return []
    return [
        (caption.capitalize(), (first, first.with_name(first.name.replace("first", "second"))))
        for kind, caption in (("genuine", words.same), ("impostor", words.different))
        for first in sorted(find_weights(model.name).resolve().glob(f"example-{kind}-*-first.webp"))
    ]


def performance(model: Model, words: Vocabulary) -> str:
    """Describe where the network fails, then its measured accuracy."""
    sentences = difficult_pairs(model.record) + summary.limitations(model.record, words is FACES)
    limitations = "\n".join(f"- {sentence}" for sentence in sentences)
    accuracy = _accuracy(model), _operating_points(model)
    return "\n\n".join(["## Where it fails", limitations, "## How accurate it is", *accuracy])


def plots(model: Model, words: Vocabulary) -> str:
    """Draw the plots of the result folder, if it has any."""
    figures = ""
    for name, title, caption in (
        ("roc.png", "ROC curve", "The share of matches that are found at each false-match rate."),
        ("distances.png", "Dissimilarities of test pairs", f"Genuine pairs show {words.same}, impostor pairs do not."),
    ):
        if (file := (find_weights(model.name) / name).resolve()).is_file():
            figures += f"""
  <figure><img src="gradio_api/file={file}" alt="{title}" loading="lazy"><figcaption>{title}. {caption}</figcaption>
  </figure>"""
    return f'<div class="plots">{figures}</div>'


def background(model: Model, words: Vocabulary) -> str:
    """Describe how the network works and what it was trained on."""
    finds = (
        f"The page finds and aligns the faces in each photo ([RetinaFace]({RETINAFACE})). " if words is FACES else ""
    )
    paragraphs = [
        "## How it works",
        f"{finds}The network, called {model.id}, turns each {words.item} into a list of numbers, its embedding. The "
        "dissimilarity is the Euclidean distance between two embeddings.",
        _card_section(model, "Network"),
        _card_section(model, "Training data"),
        TRAIN_YOUR_OWN,
        CREDITS if words is FACES else "",
    ]
    return "\n\n".join(filter(None, paragraphs))


def difficult_pairs(record: Record) -> list[str]:
    """State how often the verdict is wrong for children, families, and child and adult; empty if not measured."""
    rates = record.difficult_pairs
    if rates is None:
        return []
    return [
        f"By default, {rate:.0%} of the pairs of {pairs}. Measured on {source}."
        for rate, pairs, source in (
            (rates.children_fmr, 'two different children are wrongly called "same"', LAG),
            (rates.family_fmr, 'two members of one family are wrongly called "same"', FIW),
            (rates.child_adult_fnmr, "a child and the same person as an adult are missed", LAG),
        )
    ]


def _accuracy(model: Model) -> str:
    record, report = model.record, summary.measured(model.record)
    calibrated = (
        ""
        if report.calibration_error is None
        else f"Predicted probabilities differ from observed ones by {report.calibration_error:.1%} on average."
    )
    if record.lfw:
        return (
            f"[LFW]({LFW}) is a benchmark with {record.lfw.images:,} photos of public figures. The network "
            f"classifies {record.lfw.accuracy:.1%} of its pairs correctly. {calibrated}"
        )
    count = f"{len(record.people.training)} {record.identities}"
    if not record.settings:
        return (
            f"Its last layer was fitted to images of {count} ({record.data.name}) and tested by cross-validation, on "
            f"{record.identities} that it was not fitted to. {summary.describe_accuracy(record)} {calibrated}"
        )
    start = f", starting from the weights {public_name(record.settings.init)}" if record.settings.init else ""
    return f"The network was trained on images of {count}{start}. {summary.describe_accuracy(record)} {calibrated}"


def _operating_points(model: Model) -> str:
    if not model.calibration.operating_points:
        return ""
    rows = "\n".join(
        f"| {one_in(point.fmr)} | {model.calibration.distance_at(point.score):.2f} | {point.fnmr:.1%} |"
        for point in model.calibration.operating_points
    )
    return f"| false-match rate | threshold, for good {model.words.photo}s | matches missed |\n|---|---|---|\n{rows}"


def _card_section(model: Model, heading: str) -> str:
    """Return a section of the model card of converted weights, with its heading; empty if there is none."""
    if not (card := model_card(model)):
        return ""
    section = re.search(rf"^## {heading}\n+(.*?)\s*(?=^## |\Z)", card.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return f"## {heading}\n\n{section[1]}" if section else ""


TUTORIAL = "https://datahacker.rs/019-siamese-network-in-pytorch-with-application-to-face-similarity/"
ATT_FACES = "https://cam-orl.co.uk/facedatabase.html"
ASPECT_RATIO = 92 / 112  # width to height of the AT&T portraits that the tutorial network was trained on


def map_introduction(tutorial: Model) -> str:
    """Return Markdown that introduces the map."""
    people = tutorial.record.people
    return (
        "## What the tutorial network sees\n\n"
        f"This project started from a [tutorial]({TUTORIAL}). Its small network turns each face into two numbers, so "
        "its output can be drawn as a map. Each color is one person of the "
        f"[AT&T faces]({ATT_FACES}): small dots are the {len(people.training)} people of the training set, large dots "
        f"are {len(people.test)} people that it never saw. Dots of one person should be close together. Your two "
        "photos, or two example photos, are joined by a line, whose length is their dissimilarity.\n\n"
        "The network is an example to learn from. It is not accurate, so the map shows no verdict."
    )


def map_of(photos: Sequence[images.ImageSource], boxes: Sequence[Box], tutorial: Model) -> str:
    """Draw the faces of two photos, which are in the boxes, among the people of the tutorial network."""
    assert tutorial.record.plane, "weights/att holds it"
    heads = [portrait(photo, box) for photo, box in zip(photos, boxes, strict=True)]
    faces = [face for (face,) in tutorial.detect(heads)]
    z, _ = tutorial.embed_faces(faces)
    return draw_map(tutorial.record.plane, [face.crop for face in faces if face.crop], z)


def portrait(photo: images.ImageSource, box: Box) -> Image.Image:
    """Crop the head around the box of a face, as in the AT&T portraits."""
    left, top, right, bottom = box
    x, y, height = (left + right) / 2, (top + bottom) / 2, (bottom - top) * 1.4
    width = height * ASPECT_RATIO
    head = (x - width / 2, y - height * 0.52, x + width / 2, y + height * 0.48)
    image, reduced = images.read_reduced(photo, MAX_PHOTO_SIDE)
    left, top, right, bottom = (round(edge / reduced) for edge in head)
    return image.crop((left, top, right, bottom))


SIDE = 480  # longest side of the extent of all points, in SVG units
PADDING = 14  # around dots and thumbnails
TILE = 64  # side of a thumbnail
TILE_DISTANCE = 50  # of its centre from its point
LABEL_DISTANCE = np.array([34, 18])  # of the number from the line, horizontal and vertical


def person_color(person: int) -> str:
    """Return the color of a person as #rrggbb. People with close numbers get very different colors."""
    rgb = colorsys.hls_to_rgb(person * 0.618 % 1, 0.5, 0.65)
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)


def draw_map(plane: Plane, faces: Sequence[Image.Image], embeddings: np.ndarray) -> str:
    """Draw people as dots, and two faces with (2, 2) embeddings at the ends of a line, labelled with its length.

    A unit of the embedding has the same length in both directions.
    """
    known = np.array([(x, y) for _, x, y in (*plane.training, *plane.test)])
    unit = SIDE / np.ptp(np.concatenate([known, embeddings]), axis=0).max()
    dots, ends = (points * (unit, -unit) for points in (known, embeddings))  # in pixels
    length = np.linalg.norm(ends[1] - ends[0])
    along = (ends[1] - ends[0]) / length if length else np.array([1.0, 0.0])
    tiles = ends + TILE_DISTANCE * np.stack([-along, along])  # centres of the thumbnails, beyond the ends of the line
    corners = np.concatenate([dots, ends, tiles - TILE / 2, tiles + TILE / 2])
    left, top = corners.min(axis=0) - PADDING
    width, height = np.ptp(corners, axis=0) + 2 * PADDING
    people = [person for person, _, _ in (*plane.training, *plane.test)]
    count = len(plane.training)
    distance = f"{np.linalg.norm(embeddings[0] - embeddings[1]):.2f}"
    return f"""
<svg class="plane" viewBox="{left:.0f} {top:.0f} {width:.0f} {height:.0f}" role="img" aria-label="Map of the
  embeddings of {len(set(people[:count]))} people of the training set, {len(set(people[count:]))} other people, and the
  two faces, with a dissimilarity of {distance}">
  <g class="training">{_dots(people[:count], dots[:count], radius=3)}</g>
  <g class="test">{_dots(people[count:], dots[count:], radius=6)}</g>
  {_joined(ends, along, tiles, faces, distance)}
</svg>"""


def _dots(people: Sequence[int], places: np.ndarray, radius: int) -> str:
    return "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{person_color(person)}"/>'
        for person, (x, y) in zip(people, places, strict=True)
    )


def _joined(ends: np.ndarray, along: np.ndarray, tiles: np.ndarray, faces: Sequence[Image.Image], label: str) -> str:
    """Draw a line between two points, (2, 2) in pixels, with a label beside its middle, and the faces."""
    (ax, ay), (bx, by) = ends
    marks = f'<path class="join" d="M{ax:.1f} {ay:.1f} L{bx:.1f} {by:.1f}"/>'
    for end, tile, face in zip(ends, tiles, faces, strict=True):
        x, y = tile - TILE / 2
        marks += f"""
  <circle class="end" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="7"/>
  <image href="{data_uri(face)}" x="{x:.1f}" y="{y:.1f}" width="{TILE}" height="{TILE}"/>
  <rect class="tile" x="{x:.1f}" y="{y:.1f}" width="{TILE}" height="{TILE}"/>"""
    x, y = ends.mean(axis=0) + LABEL_DISTANCE * np.array([along[1], -along[0]]) * (1 if along[0] >= 0 else -1)
    return f'{marks}\n  <text x="{x:.1f}" y="{y + 6:.1f}" text-anchor="middle">{label}</text>'
