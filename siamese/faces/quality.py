"""Warnings about faces that are hard to compare, with the likely cause."""

from __future__ import annotations

from typing import Literal

import numpy as np

from siamese.faces.face import Face
from siamese.network import POOR_QUALITY

Cause = Literal["covered", "small", "blurred", "dark", "turned", "poor"]

SMALL_FACE_PIXELS = 60  # `Face.size`
BLURRED_SHARPNESS = 0.19  # see `sharpness`
DARK_GRAY_LEVEL = 40  # mean, of 255
TURNED_RATIO = 0.5  # `Face.turn`


def quality_causes(face: Face) -> list[Cause]:
    """Return what makes a detected face hard to compare.

    A face with a known quality of at least `POOR_QUALITY` has no cause, unless a part of it is covered.
    """
    size, turn = face.size, face.turn
    assert size is not None, "the face was detected"
    assert turn is not None, "the face was detected"
    causes: list[Cause] = ["covered"] if face.covered else []
    if face.quality is not None and face.quality >= POOR_QUALITY:
        return causes
    margin = face.crop.height // 8  # background
    gray = np.asarray(face.crop.convert("L"), dtype=float)[margin:-margin, margin:-margin]
    if size < SMALL_FACE_PIXELS:
        causes.append("small")
    elif sharpness(gray) < BLURRED_SHARPNESS:
        causes.append("blurred")
    if gray.mean() < DARK_GRAY_LEVEL:
        causes.append("dark")
    if turn > TURNED_RATIO:
        causes.append("turned")
    if face.quality is not None and not causes:
        causes.append("poor")
    return causes


def quality_warnings(face: Face, name: str) -> list[str]:
    """Describe what makes a face hard to compare, see `quality_causes`.

    Args:
        face: a detected face.
        name: "first" or "second" photo.

    Returns:
        Sentences for the user; empty for most faces.
    """
    sentences: dict[Cause, str] = {
        "covered": f"seems to be covered around the {' and the '.join(face.covered)}.",
        "small": f"is small: {face.size:.0f} pixels.",
        "blurred": "is blurred.",
        "dark": "is very dark.",
        "turned": "is turned far to the side.",
        "poor": "is hard to recognise: the photo is of poor quality.",
    }
    return [f"The face in the {name} photo {sentences[cause]}" for cause in quality_causes(face)]


def sharpness(gray: np.ndarray) -> float:
    """Return the mean absolute difference of pixels 1 apart, relative to that of pixels 6 apart.

    Args:
        gray: (H, W) gray levels.

    Returns:
        1/6 for a smooth gradient, higher for an image with fine detail.
    """

    def mean_difference(step: int) -> float:
        vertical, horizontal = gray[step:] - gray[:-step], gray[:, step:] - gray[:, :-step]
        return float(np.abs(vertical).mean() + np.abs(horizontal).mean())

    return mean_difference(1) / (mean_difference(6) or 1.0)
