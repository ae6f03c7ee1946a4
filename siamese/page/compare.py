"""Draw the Compare tab: what is missing, the answer, and the compared faces."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from siamese import images, wording
from siamese.comparison import Comparison
from siamese.faces import Face
from siamese.faces.detection import Landmarks
from siamese.faces.face import Cause
from siamese.page.charts import PairDistances, rank, scale
from siamese.page.uploads import Upload
from siamese.page.widgets import PREVIEW_PIXELS, card, img, message, place_box
from siamese.saliency import region_means
from siamese.wording import Vocabulary

# What to try if the answer is "unsure".
ADVICE: dict[Cause, str] = {
    "small": "in which the face is larger",
    "blurred": "that is sharper",
    "dark": "that is brighter",
    "turned": "from the front",
    "covered": "without a mask or dark glasses",
    "poor": "of better quality",
}


Numbers = tuple[int | None, int | None]  # the chosen face of each photo, from 1; None for all
ALL_FACES: Numbers = (None, None)


class Kept(NamedTuple):
    """What a session keeps, so that another strictness needs no GPU."""

    photos: tuple[Upload, Upload]
    numbers: Numbers
    answer: Comparison  # at the default false-match rate, with the crops of the compared faces only

    @classmethod
    def of(cls, photos: tuple[Upload, Upload], numbers: Numbers, answer: Comparison) -> "Kept":
        """Leave out the crops of faces that are not compared."""
        first, second = (tuple(replace(face, crop=None) for face in photo) for photo in answer.found)
        return cls(photos, numbers, replace(answer, found=(first, second)))


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


def previews_of(first: Upload | None, second: Upload | None) -> str:
    """Draw photos that the browser cannot draw, for example TIFF. Those that cannot be read are left out."""
    previews = []
    for photo in filter(None, (first, second)):
        with suppress(OSError, ValueError):
            preview, _ = images.read_reduced(photo, PREVIEW_PIXELS)
            previews.append(for_photos(img(preview, "", "JPEG"), [photo]))
    return "".join(previews)


def for_photos(drawn: str, photos: Sequence[Upload | None], *choice: object) -> str:
    """Mark HTML with the photos that it is for, so that the page never shows it next to others.

    `choice` is what else it depends on. The page then notices each answer, even if two look the same.
    """
    keys = " ".join(photo.key if photo else "-" for photo in photos)
    return f'<div data-photos="{keys}" data-choice="{" ".join(map(str, choice))}">{drawn}</div>'


def answer_card(answer: Comparison, words: Vocabulary) -> str:
    """Draw the verdict with the two compared faces."""
    faces = [(face.crop, f"The compared {words.item} of the {photo} photo") for photo, face in _compared(answer)]
    which = wording.describe_faces(answer.numbers, (len(answer.found[0]), len(answer.found[1])))
    chance = wording.describe_probability(answer.verdict, answer.probability, words)
    notes = " ".join([*([f"{which.capitalize()}."] if which else []), *answer.warnings])
    return card(
        answer.verdict,
        faces,
        wording.describe_verdict(answer.verdict, answer.probability, answer.fmr, words),
        _explained(chance.capitalize(), answer, words),
        f'<p class="notes">{escape(notes)}</p>' if notes else "",
        f'<p class="advice">{advice(answer)}</p>' if answer.verdict == "unsure" else "",
    )


def _compared(answer: Comparison) -> list[tuple[str, Face]]:
    """Return the name of each photo and its compared face."""
    return [(photo, face) for photo, face in zip(wording.PHOTOS, answer.faces, strict=True) if face]


def among_pairs(answer: Comparison, pairs: PairDistances, words: Vocabulary) -> str:
    """Draw the distance of a comparison among those of test pairs of the network."""
    return f"""
<div class="among">
  <h2>Compared with other pairs</h2>
  {scale(pairs, answer.dissimilarity, answer.threshold, words)}
  <p class="quiet">{rank(pairs, answer.dissimilarity, words)}</p>
</div>"""


def _explained(chance: str, answer: Comparison, words: Vocabulary) -> str:
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
    causes = {cause for face in answer.faces if face and face.box for cause in face.causes}
    wanted = [wish for cause, wish in ADVICE.items() if cause in causes]
    if not wanted:
        return "Try another photo of one of them: large, sharp and from the front."
    return f"Try another photo: one {wording.listed(wanted)}."


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
    maps are not reliable there.
    """
    if maps and answer.verdict == "same":
        maps = [values.clip(min=0) for values in maps]
    return f"""
<div class="seen">
  {_chooser(answer, photos, chosen)}
  <div class="views">
    {_wipe(answer, words)}
    {_explanation(answer, maps, template, words) if maps else ""}
  </div>
</div>"""


def _chooser(answer: Comparison, photos: Sequence[tuple[Image.Image, int]], chosen: Numbers) -> str:
    """Draw the photos that show several faces. Each face is a button."""
    figures = "".join(
        _photo_with_faces(answer, number, *photo)
        for number, photo in enumerate(photos)
        if len(answer.found[number]) > 1
    )
    if not figures:
        return ""
    back = '<button type="button" data-face="">Compare all faces</button>' if any(chosen) else ""
    how = f"{answer.pairs} pairs of faces were compared; the closest pair is marked." if answer.pairs > 1 else ""
    return f"""
  <h2>Several faces</h2>
  <p>{how} Click another face to compare it. {back}</p>
  <div class="group-photos">{figures}</div>"""


def _photo_with_faces(answer: Comparison, number: int, image: Image.Image, reduced: int) -> str:
    photo, found = wording.PHOTOS[number], answer.found[number]
    buttons = "".join(
        f'<button type="button" class="box" style="{place}" data-photo="{number}" data-face="{face_number}" '
        f'aria-pressed="{str(face_number == answer.numbers[number]).lower()}" '
        f'aria-label="Face {face_number} of {len(found)} in the {photo} photo"><span>{face_number}</span></button>'
        for face_number, face in enumerate(found, 1)
        if (place := place_box(face.box, image, reduced))
    )
    return f"""
    <div class="photo">{img(image, f"The {photo} photo with the detected faces", "JPEG")}
      {buttons}</div>"""


def _wipe(answer: Comparison, words: Vocabulary) -> str:
    """Draw one crop on top of the other, and a slider that shows more or less of it, see app.js."""
    first, second = (img(face.crop, f"The {photo} {words.item}") for photo, face in _compared(answer))
    return f"""
    <section class="wipe"><h2>One on top of the other</h2>
      <div class="crop">{first}<div class="over">{second}</div></div>
      <input type="range" value="50" min="0" max="100"
        aria-label="Where the first {words.item} ends and the second begins, in percent of the width">
      <p aria-hidden="true"><span>first</span><span>second</span></p>
    </section>"""


def _explanation(answer: Comparison, maps: Sequence[np.ndarray], template: Landmarks | None, words: Vocabulary) -> str:
    crops = "".join(
        f"""
      <div class="crop">{img(face.crop and face.crop.convert("L"), f"The {photo} {words.item} in gray")}
        <div class="heat">{img(_heat(values), "", "PNG")}</div></div>"""
        for (photo, face), values in zip(_compared(answer), maps, strict=True)
    )
    apart = "" if answer.verdict == "same" else '<span class="apart">less alike</span>'
    sentence = f"<p>{describe_maps(maps, template)}</p>" if template else ""
    return f"""
    <section class="parts"><h2>Which parts are alike</h2>
      <div class="both">{crops}</div>
      {sentence}
      <p class="key"><span class="together">more alike</span>{apart}</p>
    </section>"""


def describe_maps(maps: Sequence[np.ndarray], template: Landmarks) -> str:
    """Name the regions with the largest and smallest values of two maps: "Most alike: nose. Least alike: eyes."."""
    first, second = (region_means(values, template) for values in maps)
    mean = {region: (first[region] + second[region]) / 2 for region in first}
    ranked = sorted(mean, key=lambda region: -mean[region])
    most = [region for region in ranked if mean[region] >= MIN_REGION_MEAN][:NAMED_REGIONS]
    least = [region for region in reversed(ranked) if mean[region] <= -MIN_REGION_MEAN][:NAMED_REGIONS]
    sentences = [
        f"{name} alike: {wording.listed(regions)}." for name, regions in (("Most", most), ("Least", least)) if regions
    ]
    return " ".join(sentences) or "No part stands out."


def _heat(saliency: np.ndarray) -> Image.Image:
    """Color an (H, W) map in [-1, 1]; 0 is transparent."""
    color = np.where(saliency[..., None] >= 0, MORE_ALIKE_COLOR, LESS_ALIKE_COLOR)
    alpha = (np.sqrt(np.abs(saliency).clip(0, 1)) * 210)[..., None]
    return Image.fromarray(np.concatenate([color, alpha], 2).astype(np.uint8), "RGBA")
