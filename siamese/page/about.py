"""What the page says about its network: the introduction, and the About tab."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from siamese import summary
from siamese.checkpoint import find_weights, public_name
from siamese.model import Model
from siamese.names import markdown_text
from siamese.record import Record
from siamese.wording import FACES, IMAGES, Vocabulary, one_in

PAPER = "https://proceedings.neurips.cc/paper/1993/hash/288cc0ff022877bd3df94bc9360b9c5d-Abstract.html"
LFW = "http://vis-www.cs.umass.edu/lfw/"
LAG = "[LAG](https://arxiv.org/abs/1602.06149)"
FIW = "[FIW](https://arxiv.org/abs/1604.02182)"
RETINAFACE = "https://arxiv.org/abs/1905.00641"

MAX_SERVED_BYTES = 10 << 20  # of a model card or a plot
PLOTS = {  # file → title, caption
    "roc.png": ("ROC curve", "The share of matches that are found at each false-match rate."),
    "distances.png": ("Dissimilarities of test pairs", "Genuine pairs show {}, impostor pairs do not."),
}
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
    return _own_file(model, "README.md") if model.record.source else None


def plot_files(model: Model) -> list[Path]:
    """Return the plots in the result folder."""
    return [file for name in PLOTS if (file := _own_file(model, name))]


def _own_file(model: Model, name: str) -> Path | None:
    """Return a file of the result folder that the page serves; None if there is none, or it is a link, or too large."""
    file = find_weights(model.name).resolve() / name
    is_own = file.is_file() and not file.is_symlink() and file.stat().st_size <= MAX_SERVED_BYTES
    return file if is_own else None


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
        paragraphs.append(f"> **Note:** {markdown_text(notice)}")
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
    limitations = map(markdown_text, summary.limitations(model.record, words is FACES))
    sentences = "\n".join(f"- {sentence}" for sentence in (*difficult_pairs(model.record), *limitations))
    accuracy = _accuracy(model), _operating_points(model)
    return "\n\n".join(["## Where it fails", sentences, "## How accurate it is", *accuracy])


def plots(model: Model, words: Vocabulary) -> str:
    """Draw the plots of the result folder, if it has any."""
    figures = ""
    for file in plot_files(model):
        title, caption = PLOTS[file.name]
        figures += f"""
  <figure><img src="gradio_api/file={file}" alt="{title}" loading="lazy">
    <figcaption>{title}. {caption.format(words.same)}</figcaption>
  </figure>"""
    return f'<div class="plots">{figures}</div>'


def background(model: Model, words: Vocabulary) -> str:
    """Describe how the network works and what it was trained on."""
    finds = (
        f"The page finds and aligns the faces in each photo ([RetinaFace]({RETINAFACE})). " if words is FACES else ""
    )
    paragraphs = [
        "## How it works",
        f"{finds}The network, called {markdown_text(model.id)}, turns each {words.item} into a list of numbers, its "
        "embedding. The dissimilarity is the Euclidean distance between two embeddings.",
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
            f"Its last layer was fitted to images of {count} ({markdown_text(record.data.name)}) and tested by "
            f"cross-validation, on {record.identities} that it was not fitted to. "
            f"{summary.describe_accuracy(record)} {calibrated}"
        )
    start = (
        f", starting from the weights {markdown_text(public_name(record.settings.init))}"
        if record.settings.init
        else ""
    )
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
    section = re.search(
        rf"^## {heading}\n+(.*?)\s*(?=^## |\Z)", card.read_text("utf-8", "replace"), re.MULTILINE | re.DOTALL
    )
    return re.sub("<!--.*?-->", "", f"## {heading}\n\n{section[1]}") if section else ""
