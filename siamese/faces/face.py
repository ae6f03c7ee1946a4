"""A picture → what a network is to see of it, its faces or all of it, and what makes a face hard to compare."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from siamese import images
from siamese.faces import detection as faces
from siamese.faces.detection import Found

# Beyond these a face is hard to compare, and the answer says so. In LFW's photographs under 1 in 100 faces is.
SMALL = 60  # pixels
BLURRED = 0.186  # see `_sharpness`
DARK = 40  # mean gray level, of 255
TURNED = 0.5  # see `Found.turn`


@dataclass(frozen=True)
class Face:
    """What the network saw of one picture.

    Attributes:
        crop: the image at the network's input size, "L" or "RGB".
        found: where in the upright picture the face was found; None for plain images, which are taken whole. So are
            then `box`, `landmarks`, `angle` and `score`, which are the same as there.
    """

    crop: Image.Image
    found: Found | None = None

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        return self.found and self.found.box

    @property
    def landmarks(self) -> tuple[tuple[float, float], ...] | None:
        return self.found and self.found.landmarks

    @property
    def angle(self) -> float | None:
        return self.found and self.found.angle

    @property
    def score(self) -> float | None:
        return self.found and self.found.score


def see(
    pictures: Sequence[images.ImageSource],
    input_shape: tuple[int, int, int],
    align: str,
    device: str | torch.device = "cpu",
) -> list[list[Face]]:
    """Read pictures, and cut out of each what a network may see of it.

    Args:
        pictures: see `images.read`.
        input_shape: the network's, (C, H, W).
        align: "faces" for the faces in a picture, "none" for all of it.
        device: where to look for faces.

    Returns:
        For each picture its faces, upright, the one to compare first; or the picture as a whole.

    Raises:
        FileNotFoundError, ValueError: for a picture that cannot be read.
    """
    if align == "none":
        return [[Face(images.fit(images.read(picture), input_shape))] for picture in pictures]
    read = [images.read_at_least(picture, faces.LONGEST) for picture in pictures]
    return [
        [Face(images.fit(faces.align(photo, one, input_shape[1]), input_shape), one.scaled(scale)) for one in found]
        for (photo, scale), found in zip(read, faces.find([photo for photo, _ in read], device), strict=True)
    ]


def quality_warnings(face: Face | None, count: int, number: int, name: str) -> list[str]:
    """Say what makes a face hard to compare.

    Args:
        face: one of `see`, or None where there is none.
        count: how many faces its picture shows.
        number: which of these it is.
        name: of the picture, "first" or "second".

    Returns:
        Sentences for the person who asked; often none.
    """
    if face is None:
        return [
            f"No face was found in the {name} picture. Try one where the whole face is in view, larger and well lit; a "
            "drawing or a back of a head will not do."
        ]
    warnings = []
    if count > 1:
        chosen = "the largest near the middle" if number == 0 else f"number {number}"
        warnings.append(f"{count} faces in the {name} picture; {chosen} was compared.")
    edge = face.crop.height // 8
    gray = np.asarray(face.crop.convert("L"), dtype=float)[edge:-edge, edge:-edge]
    if face.found.size < SMALL:
        warnings.append(f"The face in the {name} picture is small: {face.found.size:.0f} pixels.")
    elif _sharpness(gray) < BLURRED:
        warnings.append(f"The face in the {name} picture is blurred.")
    if gray.mean() < DARK:
        warnings.append(f"The face in the {name} picture is very dark.")
    if face.found.turn > TURNED:
        warnings.append(f"The face in the {name} picture is strongly turned to the side.")
    return warnings


def _sharpness(gray: np.ndarray) -> float:
    """Return how much a gray level changes from one pixel to the next, as a share of how much it does over six: 1/6
    where all is smooth, more where there is detail."""

    def step(pixels: int) -> float:
        return float(
            np.abs(gray[pixels:] - gray[:-pixels]).mean() + np.abs(gray[:, pixels:] - gray[:, :-pixels]).mean()
        )

    return step(1) / (step(6) or 1.0)
