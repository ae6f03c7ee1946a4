"""MTCNN: a cascade of three small networks that finds faces and their landmarks.

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", IEEE
Signal Processing Letters 2016. Crops that reach beyond the photo are padded. Clamping them to the photo would stretch
them and shift the landmarks of faces that fill a photo. The padding is gray, which is zero for the networks; the
paper's code pads with black, whose edges hide faces in tight crops.
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
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from siamese.files import bundled_weights

MIN_SCORE = {"pnet": 0.6, "rnet": 0.7, "onet": 0.7}
# Of the smaller of two boxes. In LFW, different people in front of each other share up to 0.37, and false faces inside
# a face share 0.6 and more.
MAX_SHARED = 0.5
# Boxes of each photo that RNet and ONet look at, the best ones. Most photos have less than a hundred and ten.
MAX_PROPOSALS, MAX_FACES = 1000, 200
WINDOW = 12  # pixels: the side of the windows of the first network
MARGIN = WINDOW // 2  # windows may reach half their size beyond an image
LEVEL_SCALE = 0.709  # from one level of a pyramid to the next: half the area
HALVINGS = 4  # of a photo, for the crops of large faces
GRAY = 128  # zero for the networks, and the colour beyond the photos

# `import torchvision` takes longer than `import torch`, because it imports its models and torch._dynamo. The
# operators used here and in `mtcnn` are in its compiled library.
TORCHVISION = Path(str(distribution("torchvision").locate_file("torchvision")))
torch.ops.load_library(next(TORCHVISION.glob("_C*")))


class DetectionTensors(NamedTuple):
    """The K faces of one image, in pixels from its upper left corner."""

    boxes: Tensor  # (K, 4) float, left, top, right, bottom; may reach beyond the image
    landmarks: Tensor  # (K, 5, 2) float, x and y of left eye, right eye, nose, left and right corner of the mouth
    scores: Tensor  # (K,) float in [0, 1]


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
def detect(photos: Sequence[Image.Image], smallest: int, device: str | torch.device = "cpu") -> list[DetectionTensors]:
    """Find the upright faces of at least `smallest` pixels, 12 or more, in B photos: at most `MAX_FACES` in each.

    The result of a photo does not depend on the other photos.
    """
    device = torch.device(device)
    pnet, rnet, onet = networks(device)
    levels = mipmap(photos, device)
    boxes, owner = _propose(pnet, pyramids(photos, smallest, device))  # (N, 4), (N,) index of the photo

    boxes = _square(boxes)
    scores, shift = rnet(crops(levels, boxes, owner, rnet.side))
    kept = scores > MIN_SCORE["rnet"]
    boxes, scores, owner = _moved(boxes[kept], shift[kept]), scores[kept], owner[kept]
    kept = _batched_nms(boxes, scores, owner, 0.7)
    kept = kept[_are_first(owner[kept], MAX_FACES)]
    boxes, owner = _square(boxes[kept]), owner[kept]

    scores, shift, landmarks = _output(onet, crops(levels, boxes, owner, onet.side))
    landmarks = boxes[:, None, :2] + landmarks * (boxes[:, None, 2:] - boxes[:, None, :2])
    boxes = _moved(boxes, shift)
    kept = (scores > MIN_SCORE["onet"]).nonzero().squeeze(1)
    kept = kept[_distinct(boxes[kept], scores[kept], owner[kept])]
    rows = [kept[owner[kept] == number] for number in range(len(photos))]
    return [DetectionTensors(boxes[k], landmarks[k], scores[k]) for k in rows]


def _propose(pnet: PNet, levels: Pyramids) -> tuple[Tensor, Tensor]:
    """Run PNet. Returns (N, 4) boxes and the (N,) indices of their photos."""
    score, shift = pnet(levels.pixels)
    score, shift = score[0], shift[0]
    row, column = ((score > MIN_SCORE["pnet"]) & (levels.level >= 0)).nonzero(as_tuple=True)
    level, order = levels.level[row, column].sort(stable=True)  # an order that does not depend on the other photos
    row, column = row[order], column[order]
    score, shift = score[row, column], shift[:, row, column].T
    corner = torch.stack([column, row], dim=1) * 2 - levels.corner[level]
    windows = torch.cat([corner, corner + WINDOW], dim=1)
    kept = _batched_nms(windows, score, level, 0.5)
    windows, score, shift, level = windows[kept], score[kept], shift[kept], level[kept]
    boxes, owner = _moved(windows * levels.stretch[level], shift), levels.owner[level]
    kept = _batched_nms(boxes, score, owner, 0.7)
    kept = kept[_are_first(owner[kept], MAX_PROPOSALS)]
    return boxes[kept], owner[kept]


def _output(onet: ONet, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run ONet on (N, 3, 48, 48) crops and their mirror images: scores, shifts and landmarks, in sides of the crop."""
    scores, shift, points = onet(torch.cat([faces, faces.flip(3)]))
    shift, mirrored_shift = shift.view(2, -1, 4)
    mirrored_shift = mirrored_shift[:, [2, 1, 0, 3]] * shift.new_tensor([-1, 1, -1, 1])
    points, mirrored_points = points.view(2, -1, 2, 5).mT
    mirrored_points = mirrored_points[:, [1, 0, 2, 4, 3]] * points.new_tensor([-1, 1]) + points.new_tensor([1, 0])
    return scores.view(2, -1).mean(0), (shift + mirrored_shift) / 2, (points + mirrored_points) / 2


def _distinct(boxes: Tensor, scores: Tensor, owner: Tensor) -> Tensor:
    """Drop boxes that share more than `MAX_SHARED` of the smaller box with a better one of the same photo.

    Unlike the intersection over union, this drops a mouth inside a face. Returns the indices to keep, best first.
    """
    upper_left = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    lower_right = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (lower_right - upper_left).clamp(min=0).prod(2)  # (K, K)
    area = shared.diagonal()
    nested = ((shared > MAX_SHARED * torch.minimum(area[:, None], area)) & (owner[:, None] == owner)).tolist()
    kept: list[int] = []
    for row in scores.argsort(descending=True, stable=True).tolist():
        if not any(nested[row][better] for better in kept):
            kept.append(row)
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)


def _batched_nms(boxes: Tensor, scores: Tensor, group: Tensor, max_overlap: float) -> Tensor:
    """Suppress boxes that overlap a better one of the same group. Returns the indices to keep, best first."""
    if not len(boxes):
        return group
    # Boxes of different groups are moved apart. With double precision, which not every device has, this does not
    # change their overlaps.
    corners = boxes.cpu().double()
    apart = group.cpu() * (corners.max() - corners.min() + 1)
    return torch.ops.torchvision.nms(corners + apart[:, None], scores.cpu().double(), max_overlap).to(boxes.device)


def _are_first(group: Tensor, limit: int) -> Tensor:
    """Return whether each box is among the first `limit` of its group, (N,) bool."""
    order, sizes = group.argsort(stable=True), group.bincount()
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - (sizes.cumsum(0) - sizes)[group[order]]
    return place < limit


def _moved(boxes: Tensor, shift: Tensor) -> Tensor:
    """Move each edge by a network's `shift`, given in sides of the box."""
    return boxes + shift * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """Return squares with the centres of the boxes and their longer sides."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    half = torch.maximum(width, height)[:, None] / 2
    return torch.cat([centre - half, centre + half], dim=1)


@cache
def networks(device: torch.device) -> tuple[PNet, RNet, ONet]:
    """Return the three networks, loaded once for each device."""
    pnet, rnet, onet = PNet(), RNet(), ONet()
    modules = nn.ModuleDict({"pnet": pnet, "rnet": rnet, "onet": onet})
    modules.load_state_dict(load_file(bundled_weights("mtcnn") / "model.safetensors"))
    modules.eval().to(device).to(memory_format=torch.channels_last)
    return pnet, rnet, onet


class Pyramids(NamedTuple):
    """The L levels of the image pyramids of all photos, packed into one gray image."""

    pixels: Tensor  # (1, 3, H, W) float, normalized
    level: Tensor  # (H', W') index of the level at each position of the window, with a stride of 2; -1 beyond all
    corner: Tensor  # (L, 2) left and top of each level
    stretch: Tensor  # (L, 4) size of a level's pixel in the photo, as x, y, x, y
    owner: Tensor  # (L,) index of the photo of each level


def pyramids(photos: Sequence[Image.Image], smallest: int, device: torch.device) -> Pyramids:
    """Shrink photos step by step, so that faces of `smallest` pixels and larger fill the window on some level."""
    levels: list[Image.Image] = []
    stretches, owners = [], []
    for owner, photo in enumerate(photos):
        scale, level = WINDOW / smallest, photo
        while min(photo.size) * scale >= WINDOW * 2 / 3:
            level = level.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BOX)
            levels.append(level)
            stretches.append((photo.width / level.width, photo.height / level.height) * 2)
            owners.append(owner)
            scale *= LEVEL_SCALE

    corners, (width, height) = _pack([level.size for level in levels])
    pixels = np.full((height, width, 3), GRAY, np.uint8)
    numbers = np.full(((height - WINDOW) // 2 + 1, (width - WINDOW) // 2 + 1), -1)
    for number, (level, (left, top)) in enumerate(zip(levels, corners, strict=True)):
        pixels[top : top + level.height, left : left + level.width] = np.asarray(level)
        row, column = (top - MARGIN) // 2, (left - MARGIN) // 2
        numbers[row : row + level.height // 2 + 1, column : column + level.width // 2 + 1] = number
    return Pyramids(
        _normalise(torch.from_numpy(pixels[None]), device),
        torch.from_numpy(numbers).to(device),
        torch.tensor(corners, device=device).view(-1, 2),
        torch.tensor(stretches, device=device).view(-1, 4),
        torch.tensor(owners, device=device, dtype=torch.long),
    )


def _pack(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Place images of (width, height) `sizes` in rows, the highest first, with `MARGIN` pixels around each.

    Returns the (left, top) of each image, and the (width, height) of all. Corners are even, so that windows with a
    stride of 2 are at the same pixels of an image wherever it is placed.
    """
    cells = [(width + width % 2 + MARGIN, height + height % 2 + MARGIN) for width, height in sizes]
    limit = max([math.sqrt(1.2 * sum(width * height for width, height in cells)), *(width for width, _ in cells)])
    corners = [(0, 0)] * len(sizes)
    left = top = MARGIN
    right = bottom = WINDOW
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number][1]):
        width, height = cells[number]
        if left + width > limit + MARGIN:
            left, top = MARGIN, bottom
        corners[number] = left, top
        left += width
        right, bottom = max(right, left), max(bottom, top + height)
    return corners, (right, bottom)


def mipmap(photos: Sequence[Image.Image], device: torch.device) -> list[Tensor]:
    """Return (B, 3, H, W) normalised photos at full size, half, a quarter, …, with gray to the right and below."""
    levels = []
    for _ in range(HALVINGS + 1):
        height, width = max(photo.height for photo in photos) + 1, max(photo.width for photo in photos) + 1
        pixels = np.full((len(photos), height, width, 3), GRAY, np.uint8)
        for target, photo in zip(pixels, photos, strict=True):
            target[: photo.height, : photo.width] = np.asarray(photo)
        levels.append(_normalise(torch.from_numpy(pixels), device).contiguous())
        photos = [photo.reduce(2) for photo in photos]
    return levels


def crops(levels: list[Tensor], boxes: Tensor, owner: Tensor, side: int) -> Tensor:
    """Return square boxes, (N, 4), of the photos `owner`, (N,), as (N, 3, side, side) pixels; gray beyond photos."""
    regions = torch.cat([owner[:, None].to(boxes.dtype), boxes], dim=1)
    # A pixel of the crop is taken from the level whose pixels are about as large: 0.7 to 1.4 times.
    halvings = ((boxes[:, 2] - boxes[:, 0]) / side).log2().round().clamp(0, HALVINGS)
    pixels = boxes.new_zeros(len(boxes), 3, side, side).contiguous(memory_format=torch.channels_last)
    for number, level in enumerate(levels):
        rows = (halvings == number).nonzero().squeeze(1)
        pixels[rows] = torch.ops.torchvision.roi_align(level, regions[rows], 0.5**number, side, side, 1, True)
    return pixels


def _normalise(pixels: Tensor, device: torch.device) -> Tensor:
    """Map (B, H, W, 3) uint8 to the networks' (B, 3, H, W)."""
    return (pixels.to(device).permute(0, 3, 1, 2).float() - GRAY) / GRAY
