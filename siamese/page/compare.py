"""Draw the Compare tab: the examples, what is missing, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from siamese import wording
from siamese.comparison import Comparison
from siamese.faces.quality import Cause, quality_causes
from siamese.images import data_uri
from siamese.page.charts import PairDistances, rank, scale
from siamese.page.html import message, symbol
from siamese.page.uploads import Upload
from siamese.wording import Vocabulary

THUMBNAIL_PIXELS = 128

# What to try if the answer is "unsure".
ADVICE: dict[Cause, str] = {
    "small": "in which the face is larger",
    "blurred": "that is sharper",
    "dark": "that is brighter",
    "turned": "from the front",
    "covered": "without a mask or dark glasses",
    "poor": "of better quality",
}


class Example(NamedTuple):
    """A pair of example photos.

    Attributes:
        caption: what the photos show, in a few words.
        first, second: paths of the photos.
    """

    caption: str
    first: Path
    second: Path


def examples(pairs: Sequence[Example]) -> str:
    """Draw a row of buttons, one per example. See app.js for the events."""
    buttons = "".join(
        f"""
  <button type="button" data-example="{number}" data-files="{pair.first.name} {pair.second.name}">
    <span>{thumbnail(pair.first)}{thumbnail(pair.second)}</span>{escape(pair.caption)}</button>"""
        for number, pair in enumerate(pairs)
    )
    return f'<div class="examples" role="group" aria-label="Examples">{buttons}</div>'


def thumbnail(photo: Path) -> str:
    with Image.open(photo) as image:
        square = ImageOps.fit(image.convert("RGB"), (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), centering=(0.5, 0.2))
    return f'<img src="{data_uri(square, "WEBP")}" alt="{escape(photo.stem.replace("-", ", "))}">'


def states(words: Vocabulary, has_examples: bool) -> str:
    """Draw what the page shows in place of an answer. app.js shows one of these states, and hides the others."""
    photo = "photo" if words is wording.FACES else "image"
    or_example = ", or choose an example" if has_examples else ""
    texts = {
        "missing-both": ("hint", f"Add two {photo}s{or_example}."),
        "missing-first": ("hint", f"Add the first {photo}."),
        "missing-second": ("hint", f"Add the second {photo}."),
        "comparing": ("comparing", "Comparing…"),
        "failed": ("problem", "The comparison failed. Reload the page and try again."),
    }
    return "".join(
        f'<div data-state="{state}"{"" if state == "missing-both" else " hidden"}>{message(text, kind)}</div>'
        for state, (kind, text) in texts.items()
    )


def for_photos(drawn: str, photos: Sequence[Upload | None], *choice: object) -> str:
    """Mark HTML with the photos that it is for, so that the page never shows it next to others.

    Args:
        drawn: HTML.
        photos: the uploads that it shows.
        choice: what else the HTML depends on. The page then notices each answer, even if two look the same.
    """
    keys = " ".join(photo.key if photo else "-" for photo in photos)
    return f'<div data-photos="{keys}" data-choice="{" ".join(map(str, choice))}">{drawn}</div>'


def answer_card(answer: Comparison, words: Vocabulary) -> str:
    """Draw the verdict with the two compared faces.

    Args:
        answer: a comparison of two faces.
        words: what the network compares.
    """
    crops = [
        f'<img src="{data_uri(face.crop, "WEBP")}" alt="The compared {words.item} of the {photo} photo">'
        for face, photo in zip(answer.faces, wording.PHOTOS, strict=True)
        if face
    ]
    which = wording.describe_faces(answer.numbers, (len(answer.found[0]), len(answer.found[1])))
    chance = wording.describe_probability(answer.verdict, answer.probability, words)
    notes = [f"{which[0].upper()}{which[1:]}."] if which else []
    notes = " ".join([*notes, *answer.warnings])
    unsure = answer.verdict == "unsure"
    return f"""
<div class="answer {answer.verdict}">
  <div class="pair">{symbol(answer.verdict).join(crops)}</div>
  <p class="verdict">{wording.describe_verdict(answer.verdict, answer.probability, answer.fmr, words)}</p>
  {_chance(f"{chance[0].upper()}{chance[1:]}", answer, words)}
  {f'<p class="notes">{escape(notes)}</p>' if notes else ""}
  {f'<p class="advice">{advice(answer)}</p>' if unsure else ""}
</div>"""


def among_pairs(answer: Comparison, pairs: PairDistances, words: Vocabulary) -> str:
    """Draw the distance of a comparison among those of test pairs of the network."""
    return f"""
<div class="among">
  <h2>Compared with other pairs</h2>
  {scale(pairs, answer.dissimilarity, answer.threshold, words)}
  <p class="quiet">{rank(pairs, answer.dissimilarity, words)}</p>
</div>"""


def _chance(chance: str, answer: Comparison, words: Vocabulary) -> str:
    """Draw the probability; a click explains it."""
    interval = ""
    if answer.confidence_interval:
        low, high = map(wording.percent, answer.confidence_interval)
        interval = f" (95% confidence interval: {low} to {high})" if low != high else ""
    prior = f"This assumes that, before the comparison, {words.same} and {words.different} are equally likely."
    return f"""<details class="chance"><summary title="{prior}">{chance}</summary>
    <p class="quiet">{prior} The probability of {words.same} is {wording.percent(answer.probability)}{interval}. For
      photos that were chosen because they look alike, it is lower.</p></details>"""


def advice(answer: Comparison) -> str:
    """Say what to try if the answer is "unsure": what would help most, else a better photo in general."""
    causes = {cause for face in answer.faces if face and face.box for cause in quality_causes(face)}
    wanted = [wish for cause, wish in ADVICE.items() if cause in causes]
    if not wanted:
        return "Try another photo of one of them: large, sharp and from the front."
    return f"Try another photo: one {wording.listed(wanted)}."
