"""Convert images to network inputs."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def fit(image: Image.Image, input_shape: tuple[int, int, int]) -> Image.Image:
    """Resize an image to a network's input size, with Pillow's antialiased bilinear filter. Proportions are not kept.

    Args:
        image: from `images.read`.
        input_shape: (C, H, W), with C = 1 for gray (ITU-R 601-2 luma) or 3 for RGB.
    """
    channels, height, width = input_shape
    return image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image of mode "L" or "RGB" as a (C, H, W) uint8 tensor."""
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()
