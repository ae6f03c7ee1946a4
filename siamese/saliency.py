"""Which parts of two faces pulled them together, and which apart."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from siamese import images
from siamese.model import Comparison, Model
from siamese.network import SiameseNetwork, distance

CELLS = 20  # the deepest feature map that is at least as high and wide is explained


def heat(model: Model, answer: Comparison) -> tuple[np.ndarray, np.ndarray] | None:
    """Estimate by how much the distance would rise if a part of a face were blanked.

    On a feature map it is, to first order, the gradient of the distance times what blanking takes away: all that
    differs from the map's mean. The gradient is taken half-way there, the midpoint rule of integrated gradients
    (Sundararajan et al., ICML 2017), with the other face as it is.

    Args:
        model: which gave the answer.
        answer: two faces, or two plain images.

    Returns:
        For each crop an (H, W) float32 map in [-1, 1]: above 0 what pulls the two together, below 0 what pulls them
        apart. Both maps have one scale, so they can be compared. None where a face is missing.
    """
    if None in answer.faces:
        return None
    network = model.network
    x = torch.stack([images.to_tensor(face.crop) for face in answer.faces]).to(network.device)
    with torch.no_grad():
        features, deeper, stages = _features(network, x)
        blank = features.mean((2, 3), keepdim=True)
        z = network.finish(deeper, stages + 1)
    half = ((features + blank) / 2).requires_grad_()
    (gradient,) = torch.autograd.grad(distance(network.finish(half, stages), z.flip(0)).sum(), half)
    rise = -(gradient * (features - blank)).sum(1, keepdim=True)  # (B, 1, h, w)
    if len(rise) > len(x):
        faces, mirrored = rise.tensor_split(2)
        rise = faces + mirrored.flip(3)
    rise = F.avg_pool2d(rise, 3, stride=1, padding=1, count_include_pad=False)
    rise = F.interpolate(rise, x.shape[2:], mode="bicubic").squeeze(1)
    first, second = (rise / rise.abs().max().clamp_min(1e-12)).cpu().numpy()
    return first, second


def _features(network: SiameseNetwork, x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the feature map to explain, what the next stage makes of it, and how many stages it is behind."""
    features, stages = network.begin(x, 0), 0
    for stage in network.backbone:
        deeper = stage(features)
        if deeper.dim() != 4 or min(deeper.shape[2:]) < CELLS:
            break
        features, stages = deeper, stages + 1
    return features, deeper, stages
