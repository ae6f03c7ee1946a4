"""An answer as people read it: HTML and SVG, without any script or outside file."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from siamese.model import SURE, Comparison
from siamese.page.charts import Spread, scale, usual
from siamese.search.group import Group

ORDER = ("first", "second")


def verdict(answer: Comparison, fmr: float | None, faces: bool) -> str:
    """Say an answer in a few words.

    Args:
        answer: with two faces.
        fmr: the false-match rate that "same" had to keep to; None for odds of three to one.
        faces: whether the pictures show faces, else things of any kind.
    """
    same, different = ("the same person", "different people") if faces else ("the same", "different")
    very = "Very likely" if not 0.01 < answer.probability < 0.99 else "Probably"
    if answer.verdict == "unsure" and answer.probability >= SURE:
        return f"Alike, but not enough for one false match in {round(1 / fmr):,}"
    return {"same": f"{very} {same}", "different": f"{very} {different}", "unsure": "Could be either"}[answer.verdict]


def side(title: str, answer: Comparison, spread: Spread) -> str:
    """Draw an answer in short, to stand beside another network's."""
    crops = "".join(
        f'<img src="{data_uri(face.crop)}" alt="The {order} picture as it saw it">'
        for face, order in zip(answer.faces, ORDER, strict=True)
    )
    return f"""
<section class="answer"><h3>{html.escape(title)}</h3>
  <div class="crops">{crops}</div>
  <p class="verdict">{verdict(answer, None, faces=True)}</p>
  {scale(spread, answer.dissimilarity, answer.threshold, "even odds", faces=True)}
</section>"""


def message(text: str, kind: str = "hint") -> str:
    """Draw a sentence in place of an answer; `kind` is "hint" or "problem"."""
    return f'<div class="answer {kind}"><p>{html.escape(text)}</p></div>'


def card(answer: Comparison, spread: Spread, fmr: float | None, faces: bool) -> str:
    """Draw an answer: the verdict, how sure it is, and how usual such a distance is.

    Args:
        answer: with two faces.
        spread: of the network's test pairs.
        fmr, faces: see `verdict`.
    """
    limits = list(dict.fromkeys(map(percent, answer.confidence_interval or ())))
    band = f", {' to '.join(limits)} by the measurements" if len(limits) > 1 else ""
    what = "these show one person" if faces else "these are of one kind"
    warnings = "".join(f"<li>{html.escape(warning)}</li>" for warning in answer.warnings)
    return f"""
<div class="answer {answer.verdict}">
  <p class="verdict">{verdict(answer, fmr, faces)}</p>
  <p>If both were equally likely beforehand: <b>{percent(answer.probability)}</b> that {what}{band}.</p>
  {scale(spread, answer.dissimilarity, answer.threshold, "threshold" if fmr else "even odds", faces)}
  <p class="quiet">{usual(spread, answer.dissimilarity, faces)}</p>
  {f"<ul>{warnings}</ul>" if warnings else ""}
</div>"""


def percent(probability: float) -> str:
    """Return a percentage that never claims certainty."""
    return "under 0.1%" if probability < 0.001 else "over 99.9%" if probability > 0.999 else f"{probability:.1%}"


def seen(answer: Comparison, photos: Sequence[tuple[Image.Image, int]], maps: Sequence[np.ndarray] | None) -> str:
    """Show what was compared: the photos with their faces, to choose another by a click, and the crops with what
    mattered in them.

    Args:
        answer: with two faces.
        photos: the two upright pictures and by how much they were shrunk, see `images.read_at_least`.
        maps: what mattered in each crop, see `explain.heat`; None to show none.
    """
    figures = ""
    for number, (face, (photo, shrunk)) in enumerate(zip(answer.faces, photos, strict=True)):
        order = ORDER[number]
        heat = "" if maps is None else f'<img class="heat" alt="" src="{_heat(maps[number])}">'
        boxes = _boxes(answer, number, (photo.width * shrunk, photo.height * shrunk))
        where = (
            f"""
    <div class="photo"><img src="{data_uri(photo, "JPEG")}" alt="The {order} picture, with the faces found">
      {boxes}</div>"""
            if boxes
            else ""
        )
        figures += f"""
  <figure>{where}
    <div class="crop"><img src="{data_uri(face.crop)}" alt="The {order} picture as the network saw it">{heat}</div>
  </figure>"""
    toggle = """
  <label><input type="checkbox" checked> Show what mattered</label>
  <p class="key quiet"><span class="together">pulls together</span><span class="apart">pushes apart</span></p>"""
    return f"""
<div class="seen">
  <h2>What was compared</h2>{toggle if maps is not None else ""}
  <div class="both">{figures}
  </div>
</div>"""


def _boxes(answer: Comparison, number: int, size: tuple[int, int]) -> str:
    """Draw the faces of one picture: frames, or buttons where there are several to choose from."""
    found, drawn = answer.found[number], ""
    for face, one in enumerate(found):
        left, top, right, bottom = one.box
        left, right = (min(max(x / size[0], 0), 1) * 100 for x in (left, right))
        top, bottom = (min(max(y / size[1], 0), 1) * 100 for y in (top, bottom))
        place = f"left: {left:.1f}%; top: {top:.1f}%; width: {right - left:.1f}%; height: {bottom - top:.1f}%"
        chosen = str(one.box == answer.faces[number].box).lower()
        if len(found) == 1:
            drawn += f'<span class="box" style="{place}"></span>'
        else:
            drawn += (
                f'<button type="button" class="box" style="{place}" aria-pressed="{chosen}" data-photo="{number}" '
                f'data-face="{face}" aria-label="Face {face + 1} of {len(found)} in the {ORDER[number]} picture">'
                "</button>"
            )
    return drawn


def _heat(values: np.ndarray) -> str:
    """Colour a map of values in [-1, 1]: indigo where positive, amber where negative, and clear at 0."""
    colour = np.where(values[..., None] >= 0, (79, 70, 229), (217, 119, 6))
    alpha = (np.abs(values).clip(0, 1) * 190)[..., None]
    return data_uri(Image.fromarray(np.concatenate([colour, alpha], 2).astype(np.uint8), "RGBA"))


def data_uri(image: Image.Image, format: str = "PNG") -> str:
    """Return an image as an address that holds it whole, so that no file is left anywhere."""
    file = io.BytesIO()
    image.save(file, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def people(group: Group, threshold: float, faces: bool) -> str:
    """Draw who is one person, or what is of one kind, how unlike each two faces are, and the way to the numbers."""
    face, person, several = ("face", "Person", "people") if faces else ("picture", "Kind", "kinds")
    if not group.faces:
        return message(" ".join(group.problems) or "Add photos first.", "problem" if group.problems else "hint")
    clusters, labels = group.people(threshold), group.labels()
    rows = "".join(
        f"""
  <h3>{person} {number}, {_count(len(rows), face)}</h3>
  <div class="person">{"".join(_tile(group, row, labels[row]) for row in rows)}</div>"""
        for number, rows in enumerate(clusters, 1)
    )
    problems = "".join(f"<li>{html.escape(problem)}</li>" for problem in group.problems)
    csv = base64.b64encode(group.to_csv(clusters).encode()).decode()
    return f"""
<div class="answer">
  <p class="verdict">{_count(len(clusters), person.lower(), several)}</p>
  <p>{_count(len(group.faces), face)} in {_count(len(set(group.photos)), "photo")}, joined where they are
  on average at most {threshold:.2f} apart.</p>
  {f"<ul>{problems}</ul>" if problems else ""}
</div>
<div class="people">{rows}
  <h2>How unlike each two {face}s are</h2>
  <p class="quiet">In the order above; the darker, the more alike.</p>
  <img class="matrix" src="{data_uri(matrix(group, [row for rows in clusters for row in rows], threshold))}"
    alt="Matrix of the dissimilarities of {_count(len(group.faces), face)}; the CSV below holds its numbers">
  <p><a download="dissimilarities.csv" href="data:text/csv;base64,{csv}">Download the numbers (CSV)</a></p>
</div>"""


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _tile(group: Group, row: int, label: str) -> str:
    label = html.escape(label)
    crop = group.faces[row].crop.resize((84, 84), Image.Resampling.LANCZOS)
    return (
        f'<figure><img src="{data_uri(crop)}" alt="Face in {label}">'
        f'<figcaption title="{label}">{label}</figcaption></figure>'
    )


def matrix(group: Group, order: list[int], threshold: float) -> Image.Image:
    """Draw dissimilarities as squares, from indigo at 0 over pale at the threshold to white at twice that, with the
    faces along its top and left edges."""
    side = max(8, min(48, 840 // (len(order) + 1)))
    alike = (1 - group.distances[np.ix_(order, order)] / (2 * threshold)).clip(0, 1)[..., None] ** 1.5
    cells = (np.array([255, 255, 255]) * (1 - alike) + np.array([67, 56, 202]) * alike).astype(np.uint8)
    picture = Image.new("RGB", (side * (len(order) + 1),) * 2, "white")
    picture.paste(Image.fromarray(cells.repeat(side, 0).repeat(side, 1)), (side, side))
    for place, row in enumerate(order, 1):
        tile = group.faces[row].crop.convert("RGB").resize((side, side))
        picture.paste(tile, (place * side, 0))
        picture.paste(tile, (0, place * side))
    return picture
