"""Draw the Find tab: the most likely face, and all faces in the photos."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from siamese import images, wording
from siamese.images import data_uri
from siamese.page.faces import place_box
from siamese.page.html import message, symbol
from siamese.page.uploads import Upload
from siamese.search.find_in_photos import Found, FoundFace

PREVIEW_PIXELS = 640  # longest side of a photo, at least


def answer(found: Found, words: wording.Vocabulary) -> str:
    """Draw the most likely face next to the portrait, or say that there is none."""
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in found.problems)
    problems = f"<ul>{problems}</ul>" if problems else ""
    if not found.faces:
        return message(" ".join((f"The photos show no {words.item}.", *found.problems)), "no face")
    best = found.faces[0]
    state = wording.verdict_of(best.probability)
    crops = [
        f'<img src="{data_uri(face.crop, "WEBP")}" alt="{alt}">'
        for face, alt in ((found.portrait, "The face of the portrait"), (best.face, "The most likely face"))
    ]
    titles = {"same": "Found", "unsure": "Perhaps found", "different": "Probably not in the photos"}
    return f"""
<div class="answer {state}"><div class="pair">{symbol(state).join(crops)}</div>
  <p class="verdict">{titles[state]}</p>
  <p>The most likely {words.item} is in {escape(best.name)}:
    <b>{wording.percent(best.probability)}</b> likely {words.same}.</p>
  {problems}</div>"""


def photos(found: Found, files: Sequence[Upload]) -> str:
    """Draw the photos with a box and a likelihood for each face, the photo with the most likely face first.

    Args:
        found: the faces.
        files: the uploads, which `FoundFace.photo` indexes.
    """
    order = dict.fromkeys(face.photo for face in found.faces)
    return f'<div class="searched">{"".join(_photo(found, photo, files[photo]) for photo in order)}</div>'


def _photo(found: Found, number: int, file: Upload) -> str:
    image, reduced = images.read_reduced(file, PREVIEW_PIXELS)
    faces = [face for face in found.faces if face.photo == number]
    boxes = "".join(
        f'<span class="box {wording.verdict_of(face.probability)} {"best" if face is found.faces[0] else ""}" '
        f'style="{place}">'
        f"<span>{_likelihood(face)}</span></span>"
        for face in reversed(faces)  # the most likely one on top
        if face.face.box and (place := place_box(face.face.box, image.width * reduced, image.height * reduced))
    )
    name = escape(faces[0].name)
    alt = ", ".join(f"face {face.number}: {_likelihood(face)}" for face in faces)
    return f"""
  <figure><div class="photo"><img src="{data_uri(image.convert("RGB"), "JPEG")}"
    alt="{name} with the likelihood of each face; {alt}">
    {boxes}</div><figcaption>{name}</figcaption></figure>"""


def _likelihood(face: FoundFace) -> str:
    """Return a probability that fits above a box."""
    return escape(wording.percent(face.probability).replace("over ", ">").replace("under ", "<"))
