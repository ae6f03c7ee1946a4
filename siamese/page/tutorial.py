"""Compare two photos with the network of the tutorial that this project started from."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from siamese import images
from siamese.comparison import Comparison
from siamese.faces.detection import MAX_PHOTO_SIDE, Box
from siamese.model import Model
from siamese.page.charts import PairDistances
from siamese.page.html import network_card
from siamese.wording import FACES

ASPECT_RATIO = 92 / 112  # width to height of the AT&T portraits that the tutorial network was trained on


def explanation(tutorial: Model) -> str:
    """Return Markdown that introduces the comparison."""
    return (
        "## Comparison with the tutorial network\n\n"
        "This project started from a tutorial. Its small network was trained on "
        f"{len(tutorial.record.people.training)} people. Below, both networks compare the same two photos. The "
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
    boxes = [face.box for face in answer.faces if face and face.box]
    heads = [portrait(photo, box) for photo, box in zip(photos, boxes, strict=True)]
    other = tutorial.compare(*heads)
    return f"""<div class="sides">
{network_card("This network", answer, pairs, FACES)}
{network_card("Tutorial network", other, PairDistances(tutorial.record.curves), FACES)}
</div>"""


def portrait(photo: str | Path, box: Box) -> Image.Image:
    """Crop the head around the box of a face, as in the AT&T portraits."""
    left, top, right, bottom = box
    x, y, height = (left + right) / 2, (top + bottom) / 2, (bottom - top) * 1.4
    width = height * ASPECT_RATIO
    head = (x - width / 2, y - height * 0.52, x + width / 2, y + height * 0.48)
    image, reduced = images.read_reduced(photo, MAX_PHOTO_SIDE)
    left, top, right, bottom = (round(edge / reduced) for edge in head)
    return image.crop((left, top, right, bottom))
