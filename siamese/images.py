"""Any picture that a person may hand over → an upright RGB image, or a sentence that says what is wrong with it."""

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

# Each 16-bit sample in 8 bits: looked up, a large picture takes no more memory than its answer.
SIXTEEN_TO_EIGHT = (np.arange(65536) / 257).round().astype(np.uint8)


def read(source: ImageSource) -> Image.Image:
    """Read one picture as people mean it: upright, first frame, transparent parts on white, 8 bits a channel.

    Args:
        source: a path (also one inside a zip), an image file that is open, its content, a PIL image, or a uint8 array
            (H, W), (H, W, 3) RGB or (H, W, 4) RGBA. OpenCV's arrays are BGR: hand over `array[..., ::-1]`.

    Returns:
        An RGB image of at least 8 × 8 and at most 50 million pixels, turned as its EXIF orientation says.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no picture, is damaged, too small or too large; the sentence says which.
    """
    return read_at_least(source, None)[0]


def read_at_least(source: ImageSource, longest: int | None) -> tuple[Image.Image, int]:
    """Read one picture (see `read`), at a half, a third … of its size where it is larger than needed.

    JPEGs are decoded so, several times as fast.

    Args:
        source: see `read`.
        longest: keep at least that many pixels on the longest side; None to keep all.

    Returns:
        The image, and how many times longer each side of the picture itself is, a whole number.

    Raises:
        FileNotFoundError, ValueError: see `read`.
    """
    if isinstance(source, np.ndarray):
        name, image = "the array", _from_array(source)
    elif isinstance(source, Image.Image):
        name, image = "the image", source
    elif isinstance(source, bytes):
        name, image = "the file", _open(source, "the file")
    elif hasattr(source, "read"):
        with contextlib.suppress(AttributeError, OSError):  # some cannot go back
            source.seek(0)
        name, image = "the file", _open(source.read(), "the file")
    elif isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        raise ValueError(f"{source} is an address, and nothing is fetched: save the picture, and name its file")
    else:
        path = source if isinstance(source, ZipPath) else Path(source)
        name, image = path.name, _open(_content(path), path.name)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} has {width} × {height} pixels; at most {MAX_PIXELS // 10**6} million are read. Save it smaller."
        )
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{name} has only {width} × {height} pixels; each side needs at least {MIN_SIDE}.")
    try:
        if longest and not isinstance(source, Image.Image):
            image.draft(None, tuple(max(1, longest * side // max(width, height)) for side in (width, height)))
        image = _opaque(_upright(image))
        if longest:
            image = image.reduce(max(1, max(image.size) // longest))
        return image.convert("RGB"), round(max(width, height) / max(image.size))
    except Exception as error:  # on hostile files Pillow's decoders raise almost anything
        raise ValueError(f"{name} is damaged or cut short. Save it again as JPEG or PNG.") from error


def is_one(source) -> bool:
    """Whether this is one picture, see `read`, and not several."""
    if isinstance(source, np.ndarray):
        return source.dtype == np.uint8 and (source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4)))
    return isinstance(source, str | PathLike | ZipPath | bytes | Image.Image) or hasattr(source, "read")


def fit(image: Image.Image, input_shape: tuple[int, int, int]) -> Image.Image:
    """Bring an image to a network's input, the same way in training and in use.

    The whole picture is resized, whatever its proportions, with Pillow's antialiased bilinear filter.

    Args:
        image: from `read`.
        input_shape: (C, H, W) with C = 1 for gray (ITU-R 601-2 luma) or 3 for RGB.
    """
    channels, height, width = input_shape
    return image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)


def to_tensor(image: Image.Image) -> Tensor:
    """Return the (C, H, W) uint8 tensor of an "L" or "RGB" image."""
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}"
        )
    return Image.fromarray(array)


def _content(path: Path | ZipPath) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a picture in it")
    try:
        return path.read_bytes()
    except (BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged inside its zip archive") from error


def _open(content: bytes, name: str) -> Image.Image:
    if not content:
        raise ValueError(f"{name} is empty (0 bytes).")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large headers; `read` refuses them with the limit in the sentence.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} has far more than the {MAX_PIXELS // 10**6} million pixels that are read. Save it smaller."
        ) from error
    except Exception as error:  # see above
        raise ValueError(f"{name} is not a picture that can be read. Save it as JPEG or PNG.") from error


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    # Asked first, since Pillow copies even what needs no turn.
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def _opaque(image: Image.Image) -> Image.Image:
    """Return the picture in 8 bits a channel, "L" or "RGB", with its transparent parts on white."""
    # Pillow clips wide samples to 255 instead of scaling them, which turns a 16-bit photo white.
    if image.mode.startswith("I;16"):
        image = Image.fromarray(SIXTEEN_TO_EIGHT[np.asarray(image)])
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
