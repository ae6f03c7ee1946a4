"""Convert the samples of an image to 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

SAMPLE_BITS = (8, 10, 12, 14, 16)  # that a file with 16 bits per sample may use


class UnscaledError(ValueError):
    """The samples of an image have an unknown range."""


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert to mode "L" or "RGB", with transparent parts on white."""
    # Pillow clips samples above 255 instead of scaling them, which would turn a 16-bit photo white.
    if image.mode.startswith("I"):
        samples = np.asarray(image)
        samples = samples.clip(0, 65535).astype(np.uint16) if image.mode == "I" else samples
        # A lookup table needs no more memory than its result, also for a large image.
        image = Image.fromarray(_lookup_table(int(samples.max()))[samples])
    elif image.mode == "F":
        image = Image.fromarray(_scale_floats(np.asarray(image)))
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")  # which would copy it
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        image = white
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _lookup_table(largest: int) -> np.ndarray:
    """Return the 8-bit value of each 16-bit sample, (65536,), if the file uses only as many bits as `largest` needs."""
    bits = next((bits for bits in SAMPLE_BITS if largest < 1 << bits), 16)
    return (np.arange(65536) * 255 / ((1 << bits) - 1)).round().clip(max=255).astype(np.uint8)


def _scale_floats(samples: np.ndarray) -> np.ndarray:
    """Convert samples in [0, 1] or [0, 255] to 8 bits.

    Raises:
        UnscaledError: if they have another range.
    """
    smallest, largest = samples.min(), samples.max()
    if not 0 <= smallest <= largest <= 255:
        raise UnscaledError("the samples of the image are not in [0, 1] or [0, 255]; scale them first")
    scaled = samples * (255 if largest <= 1 else 1)
    return scaled.round(out=scaled).astype(np.uint8)
