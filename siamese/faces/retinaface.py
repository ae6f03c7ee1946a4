"""RetinaFace: one small network that finds faces and their landmarks.

Deng et al., "RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild", CVPR 2020, with a quarter of the
channels of a MobileNet (Howard et al., 2017). The batch normalisation of the original is folded into the convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from siamese.files import bundled_weights

MEAN = (123, 117, 104)  # RGB, subtracted from the pixels
STRIDES = (8, 16, 32)  # pixels between the cells of each level
ANCHOR_SIDES = ((16, 32), (64, 128), (256, 512))  # pixels: the two boxes of a cell that the outputs move and scale
MAX_OVERLAP = 0.4  # intersection over union of two faces

# `import torchvision` takes longer than `import torch`, because it imports its models and torch._dynamo. The operator
# used here is in its compiled library.
TORCHVISION = Path(str(distribution("torchvision").locate_file("torchvision")))
torch.ops.load_library(next(TORCHVISION.glob("_C*")))


class Candidates(NamedTuple):
    """K faces in an image, the best first. Coordinates are pixels from its upper left corner."""

    boxes: Tensor  # (K, 4) float, left, top, right, bottom; may reach beyond the image
    landmarks: Tensor  # (K, 5, 2) float, x and y of left eye, right eye, nose, left and right corner of the mouth
    scores: Tensor  # (K,) float in [0, 1]


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups)
    return nn.Sequential(layer, nn.LeakyReLU(0.1, inplace=True))


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """A block of MobileNet: filter each channel, then mix the channels."""
    filtered = _convolution(inputs, inputs, stride=stride, groups=inputs)
    return nn.Sequential(filtered, _convolution(inputs, outputs, size=1))


class Context(nn.Module):
    """Joins windows of 3, 5 and 7 cells, as SSH does (Najibi et al., ICCV 2017)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(64, 32 + 16, 3, padding=1)
        self.window5 = nn.Conv2d(16, 16, 3, padding=1)
        self.window7 = nn.Sequential(_convolution(16, 16), nn.Conv2d(16, 16, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        window3, y = self.first(x).split((32, 16), dim=1)
        y = F.leaky_relu(y, 0.1)
        return torch.cat([window3, self.window5(y), self.window7(y)], dim=1).relu()


class RetinaFace(nn.Module):
    """Maps (B, 3, H, W) RGB images, minus `MEAN`, to the outputs of each level, (B, 30, H / stride, W / stride).

    The outputs of a cell are the log-odds of a face for its two anchors, then centre and size of each box, and then the
    landmarks of each.
    """

    def __init__(self):
        super().__init__()
        # fmt: off
        self.stage1 = nn.Sequential(                                          # (B,  3, H, W)
            _convolution(3, 8, stride=2), _separable(8, 16),                  # (B, 16, H /  2, W /  2)
            _separable(16, 32, stride=2), _separable(32, 32),                 # (B, 32, H /  4, W /  4)
            _separable(32, 64, stride=2), _separable(64, 64),                 # (B, 64, H /  8, W /  8)
        )
        self.stage2 = nn.Sequential(                                          # (B, 128, H / 16, W / 16)
            _separable(64, 128, stride=2), *(_separable(128, 128) for _ in range(5))
        )
        self.stage3 = nn.Sequential(                                          # (B, 256, H / 32, W / 32)
            _separable(128, 256, stride=2), _separable(256, 256)
        )
        # fmt: on
        self.lateral = nn.ModuleList(_convolution(channels, 64, size=1) for channels in (64, 128, 256))
        self.merge = nn.ModuleList(_convolution(64, 64) for _ in range(2))
        self.context = nn.ModuleList(Context() for _ in range(3))
        self.heads = nn.ModuleList(nn.Conv2d(64, 2 * (1 + 4 + 10), 1) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        x8 = self.stage1(x)
        x16 = self.stage2(x8)
        x32 = self.stage3(x16)
        x8, x16, x32 = (layer(y) for layer, y in zip(self.lateral, (x8, x16, x32), strict=True))
        x16 = self.merge[1](x16 + F.interpolate(x32, size=x16.shape[2:]))
        x8 = self.merge[0](x8 + F.interpolate(x16, size=x8.shape[2:]))
        levels = zip(self.heads, self.context, (x8, x16, x32), strict=True)
        return [head(context(y)) for head, context, y in levels]


@torch.inference_mode()
def detect(
    images: Sequence[Image.Image], min_score: float, device: torch.device, dtype: torch.dtype = torch.float32
) -> list[Candidates]:
    """Find the faces with at least a score in B images of one size."""
    network = load_network(device, dtype)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(device)  # (B, H, W, 3) uint8
    mean = torch.tensor(MEAN, dtype=dtype, device=device).repeat(pixels.shape[2])  # of a row: faster than of a pixel
    x = pixels.flatten(2).to(dtype).sub_(mean).view(pixels.shape)
    outputs = network(x.permute(0, 3, 1, 2))  # in channels-last format
    levels = zip(outputs, STRIDES, ANCHOR_SIDES, strict=True)
    parts = [_decode(output.float(), stride, sides, min_score) for output, stride, sides in levels]
    owner, boxes, landmarks, scores = (torch.cat(values).cpu() for values in zip(*parts, strict=True))
    found = []
    for number in range(len(images)):
        rows = (owner == number).nonzero().squeeze(1)
        rows = rows[torch.ops.torchvision.nms(boxes[rows].double(), scores[rows].double(), MAX_OVERLAP)]
        found.append(Candidates(boxes[rows], landmarks[rows], scores[rows]))
    return found


def _decode(
    output: Tensor, stride: int, sides: tuple[int, int], min_score: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return image (N,), box (N, 4), landmarks (N, 5, 2) and score (N,) of the anchors of a level with a high score."""
    log_odds = output[:, :2]  # (B, 2, H, W)
    owner, anchor, row, column = (log_odds >= math.log(min_score / (1 - min_score))).nonzero(as_tuple=True)
    values = output[owner, :, row, column]  # (N, 30)
    each = torch.arange(len(owner), device=output.device)
    side = output.new_tensor(sides)[anchor, None]  # (N, 1)
    centre = (torch.stack([column, row], dim=1) + 0.5) * stride  # (N, 2), of the cell
    box = values[:, 2:10].view(-1, 2, 4)[each, anchor]
    middle, half = centre + 0.1 * side * box[:, :2], side * (0.2 * box[:, 2:]).exp() / 2
    points = values[:, 10:].view(-1, 2, 5, 2)[each, anchor]
    landmarks = centre[:, None] + 0.1 * side[:, None] * points
    return owner, torch.cat([middle - half, middle + half], dim=1), landmarks, values[each, anchor].sigmoid()


@cache
def load_network(device: torch.device, dtype: torch.dtype) -> RetinaFace:
    """Return the network, loaded once for each device and type."""
    network = RetinaFace()
    network.load_state_dict(load_file(bundled_weights("retinaface") / "model.safetensors"))
    return network.eval().to(device, dtype).to(memory_format=torch.channels_last)
