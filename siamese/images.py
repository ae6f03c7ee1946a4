"""Read any image as an upright RGB image, and convert images to network inputs."""

from __future__ import annotations

import base64
import contextlib
import io
import warnings
import zlib
from os import PathLike
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile
from zipfile import Path as ZipPath

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

ImageSource = str | PathLike | ZipPath | bytes | BinaryIO | Image.Image | np.ndarray

MAX_PIXELS = 50_000_000
MIN_SIDE = 8
ADVICE = "save it as JPEG or PNG"

# A lookup table needs no more memory than its result, also for a large image.
SIXTEEN_TO_EIGHT_BITS = (np.arange(65536) / 257).round().astype(np.uint8)


def read(source: ImageSource) -> Image.Image:
    """Read an image: the first frame, upright, on a white background, with 8 bits per channel.

    Args:
        source: a path (also inside a zip archive), an open image file, the bytes of one, a PIL image, or a uint8 array
            of shape (H, W), (H, W, 3) RGB or (H, W, 4) RGBA. OpenCV's arrays are BGR: pass `array[..., ::-1]`.

    Returns:
        An RGB image of at least 8 × 8 and at most 50 million pixels, rotated by its EXIF orientation.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not an image, or is damaged, too small or too large.
    """
    return read_reduced(source, None)[0]


def read_reduced(source: ImageSource, min_long_side: int | None) -> tuple[Image.Image, int]:
    """Read an image at 1/2, 1/3, … of its size if it is larger than needed. JPEG files are then decoded much faster.

    Args:
        source: see `read`.
        min_long_side: keep at least this many pixels on the longest side; None to keep all.

    Returns:
        The image, and the integer by which each side of the original is longer.

    Raises:
        FileNotFoundError, ValueError: see `read`.
    """
    name, image = _open(source)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} has {width} × {height} pixels, more than {MAX_PIXELS // 10**6} million; use a smaller version"
        )
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{name} has only {width} × {height} pixels; each side needs at least {MIN_SIDE}")
    try:
        if min_long_side and not isinstance(source, Image.Image):
            long_side = max(width, height)
            image.draft(None, (max(1, min_long_side * width // long_side), max(1, min_long_side * height // long_side)))
        image = _to_eight_bits(_upright(image))
        if min_long_side:
            image = image.reduce(max(1, max(image.size) // min_long_side))
        return image.convert("RGB"), round(max(width, height) / max(image.size))
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise ValueError(f"{name} is damaged or incomplete; {ADVICE}") from error


def is_single_image(source: object) -> bool:
    """Return whether `source` is one image, see `read`, and not a sequence of images."""
    if isinstance(source, np.ndarray):
        return source.dtype == np.uint8 and (source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4)))
    return isinstance(source, str | PathLike | ZipPath | bytes | Image.Image) or hasattr(source, "read")


def fit(image: Image.Image, input_shape: tuple[int, int, int]) -> Image.Image:
    """Resize an image to a network's input size, with Pillow's antialiased bilinear filter. Proportions are not kept.

    Args:
        image: from `read`.
        input_shape: (C, H, W), with C = 1 for gray (ITU-R 601-2 luma) or 3 for RGB.
    """
    channels, height, width = input_shape
    return image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image of mode "L" or "RGB" as a (C, H, W) uint8 tensor."""
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()


def data_uri(image: Image.Image, format: str = "PNG") -> str:
    """Encode an image in a URI, to show it in HTML without storing a file."""
    file = io.BytesIO()
    image.save(file, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _open(source: ImageSource) -> tuple[str, Image.Image]:
    """Return a name for error messages, and the image, not decoded yet."""
    if isinstance(source, np.ndarray):
        return "the array", _from_array(source)
    if isinstance(source, Image.Image):
        return "the image", source
    if isinstance(source, bytes):
        return "the file", _from_bytes(source, "the file")
    if not isinstance(source, str | PathLike | ZipPath):
        with contextlib.suppress(AttributeError, OSError):  # not every stream can seek
            source.seek(0)
        return "the file", _from_bytes(source.read(), "the file")
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        raise ValueError(f"{source} is a URL; download the image and give its path")
    path = source if isinstance(source, ZipPath) else Path(source)
    return path.name, _from_bytes(_read_bytes(path), path.name)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}"
        )
    return Image.fromarray(array)


def _read_bytes(path: Path | ZipPath) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the path of an image")
    try:
        return path.read_bytes()
    except (BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged inside its zip archive; create the archive again") from error


def _from_bytes(content: bytes, name: str) -> Image.Image:
    if not content:
        raise ValueError(f"{name} is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # `read_reduced` checks the size itself, with a lower limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} has far more than {MAX_PIXELS // 10**6} million pixels; use a smaller version"
        ) from error
    except Exception as error:  # Pillow's parsers raise many types for damaged files
        raise ValueError(f"{name} is not an image that can be read; {ADVICE}") from error


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    # `exif_transpose` copies the image even if there is nothing to rotate.
    rotated = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if rotated else image


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert to mode "L" or "RGB", with transparent parts on white."""
    # Pillow clips samples above 255 instead of scaling them, which would turn a 16-bit photo white.
    if image.mode.startswith("I;16"):
        image = Image.fromarray(SIXTEEN_TO_EIGHT_BITS[np.asarray(image)])
    elif image.mode in ("I", "F"):
        samples = np.asarray(image, dtype=np.float32)
        wide, narrow = (255, 1) if image.mode == "F" else (65535, 255)
        ceiling = wide if samples.max() > narrow else narrow
        image = Image.fromarray((samples * (255 / ceiling)).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        image = white
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
