"""Saliency maps: which parts of two faces make their distance small or large."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siamese.comparison import Comparison
from siamese.faces.detection import Landmarks
from siamese.model import Model
from siamese.network import SiameseNetwork, distance

MIN_MAP_SIDE = 20  # cells; the deepest feature map with at least this height and width is used


def saliency_maps(model: Model, answer: Comparison) -> tuple[np.ndarray, np.ndarray] | None:
    """Estimate how much the distance would change if a part of a face were blank.

    The estimate for a cell of a feature map is, to first order, the gradient of the distance times the difference that
    blanking makes, where blank means the mean of the map. The gradient is taken half-way to the blank map: the midpoint
    rule for integrated gradients (Sundararajan et al., ICML 2017). The other face stays as it is.

    Returns:
        For each crop an (H, W) float32 map in [-1, 1]: above 0 for parts that make the distance smaller, below 0 for
        parts that make it larger. Both maps have the same scale. None if a face is missing, and for an imported
        network, which has no gradients.
    """
    face1, face2 = answer.faces
    network = model.network
    if face1 is None or face2 is None or network.onnx:
        return None
    x = torch.stack([face.pixels for face in (face1, face2)]).to(network.device)  # (2, C, H, W)
    with torch.no_grad():
        features, rest = _split_backbone(network, x)  # (B, c, h, w), with B = 4 if mirror images are added, else 2
        blank = features.mean((2, 3), keepdim=True)  # (B, c, 1, 1)
        z = network.head(network.average(rest(features)))  # (2, D)
    half = ((features + blank) / 2).requires_grad_()
    total = distance(network.head(network.average(rest(half))), z.flip(0)).sum()
    (gradient,) = torch.autograd.grad(total, half)
    rise = -(gradient * (features - blank)).sum(1, keepdim=True)  # (B, 1, h, w)
    if len(rise) > len(x):
        faces, mirrored = rise.tensor_split(2)
        rise = faces + mirrored.flip(3)
    rise = F.avg_pool2d(rise, 3, stride=1, padding=1, count_include_pad=False)
    rise = F.interpolate(rise, x.shape[2:], mode="bicubic").squeeze(1)  # (2, H, W)
    map1, map2 = (rise / rise.abs().max().clamp_min(1e-12)).cpu().numpy()
    return map1, map2


def _split_backbone(network: SiameseNetwork, x: Tensor) -> tuple[Tensor, nn.Sequential]:
    """Return the deepest feature map of at least `MIN_MAP_SIDE`, and the stages of the backbone after it."""
    assert isinstance(network.backbone, nn.Sequential), "it was not imported"
    features, stages = network.prepare(x), list(network.backbone)
    while (deeper := stages[0](features)).dim() == 4 and min(deeper.shape[2:]) >= MIN_MAP_SIDE:
        features, stages = deeper, stages[1:]
    return features, nn.Sequential(*stages)


def region_means(values: np.ndarray, template: Landmarks) -> dict[str, float]:
    """Return the mean of an (H, W) saliency map over boxes around the landmarks of an aligned face."""
    left_eye, right_eye, nose, left_mouth, right_mouth = template
    wide, eyes, mouth = (
        right_eye[0] - left_eye[0],
        (left_eye[1] + right_eye[1]) / 2,
        (left_mouth[1] + right_mouth[1]) / 2,
    )
    high, (x, _) = mouth - eyes, nose
    boxes = {  # left, top, right, bottom, in sides of the crop
        "eyebrows": [(x - 0.9 * wide, eyes - 0.45 * high, x + 0.9 * wide, eyes - 0.18 * high)],
        "eyes": [(x - 0.9 * wide, eyes - 0.18 * high, x + 0.9 * wide, eyes + 0.18 * high)],
        "nose": [(x - 0.3 * wide, eyes + 0.18 * high, x + 0.3 * wide, mouth - 0.25 * high)],
        "cheeks": [
            (x - 0.9 * wide, eyes + 0.25 * high, x - 0.4 * wide, mouth),
            (x + 0.4 * wide, eyes + 0.25 * high, x + 0.9 * wide, mouth),
        ],
        "mouth": [(x - 0.55 * wide, mouth - 0.22 * high, x + 0.55 * wide, mouth + 0.22 * high)],
        "chin": [(x - 0.55 * wide, mouth + 0.22 * high, x + 0.55 * wide, mouth + 0.7 * high)],
    }
    height, width = values.shape

    def cut(left: float, top: float, right: float, bottom: float) -> np.ndarray:
        rows = slice(max(0, round(top * height)), round(bottom * height))
        return values[rows, max(0, round(left * width)) : round(right * width)]

    return {
        region: float(np.concatenate([cut(*box).ravel() for box in parts]).mean()) for region, parts in boxes.items()
    }
