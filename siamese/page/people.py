"""Draw the Group tab: the photos, their faces by person, and two chosen faces."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from siamese import images, wording
from siamese.face_pairs import closest_pair
from siamese.images import data_uri
from siamese.page.compare import thumbnail
from siamese.page.html import message, symbol
from siamese.page.names import short_names
from siamese.page.uploads import Upload
from siamese.search.group import Group
from siamese.wording import Vocabulary

TILE_PIXELS = 84  # faces of a group
THUMBNAIL_PIXELS = 96  # longest side of a photo, at least


def example(photos: Sequence[Path], caption: str) -> str:
    """Draw a button that adds example photos. See app.js for the event."""
    drawn = "".join(map(thumbnail, photos))
    return f"""<div class="sample" role="group" aria-label="Example">
  <button type="button" data-example="0"><span>{drawn}</span>{escape(caption)}</button></div>"""


def thumbnails(files: Sequence[Upload]) -> str:
    """Draw uploads in a row, in place of a list of files. Those that cannot be read are left out."""
    names = [file.name for file in files]
    figures = ""
    for file, name, short in zip(files, names, short_names(names), strict=True):
        try:
            photo, _ = images.read_reduced(file, THUMBNAIL_PIXELS)
        except (ValueError, FileNotFoundError):
            continue
        photo.thumbnail((2 * THUMBNAIL_PIXELS,) * 2)
        figures += f"""<figure><img src="{data_uri(photo.convert("RGB"), "WEBP")}" alt="{escape(name)}">
    <figcaption title="{escape(name)}">{escape(short)}</figcaption></figure>"""
    return f'<div class="thumbnails">{figures}</div>'


def people(group: Group, threshold: float, files: Sequence[Upload], words: Vocabulary) -> str:
    """Draw the faces of each person, the dissimilarity of each pair of faces, and links to the numbers and photos.

    Args:
        group: the faces.
        threshold: root mean square distance up to which groups of faces are merged.
        files: the uploads, which `group.photos` indexes.
        words: what the network compares.
    """
    if not group.faces:
        return message(" ".join(group.problems), "problem")
    clusters, labels = group.people(threshold), group.labels()
    short = [
        name + label[len(full) :]  # the number, if the photo shows several faces
        for name, label, full in zip(short_names(group.names), labels, group.names, strict=True)
    ]
    rows = "".join(
        f"""
  <h3>{words.one.capitalize()} {number} ({_count(len(faces), words.item)})</h3>
  <div class="person">{"".join(_tile(group, face, labels[face], short[face]) for face in faces)}</div>"""
        for number, faces in enumerate(clusters, 1)
    )
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in group.problems)
    count = _count(len(group.faces), words.item)
    return f"""
<div class="answer">
  <p class="verdict">{_count(len(clusters), words.one, words.many)}</p>
  <p>{count} in {_count(len(set(group.photos)), "photo")}. Two groups are merged if the dissimilarity of their
    {words.item}s is at most {threshold:.2f} on average (root mean square).</p>
  {f"<ul>{problems}</ul>" if problems else ""}
</div>
<div class="people">
  <p>Click two {words.item}s to compare them.</p>{rows}
  {_downloads(group, clusters, files, words)}
  <h2>Dissimilarity of each pair of {words.item}s</h2>
  <p class="quiet">In the order above. Darker squares are more alike.</p>
  <img class="matrix" src="{data_uri(matrix(group, [face for faces in clusters for face in faces], threshold))}"
    alt="Matrix of the dissimilarities of {count}; the CSV file above contains its numbers">
</div>"""


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _tile(group: Group, face: int, label: str, short: str) -> str:
    crop = group.faces[face].crop.resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.LANCZOS)
    return (
        f'<figure><button type="button" data-face="{face}" aria-pressed="false">'
        f'<img src="{data_uri(crop)}" alt="Face in {escape(label)}"></button>'
        f'<figcaption title="{escape(label)}">{escape(short)}</figcaption></figure>'
    )


def _downloads(group: Group, clusters: list[list[int]], files: Sequence[Upload], words: Vocabulary) -> str:
    """Draw links. The browser builds the archive from the uploads, see app.js, so the server keeps no copy."""
    csv = base64.b64encode(group.to_csv(clusters).encode()).decode()
    return f"""
  <p class="downloads"><button type="button" data-zip="{escape(json.dumps(archive(group, clusters, files, words)))}">
    Download the photos by {words.one} (ZIP)</button>
    <a download="dissimilarities.csv" href="data:text/csv;base64,{csv}">Download the numbers (CSV)</a></p>
  <p role="status"></p>"""


def archive(
    group: Group, clusters: list[list[int]], files: Sequence[Upload], words: Vocabulary
) -> list[tuple[str, str]]:
    """Return the name in the archive and the path of each photo, once for each person that it shows."""
    entries: dict[str, str] = {}
    for number, faces in enumerate(clusters, 1):
        for photo in sorted({group.photos[face] for face in faces}):
            name = files[photo].name
            path = f"{words.one} {number}/{name}"
            if path in entries:  # another photo of this name
                path = f"{words.one} {number}/{photo + 1} {name}"
            entries[path] = files[photo].path
    return list(entries.items())


def pair(group: Group, chosen: tuple[int, int], fmr: float | None, words: Vocabulary) -> str:
    """Draw the comparison of two faces of a group.

    Args:
        group: the faces.
        chosen: indices of the two faces.
        fmr: the requested false-match rate; None for the default.
        words: what the network compares.
    """
    z1, z2 = (group.z[[number]] for number in chosen)
    known = [group.faces[number].quality for number in chosen]
    quality = None if None in known else (np.array(known[:1]), np.array(known[1:]))
    closest = closest_pair(group.calibration, (z1, z2), quality, fmr)
    crops = [
        f'<img src="{data_uri(group.faces[number].crop, "WEBP")}" alt="Face in {escape(group.labels()[number])}">'
        for number in chosen
    ]
    chance = wording.describe_probability(closest.verdict, closest.probability, words)
    return f"""
<div class="answer {closest.verdict}"><div class="pair">{symbol(closest.verdict).join(crops)}</div>
  <p class="verdict">{wording.describe_verdict(closest.verdict, closest.probability, fmr, words)}</p>
  <p>{chance[0].upper()}{chance[1:]}. Dissimilarity: {closest.distance:.2f}</p></div>"""


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
