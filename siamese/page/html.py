"""Draw answers as HTML, without scripts or external files."""

from __future__ import annotations

import base64
from html import escape

import numpy as np
from PIL import Image

from siamese.faces import Face
from siamese.images import data_uri
from siamese.search.group import Group
from siamese.wording import Vocabulary

TILE_PIXELS = 84  # faces of a group


# Each state of the page has its own symbol; a face that is crossed out has its own drawing.
ICONS = {"same": "=", "different": "≠", "unsure": "?", "hint": "+", "problem": "!", "comparing": ""}
NO_FACE_ICON = """<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round">
<circle cx="12" cy="12" r="8.5"/><path d="M9 10v.1M15 10v.1M9 15.5h6M3 21 21 3"/></svg>"""


def icon(state: str) -> str:
    """Draw the symbol of a verdict, or of "hint", "problem" or "comparing"."""
    return f'<span class="symbol" aria-hidden="true">{ICONS.get(state, NO_FACE_ICON)}</span>'


def message(text: str, state: str = "hint") -> str:
    """Draw a sentence in place of an answer; `state` is "hint", "problem", "comparing" or "no face"."""
    return f'<div class="answer {state.replace(" ", "-")}">{icon(state)}<p>{escape(text)}</p></div>'


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
