"""Draw answers as HTML, without scripts or external files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from siamese.faces import Face
from siamese.faces.detection import Box
from siamese.model import VERDICT_PROBABILITY, Comparison
from siamese.page.charts import PairDistances, rank, scale
from siamese.page.text import Vocabulary
from siamese.search.group import Group

ORDER = ("first", "second")
MORE_ALIKE_COLOUR, LESS_ALIKE_COLOUR = (79, 70, 229), (217, 119, 6)  # indigo, amber
TILE_PIXELS = 84  # faces of a group


def message(text: str, kind: str = "hint") -> str:
    """Draw a sentence in place of an answer; `kind` is "hint" or "problem"."""
    return f'<div class="answer {kind}"><p>{escape(text)}</p></div>'


def verdict(answer: Comparison, fmr: float | None, words: Vocabulary) -> str:
    """Return the verdict in words.

    Args:
        answer: a comparison of two faces.
        fmr: the requested false-match rate; None for odds of 3 to 1.
        words: what the network compares.
    """
    if answer.verdict == "unsure":
        if fmr and answer.probability >= VERDICT_PROBABILITY:
            return f"Similar, but not enough for 1 false match in {round(1 / fmr):,}"
        return f"Could be {words.same} or {words.different}"
    certainty = "Probably" if 0.01 < answer.probability < 0.99 else "Very likely"
    return f"{certainty} {words.same if answer.verdict == 'same' else words.different}"


def answer_card(answer: Comparison, pairs: PairDistances, fmr: float | None, words: Vocabulary) -> str:
    """Draw an answer: verdict, probability, and the distance among those of test pairs.

    Args:
        answer: a comparison of two faces.
        pairs: test pairs of the network.
        fmr, words: see `verdict`.
    """
    interval = ""
    if answer.confidence_interval:
        low, high = map(percent, answer.confidence_interval)
        interval = f" (95% confidence interval: {low} to {high})" if low != high else ""
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in answer.warnings)
    return f"""
<div class="answer {answer.verdict}">
  <p class="verdict">{verdict(answer, fmr, words)}</p>
  <p>Probability that both show {words.same}: <b>{percent(answer.probability)}</b>{interval}</p>
  {scale(pairs, answer.dissimilarity, answer.threshold, "threshold" if fmr else "50% probability", words)}
  <p class="quiet">{rank(pairs, answer.dissimilarity, words)}
    The probability assumes that {words.same} and {words.different} are equally likely before the comparison.</p>
  {f"<ul>{warnings}</ul>" if warnings else ""}
</div>"""


def percent(probability: float) -> str:
    """Return a percentage that is never 0% or 100%."""
    return "under 0.1%" if probability < 0.001 else "over 99.9%" if probability > 0.999 else f"{probability:.1%}"


def compared(
    answer: Comparison, photos: Sequence[tuple[Image.Image, int]], maps: Sequence[np.ndarray], words: Vocabulary
) -> str:
    """Draw the photos with their faces, and the compared crops with their saliency maps.

    For photos of the same person, parts that make the distance larger are not drawn: benchmarks/saliency.py shows that
    maps are not reliable there.

    Args:
        answer: a comparison of two faces.
        photos: the two photos and how much they were reduced, see `images.read_reduced`.
        maps: see `saliency_maps`.
        words: what the network compares.
    """
    is_same = answer.verdict == "same"
    maps = [values.clip(min=0) if is_same else values for values in maps]
    apart = "" if is_same else '<span class="apart">less alike</span>'
    figures = "".join(
        _figure(answer, number, face, photos[number], maps[number]) for number, face in enumerate(answer.faces) if face
    )
    return f"""
<div class="seen">
  <h2>Compared {words.item}s</h2>
  <label><input type="checkbox" checked> Show which parts matter</label>
  <p class="key quiet"><span class="together">more alike</span>{apart}</p>
  <div class="both">{figures}
  </div>
</div>"""


def _figure(answer: Comparison, number: int, face: Face, photo: tuple[Image.Image, int], saliency: np.ndarray) -> str:
    image, reduced = photo
    order, found = ORDER[number], answer.found[number]
    boxes = "".join(
        _button(place, index, len(found), number, other is face) if len(found) > 1 else _frame(place)
        for index, other in enumerate(found)
        if other.box and (place := _place(other.box, image.width * reduced, image.height * reduced))
    )
    with_boxes = f"""
    <div class="photo"><img src="{data_uri(image, "JPEG")}" alt="The {order} photo with the detected faces">
      {boxes}</div>"""
    return f"""
  <figure>{with_boxes if boxes else ""}
    <div class="crop"><img src="{data_uri(face.crop)}" alt="The compared part of the {order} photo">
      <img class="heat" alt="" src="{data_uri(_colour(saliency))}"></div>
  </figure>"""


def _place(box: Box, width: int, height: int) -> str:
    """Return the CSS position of a box in a photo, cut at its edges."""
    left, right = (min(max(x / width, 0), 1) * 100 for x in (box[0], box[2]))
    top, bottom = (min(max(y / height, 0), 1) * 100 for y in (box[1], box[3]))
    return f"left: {left:.1f}%; top: {top:.1f}%; width: {right - left:.1f}%; height: {bottom - top:.1f}%"


def _frame(place: str) -> str:
    return f'<span class="box" style="{place}"></span>'


def _button(place: str, index: int, count: int, number: int, is_chosen: bool) -> str:
    """Draw a frame that chooses a face, see app.js."""
    return (
        f'<button type="button" class="box" style="{place}" data-photo="{number}" data-face="{index}" '
        f'aria-pressed="{str(is_chosen).lower()}" '
        f'aria-label="Face {index + 1} of {count} in the {ORDER[number]} photo"></button>'
    )


def _colour(saliency: np.ndarray) -> Image.Image:
    """Colour an (H, W) map in [-1, 1]; 0 is transparent."""
    colour = np.where(saliency[..., None] >= 0, MORE_ALIKE_COLOUR, LESS_ALIKE_COLOUR)
    alpha = (np.abs(saliency).clip(0, 1) * 190)[..., None]
    return Image.fromarray(np.concatenate([colour, alpha], 2).astype(np.uint8), "RGBA")


def data_uri(image: Image.Image, format: str = "PNG") -> str:
    """Encode an image in a URI, so that no file of it is stored."""
    file = io.BytesIO()
    image.save(file, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def people(group: Group, threshold: float, words: Vocabulary) -> str:
    """Draw the faces of each person, the dissimilarity of each pair of faces, and a link to the numbers."""
    if not group.faces:
        return message(" ".join(group.problems), "problem")
    clusters, labels = group.people(threshold), group.labels()
    rows = "".join(
        f"""
  <h3>{words.one.capitalize()} {number} ({_count(len(faces), words.item)})</h3>
  <div class="person">{"".join(_tile(group.faces[face], labels[face]) for face in faces)}</div>"""
        for number, faces in enumerate(clusters, 1)
    )
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in group.problems)
    csv = base64.b64encode(group.to_csv(clusters).encode()).decode()
    count = _count(len(group.faces), words.item)
    return f"""
<div class="answer">
  <p class="verdict">{_count(len(clusters), words.one, words.many)}</p>
  <p>{count} in {_count(len(set(group.photos)), "photo")}. Two groups are merged if the mean dissimilarity of their
    {words.item}s is at most {threshold:.2f}.</p>
  {f"<ul>{problems}</ul>" if problems else ""}
</div>
<div class="people">{rows}
  <h2>Dissimilarity of each pair of {words.item}s</h2>
  <p class="quiet">In the order above. Darker squares are more alike.</p>
  <img class="matrix" src="{data_uri(matrix(group, [face for faces in clusters for face in faces], threshold))}"
    alt="Matrix of the dissimilarities of {count}; the CSV file below contains its numbers">
  <p><a download="dissimilarities.csv" href="data:text/csv;base64,{csv}">Download the numbers (CSV)</a></p>
</div>"""


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _tile(face: Face, label: str) -> str:
    label = escape(label)
    crop = face.crop.resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.LANCZOS)
    return (
        f'<figure><img src="{data_uri(crop)}" alt="Face in {label}">'
        f'<figcaption title="{label}">{label}</figcaption></figure>'
    )


def matrix(group: Group, order: list[int], threshold: float) -> Image.Image:
    """Draw the dissimilarities as a matrix of squares, with the faces along its top and left edges.

    The colour is indigo for a dissimilarity of 0, pale at the threshold, and white at twice the threshold.
    """
    side = max(8, min(48, 840 // (len(order) + 1)))
    similarity = (1 - group.distances[np.ix_(order, order)] / (2 * threshold)).clip(0, 1)[..., None] ** 1.5
    cells = (np.array([255, 255, 255]) * (1 - similarity) + np.array([67, 56, 202]) * similarity).astype(np.uint8)
    picture = Image.new("RGB", (side * (len(order) + 1),) * 2, "white")
    picture.paste(Image.fromarray(cells.repeat(side, 0).repeat(side, 1)), (side, side))
    for place, face in enumerate(order, 1):
        tile = group.faces[face].crop.convert("RGB").resize((side, side))
        picture.paste(tile, (place * side, 0))
        picture.paste(tile, (0, place * side))
    return picture
