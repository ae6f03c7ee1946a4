"""Photos as inputs of MTCNN: image pyramids in one image for its first network, and crops for the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

WINDOW = 12  # pixels: the side of the windows of the first network
MARGIN = WINDOW // 2  # windows may reach half their size beyond an image
LEVEL_SCALE = 0.709  # from one level of a pyramid to the next: half the area
HALVINGS = 4  # of a photo, for the crops of large faces
GRAY = 128  # zero for the networks, and the colour beyond the photos

# `import torchvision` takes longer than `import torch`, because it imports its models and torch._dynamo. The
# operators used here and in `mtcnn` are in its compiled library.
TORCHVISION = Path(str(distribution("torchvision").locate_file("torchvision")))
torch.ops.load_library(next(TORCHVISION.glob("_C*")))


class Pyramids(NamedTuple):
    """The L levels of the image pyramids of all photos, packed into one gray image.

    Attributes:
        pixels: (1, 3, H, W) float, normalised.
        level: (H', W') index of the level at each position of the window, with a stride of 2; -1 beyond all levels.
        corner: (L, 2) left and top of each level.
        stretch: (L, 4) size of a level's pixel in the photo, as x, y, x, y.
        owner: (L,) index of the photo of each level.
    """

    pixels: Tensor
    level: Tensor
    corner: Tensor
    stretch: Tensor
    owner: Tensor


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

    Returns:
        The (left, top) of each image, and the (width, height) of all. Corners are even, so that windows with a stride
        of 2 are at the same pixels of an image wherever it is placed.
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
    """Return square boxes as (N, 3, side, side) pixels; gray beyond the photos.

    Args:
        levels: from `mipmap`.
        boxes: (N, 4) left, top, right, bottom.
        owner: (N,) index of the photo of each box.
        side: height and width of the crops.
    """
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
