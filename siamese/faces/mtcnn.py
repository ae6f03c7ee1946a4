"""MTCNN: a cascade of three small networks that finds faces and their landmarks.

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", IEEE
Signal Processing Letters 2016. Crops that reach beyond the image are padded with black, as in the paper's code.
Clamping them to the image would stretch them and shift the landmarks of faces that fill a photo.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from siamese.network import bundled_weights

PNET_WINDOW = 12  # pixels
PYRAMID_SCALE = 0.709  # from one level to the next: half the area
MIN_SCORE = {"pnet": 0.6, "rnet": 0.7, "onet": 0.7}

# `import torchvision` takes longer than `import torch`, because it imports its models and torch._dynamo. The two
# operators used here are in its compiled library.
TORCHVISION = Path(str(distribution("torchvision").locate_file("torchvision")))
torch.ops.load_library(next(TORCHVISION.glob("_C*")))


class DetectionTensors(NamedTuple):
    """The K faces of one image, in pixels from its upper left corner.

    Attributes:
        boxes: (K, 4) float, left, top, right, bottom; may reach beyond the image.
        landmarks: (K, 5, 2) float, x and y of left eye, right eye, nose, left and right corner of the mouth, as seen
            in the image.
        scores: (K,) float in [0, 1].
    """

    boxes: Tensor
    landmarks: Tensor
    scores: Tensor


class PNet(nn.Module):
    """Proposal network: scores every 12 × 12 window of an image, with a stride of 2 pixels."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 10, 3), nn.PReLU(10), nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(10, 16, 3), nn.PReLU(16),
            nn.Conv2d(16, 32, 3), nn.PReLU(32),
        )  # fmt: skip
        self.score, self.shift = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(x)
        return self.score(x).softmax(1)[:, 1], self.shift(x)


class RNet(nn.Module):
    """Refinement network: scores 24 × 24 crops."""

    side = 24

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 28, 3), nn.PReLU(28), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(28, 48, 3), nn.PReLU(48), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(48, 64, 2), nn.PReLU(64), nn.Flatten(),
            nn.Linear(576, 128), nn.PReLU(128),
        )  # fmt: skip
        self.score, self.shift = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(x)
        return self.score(x).softmax(1)[:, 1], self.shift(x)


class ONet(nn.Module):
    """Output network: scores 48 × 48 crops and predicts five landmarks."""

    side = 48

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.PReLU(32), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(32, 64, 3), nn.PReLU(64), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(64, 64, 3), nn.PReLU(64), nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(64, 128, 2), nn.PReLU(128), nn.Flatten(),
            nn.Linear(1152, 256), nn.PReLU(256),
        )  # fmt: skip
        self.score, self.shift, self.landmarks = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.features(x)
        return self.score(x).softmax(1)[:, 1], self.shift(x), self.landmarks(x)


@torch.inference_mode()
def detect(x: Tensor, smallest: int) -> list[DetectionTensors]:
    """Find the upright faces in images of one size.

    Args:
        x: (B, 3, H, W) float RGB in [0, 255].
        smallest: side in pixels of the smallest face to look for, at least 12.

    Returns:
        B results, on the device of `x`.
    """
    pnet, rnet, onet = networks(x.device)
    boxes, scores, owner = _propose(pnet, x, smallest)  # (N, 4), (N,), (N,) index of the image

    boxes = _square(boxes)
    scores, shift = rnet(_crop(x, boxes, owner, rnet.side))
    kept = scores > MIN_SCORE["rnet"]
    boxes, scores, owner = _moved(boxes[kept], shift[kept]), scores[kept], owner[kept]
    kept = _batched_nms(boxes, scores, owner, 0.7)
    boxes, owner = _square(boxes[kept]), owner[kept]

    scores, shift, _ = onet(_crop(x, boxes, owner, onet.side))
    boxes = _moved(boxes, shift)
    kept = (scores > MIN_SCORE["onet"]).nonzero().squeeze(1)
    kept = kept[_batched_nms(boxes[kept], scores[kept], owner[kept], 0.4)]
    boxes, scores, owner = boxes[kept], scores[kept], owner[kept]

    landmarks = _landmarks(onet, x, _square(boxes), owner)
    return [
        DetectionTensors(boxes[rows], landmarks[rows], scores[rows]) for rows in (owner == b for b in range(len(x)))
    ]


def _propose(pnet: PNet, x: Tensor, smallest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Run PNet over an image pyramid, padded by half a window.

    Returns:
        (N, 4) boxes, (N,) scores and (N,) indices of the images.
    """
    height, width = x.shape[2:]
    boxes, scores, owners = [x.new_empty(0, 4)], [x.new_empty(0)], [torch.empty(0, dtype=torch.long, device=x.device)]
    scale = PNET_WINDOW / smallest
    black = (0 - 127.5) / 128
    while min(height, width) * scale >= PNET_WINDOW * 2 / 3:
        x = F.interpolate(x, (round(height * scale), round(width * scale)), mode="area")
        score, shift = pnet(F.pad(_normalise(x), (PNET_WINDOW // 2,) * 4, value=black))
        owner, row, column = (score > MIN_SCORE["pnet"]).nonzero(as_tuple=True)
        score, shift = score[owner, row, column], shift[owner, :, row, column]
        corner = torch.stack([column, row], dim=1) * 2 - PNET_WINDOW // 2
        stretch = x.new_tensor([width / x.shape[3], height / x.shape[2]] * 2)
        box = torch.cat([corner, corner + PNET_WINDOW], dim=1) * stretch
        kept = _batched_nms(box, score, owner, 0.5)
        boxes.append(_moved(box, shift)[kept])
        scores.append(score[kept])
        owners.append(owner[kept])
        scale *= PYRAMID_SCALE
    box, score, owner = torch.cat(boxes), torch.cat(scores), torch.cat(owners)
    kept = _batched_nms(box, score, owner, 0.7)
    return box[kept], score[kept], owner[kept]


def _landmarks(onet: ONet, x: Tensor, boxes: Tensor, owner: Tensor) -> Tensor:
    """Predict the landmarks in the final boxes, (K, 5, 2): the mean over each face and its mirror image."""
    crops = _crop(x, boxes, owner, onet.side)
    _, _, points = onet(torch.cat([crops, crops.flip(3)]))
    points, mirrored = points.view(2, -1, 2, 5).mT
    mirrored = mirrored[:, [1, 0, 2, 4, 3]] * mirrored.new_tensor([-1, 1]) + mirrored.new_tensor([1, 0])
    return boxes[:, None, :2] + (points + mirrored) / 2 * (boxes[:, None, 2:] - boxes[:, None, :2])


def _batched_nms(boxes: Tensor, scores: Tensor, owner: Tensor, max_overlap: float) -> Tensor:
    """Suppress boxes that overlap a better one of the same image. Returns the indices to keep, best first."""
    if not len(boxes):
        return owner
    # Boxes of different images are moved apart, as in torchvision.ops.batched_nms.
    apart = owner * (boxes.max() + 1)
    return torch.ops.torchvision.nms(boxes + apart[:, None], scores, max_overlap)


def _crop(x: Tensor, boxes: Tensor, owner: Tensor, side: int) -> Tensor:
    """Return each box as (side, side) pixels, averaged over the pixels it covers; black beyond the image."""
    regions = torch.cat([owner[:, None].to(boxes.dtype), boxes], dim=1)
    return _normalise(torch.ops.torchvision.roi_align(x, regions, 1.0, side, side, -1, True))


def _moved(boxes: Tensor, shift: Tensor) -> Tensor:
    """Move each edge by a network's `shift`, given in sides of the box."""
    return boxes + shift * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """Return squares with the centres of the boxes and their longer sides."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _normalise(pixels: Tensor) -> Tensor:
    return (pixels - 127.5) / 128


@cache
def networks(device: torch.device) -> tuple[PNet, RNet, ONet]:
    """Return the three networks, loaded once for each device."""
    pnet, rnet, onet = PNet(), RNet(), ONet()
    modules = nn.ModuleDict({"pnet": pnet, "rnet": rnet, "onet": onet})
    modules.load_state_dict(load_file(bundled_weights("mtcnn") / "model.safetensors"))
    modules.eval().to(device)
    return pnet, rnet, onet
