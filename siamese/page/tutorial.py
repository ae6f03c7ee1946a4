"""Show two photos to the network of the tutorial that this project started from."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from siamese import images
from siamese.faces.detection import MAX_PHOTO_SIDE, Box
from siamese.model import Model
from siamese.page import plane

TUTORIAL = "https://datahacker.rs/019-siamese-network-in-pytorch-with-application-to-face-similarity/"
ATT_FACES = "https://cam-orl.co.uk/facedatabase.html"
ASPECT_RATIO = 92 / 112  # width to height of the AT&T portraits that the tutorial network was trained on


def explanation(tutorial: Model) -> str:
    """Return Markdown that introduces the map."""
    people = tutorial.record.people
    return (
        "## What the tutorial network sees\n\n"
        f"This project started from a [tutorial]({TUTORIAL}). Its small network turns each face into two numbers, so "
        "its output can be drawn as a map. Each colour is one person of the "
        f"[AT&T faces]({ATT_FACES}): small dots are the {len(people.training)} people of the training set, large dots "
        f"are {len(people.test)} people that it never saw. Dots of one person should be close together. Your two "
        "photos, or two example photos, are joined by a line, whose length is their dissimilarity.\n\n"
        "The network is an example to learn from. It is not accurate, so the map shows no verdict."
    )


def map_of(photos: Sequence[images.ImageSource], boxes: Sequence[Box], tutorial: Model) -> str:
    """Draw two faces among the people of the tutorial network, as SVG.

    Args:
        photos: the two photos.
        boxes: the faces in them.
        tutorial: the tutorial network.
    """
    assert tutorial.record.plane, "weights/att holds it"
    heads = [portrait(photo, box) for photo, box in zip(photos, boxes, strict=True)]
    faces = [face for (face,) in tutorial.detect(heads)]
    z, _ = tutorial.embed_faces(faces)
    return plane.draw(tutorial.record.plane, [face.crop for face in faces], z)


def portrait(photo: images.ImageSource, box: Box) -> Image.Image:
    """Crop the head around the box of a face, as in the AT&T portraits."""
    left, top, right, bottom = box
    x, y, height = (left + right) / 2, (top + bottom) / 2, (bottom - top) * 1.4
    width = height * ASPECT_RATIO
    head = (x - width / 2, y - height * 0.52, x + width / 2, y + height * 0.48)
    image, reduced = images.read_reduced(photo, MAX_PHOTO_SIDE)
    left, top, right, bottom = (round(edge / reduced) for edge in head)
    return image.crop((left, top, right, bottom))
