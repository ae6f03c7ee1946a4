"""Warnings about faces that are hard to compare, with the likely cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from siamese.faces.face import Cause, Face, Part
from siamese.network import POOR_QUALITY, SiameseNetwork

SMALL_FACE_PIXELS, TINY_FACE_PIXELS = 60, 30  # `Detection.size`
BLURRED_SHARPNESS = 0.19  # see `sharpness`
DARK_GRAY_LEVEL = 40  # mean, of 255
TURNED_RATIO = 0.5  # `Face.turn`
MAX_QUALITY = 0.9  # covers of faces with a higher quality are not looked for; one face in five of LFW has a lower one
COVERED = 0.3  # see `visible_quality`
# A drawn face mostly has one color. In both halves of a face, the most common color has a larger share on most
# drawings, and on none of 400 photos of LFW's View 1, as they are, covered, compressed, dark, gray or blurred.
DRAWN_SHARE = 0.3


def quality_causes(face: Face, drawn: bool) -> list[Cause]:
    """Return what makes a detected face hard to compare, if it is `drawn` or not, see `is_drawn`.

    A face with a known quality of at least `POOR_QUALITY` has no cause, unless a part of it is covered or it is tiny.
    """
    assert face.detection, "the face was detected"
    assert face.crop, "it was detected in a photo"
    causes: list[Cause] = ["covered"] if face.covered else []
    if drawn:
        return ["drawn"]
    if face.quality is not None and face.quality >= POOR_QUALITY and face.detection.size >= TINY_FACE_PIXELS:
        return causes
    margin = face.crop.height // 8  # background
    gray = np.asarray(face.crop.convert("L"), dtype=float)[margin:-margin, margin:-margin]
    if face.detection.size < SMALL_FACE_PIXELS:
        causes.append("small")
    if sharpness(gray) < BLURRED_SHARPNESS:
        causes.append("blurred")
    if gray.mean() < DARK_GRAY_LEVEL:
        causes.append("dark")
    if face.detection.turn > TURNED_RATIO:
        causes.append("turned")
    if face.quality is not None and not causes:
        causes.append("poor")
    return causes


def quality_warnings(face: Face, photo: str) -> list[str]:
    """Describe what makes an embedded face in a photo, such as "the first photo", hard to compare; mostly empty."""
    assert face.detection, "the face was detected"
    sentences: dict[Cause, str] = {
        "covered": f"seems to be covered around the {' and the '.join(face.covered)}.",
        "drawn": "seems to be drawn, and the network was made for photos.",
        "small": f"is small (about {face.detection.size:.0f} pixels wide).",
        "blurred": "is blurred.",
        "dark": "is very dark.",
        "turned": "is turned far to the side.",
        "poor": "is hard to recognise: the photo is of poor quality.",
    }
    return [f"The face in {photo} {sentences[cause]}" for cause in face.causes]


def sharpness(gray: np.ndarray) -> float:
    """Return the mean absolute difference of pixels 1 apart, relative to that of pixels 6 apart.

    It is 1/6 for a smooth gradient, and higher for an image with fine detail.
    """

    def mean_difference(step: int) -> float:
        vertical, horizontal = gray[step:] - gray[:-step], gray[:, step:] - gray[:, :-step]
        return float(np.abs(vertical).mean() + np.abs(horizontal).mean())

    return mean_difference(1) / (mean_difference(6) or 1.0)


def is_drawn(face: Face) -> bool:
    """Return whether a face seems to be drawn: one color has more than `DRAWN_SHARE` of its upper and its lower half.

    A mask covers only the lower half.
    """
    assert face.crop, "it was detected in a photo"
    pixels = np.asarray(face.crop.convert("RGB"), dtype=int)[::2, ::2]  # one in four, for speed
    rows, columns = np.indices(pixels.shape[:2]) / len(pixels)
    inside = ((columns - 0.496) / 0.357) ** 2 + ((rows - 0.554) / 0.429) ** 2 <= 1
    colors = pixels[inside]  # (N, 3)
    low, high = np.percentile(colors.mean(1), (2, 98))
    step = max(3.0, 0.04 * (high - low))  # colors that are this close are the same
    for half in np.array_split(colors, 2):  # the pixels are in the order of rows
        exposed = half[((half >= 254).sum(1) < 2) & (half > 1).any(1)]  # neither burnt out nor black
        cells = [np.floor(exposed / step + offset).astype(int) @ (1 << 20, 1 << 10, 1) for offset in (0, 0.5)]
        if max(np.unique(cell, return_counts=True)[1].max(initial=0) for cell in cells) <= DRAWN_SHARE * len(half):
            return False
    return True


class Region(NamedTuple):
    """A part of a face.

    `min_change` is the distance between the embeddings, of length 1, of the face and of the face with this part blank.
    It is smaller if the part is covered, whatever covers it, because a covered part tells nothing.
    """

    name: Part
    top: float  # the rows of a crop that is aligned with `TEMPLATE`, in sides of the crop
    bottom: float
    min_change: float


REGIONS = (Region("eyes", 0.357, 0.554, 0.66), Region("mouth", 0.589, 1.0, 0.56))


@torch.inference_mode()
def part_changes(network: SiameseNetwork, x: Tensor, features: Tensor) -> Tensor:
    """Return how much the embeddings of faces, of length 1, change if a part is blank, see `Region`: (N, 2) on the CPU.

    Args:
        network: the network.
        x: (N, C, H, W) uint8, aligned crops, on its device.
        features: (N, D), their unscaled embeddings.
    """
    blanks = x.repeat(len(REGIONS), 1, 1, 1, 1)  # (2, N, C, H, W)
    for blank, region in zip(blanks, REGIONS, strict=True):
        rows = slice(round(region.top * x.shape[2]), round(region.bottom * x.shape[2]))
        blank[:, :, rows] = x[:, :, rows].float().mean((2, 3), keepdim=True).to(torch.uint8)
    z = F.normalize(network.features(blanks.flatten(0, 1), mirrored=False)).unflatten(0, (len(REGIONS), -1))
    return torch.linalg.vector_norm(z - F.normalize(features), dim=2).T.float().cpu()


def visible_quality(quality: Tensor, changes: Tensor) -> Tensor:
    """Return the qualities (N,) of faces, multiplied by `COVERED` if a part is covered, given `part_changes`.

    A covered face tells less than its quality says, because two people with the same mask look alike. So covered faces
    get lower qualities than blurred or small ones, and the calibration learns how much evidence they need.
    """
    covered = (changes < torch.tensor([region.min_change for region in REGIONS])).any(1)
    return torch.where(covered & (quality < MAX_QUALITY), COVERED * quality, quality)


@torch.inference_mode()
def rate_faces(network: SiameseNetwork, faces: Sequence[Face], x: Tensor, features: Tensor) -> list[Face]:
    """Set what makes faces hard to compare; their quality and covered parts too, if the network has quality scores.

    A drawn face gets a low quality, like a covered one: two drawings of different people look alike. `x` and `features`
    of the N faces are as in `part_changes`.
    """
    known = network.quality(features)
    if known is None:
        return [_with_causes(face, drawn=face.detection is not None and is_drawn(face)) for face in faces]
    quality, changes = known.float().cpu(), torch.full((len(faces), len(REGIONS)), torch.inf)
    low = known < MAX_QUALITY
    if low.any():
        changes[low.cpu()] = part_changes(network, x[low], features[low])
    rated = []
    for face, value, row in zip(faces, visible_quality(quality, changes).tolist(), changes.tolist(), strict=True):
        covered = tuple(region.name for region, c in zip(REGIONS, row, strict=True) if c < region.min_change)
        drawn = not covered and is_drawn(face)
        rated.append(_with_causes(replace(face, quality=COVERED * value if drawn else value, covered=covered), drawn))
    return rated


def _with_causes(face: Face, drawn: bool) -> Face:
    return replace(face, causes=tuple(quality_causes(face, drawn))) if face.detection else face
