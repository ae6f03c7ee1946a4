"""Draw the Compare tab: what is missing, the answer, and the compared faces."""

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from siamese import images, wording
from siamese.checkpoint import DEFAULT, find_weights
from siamese.comparison import Comparison
from siamese.faces import Face
from siamese.faces.detection import Landmarks
from siamese.faces.face import Cause
from siamese.page.charts import PairDistances, rank, scale
from siamese.page.uploads import Upload
from siamese.page.widgets import PREVIEW_PIXELS, STRICTNESS, card, faces_to_choose, img, message
from siamese.saliency import region_means
from siamese.wording import Vocabulary

# What to try if the answer is "unsure".
ADVICE: dict[Cause, str] = {
    "small": "larger",
    "blurred": "sharper",
    "dark": "brighter",
    "turned": "turned to the camera",
    "covered": "not covered",
    "poor": "clearer",
}


Numbers = tuple[int | None, int | None]  # the chosen face of each photo, from 1; None for all
ALL_FACES: Numbers = (None, None)


class Kept(NamedTuple):
    """What a session keeps, so that another strictness needs no GPU."""

    photos: tuple[Upload, Upload]
    numbers: Numbers
    answer: Comparison  # at the default false-match rate, with the crops of the compared faces only


def without_other_crops(answer: Comparison) -> Comparison:
    """Return an answer without the crops of faces that are not compared."""
    first, second = (tuple(replace(face, crop=None) for face in photo) for photo in answer.found)
    return replace(answer, found=(first, second))


def choice_of(text: str) -> tuple[Numbers, str]:
    """Return the chosen faces, and the mark of answers to a choice that app.js sent.

    Raises:
        ValueError: if app.js did not write the text.
    """
    try:
        first, second = (number and int(number) for number in json.loads(text)["faces"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("The request is not one of this page") from error
    return (first, second), escape(text)


def states(words: Vocabulary, has_examples: bool) -> str:
    """Draw what the page shows in place of an answer. app.js shows one of these states, and hides the others."""
    texts = {
        "missing-both": ("hint", f"Add two {words.photo}s{', or choose an example' if has_examples else ''}."),
        "missing-first": ("hint", f"Add the first {words.photo}."),
        "missing-second": ("hint", f"Add the second {words.photo}."),
        "comparing": ("comparing", "Comparing…"),
        "failed": ("problem", "The comparison failed. Reload the page and try again."),
        "lost": ("problem", "The server does not answer. Wait, or try again later."),
    }
    return "".join(
        f'<div data-state="{state}"{"" if state == "missing-both" else " hidden"}>{message(text, kind)}</div>'
        for state, (kind, text) in texts.items()
    )


def previews_of(first: Upload | None, second: Upload | None) -> str:
    """Draw photos that the browser cannot draw, for example TIFF. Those that cannot be read are left out."""
    previews = ""
    for photo in filter(None, (first, second)):
        with suppress(OSError, ValueError):
            preview, _ = images.read_reduced(photo, PREVIEW_PIXELS)
            previews += f'<img src="{images.data_uri(preview, "JPEG")}" alt="" data-upload="{photo.key}">'
    return previews


def for_choice(drawn: str, choice: str) -> str:
    """Mark HTML with what it depends on, so that app.js shows it only with these photos, faces and strictness."""
    return f'<div data-choice="{choice}">{drawn}</div>'


def answer_card(answer: Comparison, words: Vocabulary) -> str:
    """Draw the verdict with the two compared faces."""
    faces = [
        (face.crop, f"The compared {words.item} of the {photo} {words.photo}") for photo, face in _compared(answer)
    ]
    which = wording.describe_faces(answer.numbers, (len(answer.found[0]), len(answer.found[1])))
    notes = " ".join([*([f"Compared: {which}."] if which else []), *answer.warnings])
    strictness = next((name for name, fmr in STRICTNESS.items() if fmr == answer.fmr), "")
    return card(
        answer.verdict,
        faces,
        wording.describe_verdict(answer.verdict, answer.probability, answer.fmr, words, strictness),
        _numbers(answer, words, strictness),
        f'<p class="notes">{escape(notes)}</p>' if notes else "",
        f'<p class="advice">{advice(answer, words)}</p>' if answer.verdict == "unsure" else "",
    )


def _compared(answer: Comparison) -> list[tuple[str, Face]]:
    """Return the name of each photo and its compared face."""
    return [(photo, face) for photo, face in zip(wording.PHOTOS, answer.faces, strict=True) if face]


def among_pairs(answer: Comparison, pairs: PairDistances, words: Vocabulary) -> str:
    """Draw the distance of a comparison among those of test pairs of the network."""
    return f"""
<div class="among">
  <h3>Dissimilarity among test pairs</h3>
  {scale(pairs, answer.dissimilarity, answer.threshold, words)}
  <p class="quiet">{rank(pairs, answer.dissimilarity, words)}</p>
</div>"""


def repeat(answer: Comparison, photos: Sequence[Upload], chosen: Numbers, weights: str) -> str:
    """Draw how to get the same answer in Python and in a shell, and the answer as JSON."""
    first, second = (photo.name for photo in photos)
    python, shell = [repr(first), repr(second)], ["siamese compare", shlex.quote(first), shlex.quote(second)]
    if any(chosen):
        python.append(f"face={chosen}")
        shell.append(f"--face {chosen[0] or 0} {chosen[1] or 0}")
    if answer.fmr:
        python.append(f"fmr={answer.fmr:g}")
        shell.append(f"--fmr {answer.fmr:g}")
    if find_weights(weights).resolve() != DEFAULT.resolve():
        python.append(f"model=siamese.load({weights!r})")
        shell.append(f"--weights {shlex.quote(weights)}")
    blocks = {
        "Python": f"import siamese\n\nanswer = siamese.compare({', '.join(python)})",
        "Shell": " ".join(shell),
        "JSON": json.dumps(answer.to_dict(), indent=1, ensure_ascii=False),
    }
    drawn = "".join(f'<h3>{name}</h3><pre tabindex="0">{escape(text)}</pre>' for name, text in blocks.items())
    return f"""
<details class="repeat"><summary>Repeat this answer in Python or a shell</summary>
  <p class="quiet">Files of more than 4 MB are reduced before they are sent, so the numbers of the originals can differ
    a little.</p>{drawn}</details>"""


def _numbers(answer: Comparison, words: Vocabulary, strictness: str) -> str:
    """Draw the dissimilarity, its threshold and the probability; a click explains the last two."""
    probability, interval = wording.percent(answer.probability), ""
    if answer.confidence_interval:
        low, high = map(wording.percent, answer.confidence_interval)
        interval = f" (95% confidence interval: {low} to {high})" if low != high else ""
    chance = wording.describe_probability(answer.verdict, answer.probability, words)
    limit = "" if answer.threshold is None else f"same {words.one} up to {answer.threshold:.2f}"
    limit += f" ({strictness})" if strictness and limit else ""
    qualities = [face.quality for _, face in _compared(answer) if face.quality is not None]
    reasons = [f"the quality of these two {words.item}s"] if qualities else []
    reasons += [f"the number of pairs, {answer.pairs}"] if answer.pairs > 1 else []
    why = f"The limit of {answer.threshold:.2f} depends on {wording.listed(reasons)}. " if limit and reasons else ""
    return f"""<div class="numbers"><p>Dissimilarity <b>{answer.dissimilarity:.2f}</b> · </p><details class="chance">
    <summary>{" · ".join(filter(None, (limit, chance)))}</summary>
    <p class="quiet">{why}The probability of {words.same} is {probability}{interval}. It assumes that, before the
      comparison, {words.same} and {words.different} are equally likely. For {words.photo}s that were chosen because
      they look alike, it is lower.</p></details></div>"""


def advice(answer: Comparison, words: Vocabulary) -> str:
    """Say what to try if the answer is "unsure": what would help most, else a better photo in general."""
    causes = {cause for face in answer.faces if face and face.box for cause in face.causes}
    wanted = [wish for cause, wish in ADVICE.items() if cause in causes] or ["large", "sharp", "turned to the camera"]
    if words is wording.IMAGES:
        return "Try another image, in which the thing is upright and fills the image."
    return f"Try a photo in which the face is {wording.listed(wanted)}."


# Teal and magenta: far from skin, and different for people who are color-blind.
MORE_ALIKE_COLOR, LESS_ALIKE_COLOR = (0, 150, 136), (200, 30, 200)
MIN_REGION_MEAN = 0.1  # of a region that is named; the largest absolute value of a map is 1
NAMED_REGIONS = 2


def compared_faces(
    answer: Comparison,
    photos: Sequence[tuple[Image.Image, int]],
    maps: Sequence[np.ndarray] | None,
    template: Landmarks | None,
    chosen: Numbers,
    words: Vocabulary,
) -> str:
    """Draw photos that show several faces, the aligned crops on top of each other, and their saliency maps, if any.

    For photos of the same person, parts that make the distance larger are not drawn: benchmarks/saliency.py shows that
    maps are not reliable there. Maps in which no part stands out are not drawn.
    """
    if maps and answer.verdict == "same":
        maps = [values.clip(min=0) for values in maps]
    described = describe_maps(maps, template) if maps and template else ""
    is_clear = described if template else answer.verdict != "unsure"
    return f"""
<div class="seen">
  {_chooser(answer, photos, chosen)}
  <div class="views">
    {_wipe(answer, words)}
    {_explanation(answer, maps, described, words) if maps and is_clear else ""}
  </div>
</div>"""


def _chooser(answer: Comparison, photos: Sequence[tuple[Image.Image, int]], chosen: Numbers) -> str:
    """Draw the photos that show several faces. Each face is a button."""
    figures = "".join(
        faces_to_choose(*photo, answer.found[n], n, answer.numbers[n], f"the {wording.PHOTOS[n]} photo")
        for n, photo in enumerate(photos)
        if len(answer.found[n]) > 1
    )
    if not figures:
        return ""
    back = '<button type="button" data-face="">Back to the closest pair</button>' if any(chosen) else ""
    how = f"Of {answer.pairs} pairs of faces, this one is the closest. " if answer.pairs > 1 else ""
    return f"""
  <h3>Several faces</h3>
  <p>{how}Click another face to compare it instead. {back}</p>
  <div class="group-photos">{figures}</div>"""


def _wipe(answer: Comparison, words: Vocabulary) -> str:
    """Draw one crop on top of the other, and a slider that shows more or less of it, see app.js."""
    first, second = (img(face.crop, f"The {photo} {words.item}") for photo, face in _compared(answer))
    return f"""
    <section class="wipe"><h3>Overlay</h3>
      <div class="crop">{first}<div class="over">{second}</div></div>
      <input type="range" value="50" min="0" max="100"
        aria-label="Where the first {words.item} ends and the second begins, in percent of the width">
      <p aria-hidden="true"><span>first</span><span>second</span></p>
    </section>"""


def _explanation(answer: Comparison, maps: Sequence[np.ndarray], described: str, words: Vocabulary) -> str:
    crops = "".join(
        f"""
      <div class="crop">{img(face.crop and face.crop.convert("L"), f"The {photo} {words.item} in gray")}
        <div class="heat">{img(_heat(values), "", "PNG")}</div></div>"""
        for (photo, face), values in zip(_compared(answer), maps, strict=True)
    )
    apart = "" if answer.verdict == "same" else '<span class="apart">less alike</span>'
    return f"""
    <section class="parts"><h3>Which parts decide</h3>
      <div class="both">{crops}</div>
      <p>{described}</p>
      <p class="key"><span class="together">more alike</span>{apart}</p>
    </section>"""


def describe_maps(maps: Sequence[np.ndarray], template: Landmarks) -> str:
    """Name the regions with the largest and smallest values of two maps: "Most alike: nose. Least alike: eyes.".

    It is empty if no region stands out.
    """
    first, second = (region_means(values, template) for values in maps)
    mean = {region: (first[region] + second[region]) / 2 for region in first}
    ranked = sorted(mean, key=lambda region: -mean[region])
    most = [region for region in ranked if mean[region] >= MIN_REGION_MEAN][:NAMED_REGIONS]
    least = [region for region in reversed(ranked) if mean[region] <= -MIN_REGION_MEAN][:NAMED_REGIONS]
    sentences = [
        f"{name} alike: {wording.listed(regions)}." for name, regions in (("Most", most), ("Least", least)) if regions
    ]
    return " ".join(sentences)


def _heat(saliency: np.ndarray) -> Image.Image:
    """Color an (H, W) map in [-1, 1]; 0 is transparent."""
    color = np.where(saliency[..., None] >= 0, MORE_ALIKE_COLOR, LESS_ALIKE_COLOR)
    alpha = (np.sqrt(np.abs(saliency).clip(0, 1)) * 210)[..., None]
    return Image.fromarray(np.concatenate([color, alpha], 2).astype(np.uint8), "RGBA")
