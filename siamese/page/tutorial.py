"""Compare two photos with the network of the tutorial that this project started from."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from siamese import images
from siamese.faces import Face
from siamese.faces.detection import MAX_PHOTO_SIDE
from siamese.model import Comparison, Model
from siamese.page.charts import PairDistances
from siamese.page.html import network_card
from siamese.page.text import FACES

ASPECT_RATIO = 92 / 112  # width to height of the AT&T portraits that the tutorial network was trained on


def explanation(tutorial: Model) -> str:
    """Return Markdown that introduces the comparison."""
    return (
        "## Comparison with the tutorial network\n\n"
        "This project started from a tutorial. Its network was trained on "
        f"{len(tutorial.record.people.training)} people, and its embeddings have only "
        "two numbers. Below, both networks compare the same two photos. The "
        "tutorial network is an example to learn from; it is not accurate."
    )


def side_by_side(answer: Comparison, pairs: PairDistances, photos: tuple[str, str], tutorial: Model) -> str:
    """Draw the answers of the network of the page and of the tutorial network as HTML.

    Args:
        answer: a comparison of two faces.
        pairs: test pairs of the network that gave the answer.
        photos: paths of the two photos.
        tutorial: the tutorial network.
    """
    heads = [portrait(photo, face) for photo, face in zip(photos, answer.faces, strict=True) if face]
    other = tutorial.compare(*heads)
    return f"""<div class="sides">
{network_card("This network", answer, pairs, FACES)}
{network_card("Tutorial network", other, PairDistances(tutorial.record.curves), FACES)}
</div>"""


def portrait(photo: str | Path, face: Face) -> Image.Image:
    """Crop the head as in the AT&T portraits, with the face in the middle."""
    assert face.box  # detected faces have one
    left, top, right, bottom = face.box
    x, y, height = (left + right) / 2, (top + bottom) / 2, (bottom - top) * 1.4
    width = height * ASPECT_RATIO
    left, top, right, bottom = x - width / 2, y - height * 0.52, x + width / 2, y + height * 0.48
    image, reduced = images.read_reduced(photo, MAX_PHOTO_SIDE)
    return image.crop((round(left / reduced), round(top / reduced), round(right / reduced), round(bottom / reduced)))
