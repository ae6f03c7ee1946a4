"""Draw the compared faces: which faces the photos show, a wipe slider, and which parts matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from siamese import wording
from siamese.comparison import Comparison
from siamese.faces.detection import Box, Landmarks
from siamese.images import data_uri
from siamese.saliency import region_means
from siamese.wording import Vocabulary

# Teal and magenta: far from skin, and different for people who are colour-blind.
MORE_ALIKE_COLOUR, LESS_ALIKE_COLOUR = (0, 150, 136), (200, 30, 200)
MIN_REGION_MEAN = 0.1  # of a region that is named; the largest absolute value of a map is 1
NAMED_REGIONS = 2


def compared(
    answer: Comparison,
    photos: Sequence[tuple[Image.Image, int]],
    maps: Sequence[np.ndarray],
    template: Landmarks | None,
    chosen: tuple[int | None, int | None],
    words: Vocabulary,
) -> str:
    """Draw photos that show several faces, the aligned crops on top of each other, and their saliency maps.

    For photos of the same person, parts that make the distance larger are not drawn: benchmarks/saliency.py shows that
    maps are not reliable there.

    Args:
        answer: a comparison of two faces.
        photos: the two photos and how much they were reduced, see `images.read_reduced`.
        maps: see `saliency_maps`.
        template: where the crops have the landmarks; None if the network compares whole images.
        chosen: the number of the face that the visitor chose in each photo; None for all faces.
        words: what the network compares.
    """
    if answer.verdict == "same":
        maps = [values.clip(min=0) for values in maps]
    return f"""
<div class="seen">
  {_chooser(answer, photos, chosen)}
  <div class="views">
    {_wipe(answer, words)}
    {_explanation(answer, maps, template, words)}
  </div>
</div>"""


def _chooser(
    answer: Comparison, photos: Sequence[tuple[Image.Image, int]], chosen: tuple[int | None, int | None]
) -> str:
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
        if face.box and (place := place_box(face.box, image.width * reduced, image.height * reduced))
    )
    return f"""
    <div class="photo"><img src="{data_uri(image, "JPEG")}" alt="The {photo} photo with the detected faces">
      {buttons}</div>"""


def place_box(box: Box, width: int, height: int) -> str:
    """Return the CSS position of a box in a photo, cut at its edges."""
    left, top, right, bottom = box
    left, right = (min(max(x / width, 0), 1) * 100 for x in (left, right))
    top, bottom = (min(max(y / height, 0), 1) * 100 for y in (top, bottom))
    return f"left: {left:.1f}%; top: {top:.1f}%; width: {right - left:.1f}%; height: {bottom - top:.1f}%"


def _wipe(answer: Comparison, words: Vocabulary) -> str:
    """Draw one crop on top of the other, and a slider that shows more or less of it, see app.js."""
    first, second = (
        f'<img src="{data_uri(face.crop, "WEBP")}" alt="The {photo} {words.item}">'
        for face, photo in zip(answer.faces, wording.PHOTOS, strict=True)
        if face
    )
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
      <div class="crop"><img class="gray" src="{data_uri(face.crop, "WEBP")}" alt="The {photo} {words.item} in gray">
        <img class="heat" alt="" src="{data_uri(_colour(values))}"></div>"""
        for face, values, photo in zip(answer.faces, maps, wording.PHOTOS, strict=True)
        if face
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
    """Name the regions of the face that make the distance smallest and largest.

    Args:
        maps: two (H, W) maps in [-1, 1], see `saliency_maps`.
        template: where the crops have the landmarks.

    Returns:
        Sentences such as "Most alike: nose and mouth. Least alike: eyes."
    """
    first, second = (region_means(values, template) for values in maps)
    mean = {region: (first[region] + second[region]) / 2 for region in first}
    ranked = sorted(mean, key=lambda region: -mean[region])
    most = [region for region in ranked if mean[region] >= MIN_REGION_MEAN][:NAMED_REGIONS]
    least = [region for region in reversed(ranked) if mean[region] <= -MIN_REGION_MEAN][:NAMED_REGIONS]
    sentences = [
        f"{name} alike: {wording.listed(regions)}." for name, regions in (("Most", most), ("Least", least)) if regions
    ]
    return " ".join(sentences) or "No part stands out."


def _colour(saliency: np.ndarray) -> Image.Image:
    """Colour an (H, W) map in [-1, 1]; 0 is transparent."""
    colour = np.where(saliency[..., None] >= 0, MORE_ALIKE_COLOUR, LESS_ALIKE_COLOUR)
    alpha = (np.sqrt(np.abs(saliency).clip(0, 1)) * 210)[..., None]
    return Image.fromarray(np.concatenate([colour, alpha], 2).astype(np.uint8), "RGBA")
