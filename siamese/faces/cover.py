"""Detect covered faces: if a part of a face is covered, a blank part in its place hardly changes the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F

from siamese import inputs
from siamese.faces.face import Face, Part
from siamese.network import SiameseNetwork

MAX_QUALITY = 0.9  # faces with a higher quality are not checked; one face in five of LFW has a lower one


class Region(NamedTuple):
    """A part of a face.

    Attributes:
        name: what is there.
        top, bottom: the rows of a crop, aligned with `alignment.TEMPLATE`, in sides of the crop.
        min_change: the distance between the embeddings, of length 1, of the face and of the face with this part blank.
            It is smaller if the part is covered. On LFW's View 1 this was so for nearly all drawn masks, for more than
            half of the drawn dark glasses, and for 1 in 150 untouched faces, which wore dark glasses.
    """

    name: Part
    top: float
    bottom: float
    min_change: float


REGIONS = (Region("eyes", 0.357, 0.554, 0.6), Region("mouth", 0.589, 1.0, 0.5))


@torch.inference_mode()
def mark_covered(network: SiameseNetwork, faces: Sequence[Face]) -> list[Face]:
    """Set `Face.covered` of faces with a low quality.

    Args:
        network: a network with quality scores.
        faces: N faces with their quality. Faces without a quality are not checked.
    """
    checked = [row for row, face in enumerate(faces) if face.quality is not None and face.quality < MAX_QUALITY]
    result = list(faces)
    if not checked:
        return result
    x = torch.stack([inputs.to_tensor(faces[row].crop) for row in checked])  # (K, C, H, W)
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
