"""Warnings about faces that are hard to compare, with the likely cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from siamese.faces.face import Face, Part
from siamese.network import POOR_QUALITY, SiameseNetwork

Cause = Literal["covered", "small", "blurred", "dark", "turned", "poor"]

SMALL_FACE_PIXELS = 60  # `Face.size`
BLURRED_SHARPNESS = 0.19  # see `sharpness`
DARK_GRAY_LEVEL = 40  # mean, of 255
TURNED_RATIO = 0.5  # `Face.turn`
MAX_QUALITY = 0.9  # faces with a higher quality are not checked; one face in five of LFW has a lower one


def quality_causes(face: Face) -> list[Cause]:
    """Return what makes a detected face hard to compare.

    A face with a known quality of at least `POOR_QUALITY` has no cause, unless a part of it is covered.
    """
    assert face.detection, "the face was detected"
    assert face.crop, "it was detected in a photo"
    causes: list[Cause] = ["covered"] if face.covered else []
    if face.quality is not None and face.quality >= POOR_QUALITY:
        return causes
    margin = face.crop.height // 8  # background
    gray = np.asarray(face.crop.convert("L"), dtype=float)[margin:-margin, margin:-margin]
    if face.detection.size < SMALL_FACE_PIXELS:
        causes.append("small")
    elif sharpness(gray) < BLURRED_SHARPNESS:
        causes.append("blurred")
    if gray.mean() < DARK_GRAY_LEVEL:
        causes.append("dark")
    if face.detection.turn > TURNED_RATIO:
        causes.append("turned")
    if face.quality is not None and not causes:
        causes.append("poor")
    return causes


def quality_warnings(face: Face, photo: str) -> list[str]:
    """Describe what makes a face in a photo, such as "the first photo", hard to compare; empty for most faces."""
    assert face.detection, "the face was detected"
    sentences: dict[Cause, str] = {
        "covered": f"seems to be covered around the {' and the '.join(face.covered)}.",
        "small": f"is small: {face.detection.size:.0f} pixels.",
        "blurred": "is blurred.",
        "dark": "is very dark.",
        "turned": "is turned far to the side.",
        "poor": "is hard to recognise: the photo is of poor quality.",
    }
    return [f"The face in {photo} {sentences[cause]}" for cause in quality_causes(face)]


def sharpness(gray: np.ndarray) -> float:
    """Return the mean absolute difference of pixels 1 apart, relative to that of pixels 6 apart.

    It is 1/6 for a smooth gradient, and higher for an image with fine detail.
    """

    def mean_difference(step: int) -> float:
        vertical, horizontal = gray[step:] - gray[:-step], gray[:, step:] - gray[:, :-step]
        return float(np.abs(vertical).mean() + np.abs(horizontal).mean())

    return mean_difference(1) / (mean_difference(6) or 1.0)


class Region(NamedTuple):
    """A part of a face.

    `min_change` is the distance between the embeddings, of length 1, of the face and of the face with this part blank.
    It is smaller if the part is covered. On LFW's View 1 this was so for nearly all drawn masks, for more than half of
    the drawn dark glasses, and for 1 in 150 untouched faces, which wore dark glasses.
    """

    name: Part
    top: float  # the rows of a crop that is aligned with `TEMPLATE`, in sides of the crop
    bottom: float
    min_change: float


REGIONS = (Region("eyes", 0.357, 0.554, 0.6), Region("mouth", 0.589, 1.0, 0.5))


@torch.inference_mode()
def mark_covered(network: SiameseNetwork, faces: Sequence[Face]) -> list[Face]:
    """Set `Face.covered` of faces with a low quality, if the network has quality scores."""
    checked = [row for row, face in enumerate(faces) if face.quality is not None and face.quality < MAX_QUALITY]
    result = list(faces)
    if not checked:
        return result
    x = torch.stack([faces[row].pixels for row in checked])  # (K, C, H, W)
    versions = [x]
    for region in REGIONS:
        rows = slice(round(region.top * x.shape[2]), round(region.bottom * x.shape[2]))
        blank = x.clone()
        blank[:, :, rows] = x[:, :, rows].float().mean((2, 3), keepdim=True).to(torch.uint8)
        versions.append(blank)
    z = F.normalize(network.features(torch.cat(versions).to(network.device))).float().cpu()
    face, *blanks = z.tensor_split(len(versions))  # (K, D) each
    changes = torch.stack([torch.linalg.vector_norm(face - blank, dim=1) for blank in blanks], dim=1)
    for row, change in zip(checked, changes.tolist(), strict=True):
        covered = tuple(region.name for region, value in zip(REGIONS, change, strict=True) if value < region.min_change)
        result[row] = replace(faces[row], covered=covered)
    return result
