"""Read any image as an upright RGB image."""

from __future__ import annotations

import base64
import contextlib
import errno
import importlib
import io
import os
import re
import stat
import warnings
import zipfile
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable
from zipfile import Path as ZipPath

import numpy as np
from PIL import ExifTags, Image

from siamese.names import printable

MAX_PIXELS = 65_000_000  # sensors of phones and of most cameras have up to 64 million
ADVICE = "save it as JPEG or PNG"

# The formats of photos; JPEG includes MPO. Pillow reads about 40 more; some of them start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
HEIF_PACKAGES = ("pi_heif", "pillow_heif")  # either adds HEIF to Pillow
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # ISO/IEC 23008-12
AVIF_BRANDS = {b"avif", b"avis"}
MAX_BRANDS_BYTES = 256
RAW_SUFFIXES = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".srw", ".x3f"),
}
# Each scan of a progressive JPEG costs as much time as a whole baseline JPEG. Cameras and editors write at most 20.
MAX_JPEG_SCANS = 100
MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # of a segment of a JPEG file; all but restart markers
SAMPLE_BITS = (8, 10, 12, 14, 16)  # that a file with 16 bits per sample may use


@runtime_checkable
class ReducedReader(Protocol):
    """An image that can read itself, see `read_reduced`."""

    def read_reduced(self, min_long_side: int | None) -> tuple[Image.Image, int]: ...


ImageContent = str | PathLike | ZipPath | bytes | BinaryIO | Image.Image | np.ndarray
ImageSource = ImageContent | ReducedReader

MIN_SIDE = 8
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
ARRAY_ADVICE = "arrange it as height × width × channels with values from 0 to 255, and convert it to uint8"
MAX_FILE_BYTES = 500_000_000  # 65 million pixels with three 16-bit samples have 390 MB
PIECE_BYTES = 64  # that are unpacked at once by methods without a limit; bzip2 makes up to 90 MB of them
MAX_NAME_LENGTH = 80  # of a file in an error message
MAX_PATH_LENGTH = 4096
# What turns an image upright, by its orientation in EXIF.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(source: ImageSource) -> Image.Image:
    """Read an image: the first frame, upright, on a white background, with 8 bits per channel.

    Args:
        source: a path (also inside a zip archive), an open image file, the bytes of one, a PIL image, or a uint8 array
            of shape (H, W), (H, W, 3) RGB or (H, W, 4) RGBA. OpenCV's arrays are BGR: pass `array[..., ::-1]`.

    Returns:
        An RGB image of at least 8 × 8 and at most 65 million pixels, rotated by its EXIF orientation.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not an image, or is damaged, too small or too large.
    """
    return read_reduced(source, None)[0]


def read_reduced(source: ImageSource, min_long_side: int | None) -> tuple[Image.Image, int]:
    """Read an image at 1/2, 1/3, … of its size if it is larger than needed. JPEG files are then decoded much faster.

    Args:
        source: see `read`.
        min_long_side: keep at least this many pixels on the longest side, and `MIN_SIDE` on the other; None to keep
            all.

    Returns:
        The image, and the integer by which each side of the original is longer.
    """
    if isinstance(source, ReducedReader):
        return source.read_reduced(min_long_side)
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
            factor = _factor(image, min_long_side)
            image.draft(None, (width // factor, height // factor))
        image = to_eight_bits(_upright(image))
        if min_long_side:
            image = image.reduce(_factor(image, min_long_side))
        factor, image = round(max(width, height) / max(image.size)), image.convert("RGB")
        image.info = {}  # else it would be turned again
        return image, factor
    except UnscaledError:
        raise
    except MemoryError as error:
        raise ValueError(f"{name} needs too much memory; {ADVICE}") from error
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        if "closed image" in str(error):
            raise ValueError(f"{name} is closed; pass it before closing it") from error
        raise ValueError(f"{name} is damaged or incomplete; {ADVICE}") from error


def _factor(image: Image.Image, min_long_side: int) -> int:
    return max(1, min(max(image.size) // min_long_side, min(image.size) // MIN_SIDE))


def is_single_image(source: object) -> bool:
    """Return whether `source` is one image, see `read`, and not a sequence of images."""
    if isinstance(source, np.ndarray):
        return source.dtype == np.uint8 and (source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4)))
    kinds = str | PathLike | ZipPath | bytes | Image.Image | ReducedReader
    return isinstance(source, kinds) or hasattr(source, "read")


def refuse_single_image(photos: object) -> None:
    """Raise a ValueError if `photos` is one image and not a list of images."""
    if is_single_image(photos):
        raise ValueError("expected a list of images, got one image; put it into a list")


def data_uri(image: Image.Image, format: str = "PNG") -> str:
    """Encode an image in a URI, to show it in HTML without storing a file."""
    file = io.BytesIO()
    image.save(file, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _open(source: ImageContent) -> tuple[str, Image.Image]:
    """Return a name for error messages, and the image, not decoded yet."""
    if isinstance(source, np.ndarray):
        return "the array", _from_array(source)
    if isinstance(source, Image.Image):
        return "the image", source
    if isinstance(source, bytes):
        if 0 < len(source) <= MAX_PATH_LENGTH and source.isascii() and b"\0" not in source:
            raise ValueError("got bytes that hold text, not an image; give a path as str")
        return "the file", open_image(source, "the file")
    if isinstance(source, str | PathLike | ZipPath):
        path = source if isinstance(source, ZipPath) else _path(source)
        name = shorten(path.name)
        if path.suffix.lower() in RAW_SUFFIXES:
            raise ValueError(f"{name} is a RAW file, which cannot be read; {ADVICE}")
        return name, open_image(_read_bytes(path, name), name)
    if hasattr(source, "shape"):  # a tensor
        raise ValueError(
            f"expected an image, got a {type(source).__name__} of shape {tuple(source.shape)}; {ARRAY_ADVICE}"
        )
    if not hasattr(source, "read"):
        raise ValueError(f"expected a path, an image or an array, got {type(source).__name__}")
    with contextlib.suppress(AttributeError, OSError):  # not every stream can seek
        source.seek(0)
    content = source.read()
    if not isinstance(content, bytes):
        raise ValueError("the file is open as text; open it in binary mode: open(path, 'rb')")
    return "the file", open_image(content, "the file")


def _path(source: str | PathLike) -> Path:
    """Return a path, unless the text is an address or the content of an image."""
    text = str(source)
    if text.lower().startswith(("http://", "https://")):
        raise ValueError(f"{shorten(text)} is a URL; download the image and give its path")
    if text.lower().startswith("data:"):
        raise ValueError("got a data: address, not a path; decode it with base64 and give the bytes")
    path = Path(source)
    if len(text) > MAX_NAME_LENGTH and BASE64.fullmatch(text) and not os.path.exists(path):
        raise ValueError("got base64 text, not a path; decode it with base64.b64decode and give the bytes")
    return path


def shorten(name: str) -> str:
    """Return a file name for an error message."""
    name = printable(name)
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:20]}…{name[-20:]}"


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}; "
            f"{ARRAY_ADVICE}"
        )
    return Image.fromarray(array)


def _read_bytes(path: Path | ZipPath, name: str) -> bytes:
    try:
        if path.is_dir():
            raise ValueError(f"{shorten(str(path))} is a folder; give the path of an image")
        if isinstance(path, ZipPath):
            return read_member(path.root, path.root.getinfo(path.at), name)
        return read_file(path, name)
    except (FileNotFoundError, KeyError) as error:
        raise FileNotFoundError(f"there is no file {shorten(str(path))}") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
            raise FileNotFoundError("there is no file with this name, which is too long or invalid") from error
        raise ValueError(f"{name} cannot be read: {error.strerror}") from error


def read_file(path: Path, name: str) -> bytes:
    """Return the content of a regular file of at most `MAX_FILE_BYTES`. Raises OSError, or ValueError with the name."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} is not a regular file; give the path of an image")
    _check_size(status.st_size, name)  # 0 for the files of /proc, some of which never end
    return path.read_bytes() if status.st_size else b""


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    """Return the content of a member of a zip archive, no more than it announces and than `MAX_FILE_BYTES`.

    Raises:
        ValueError: with the name, if that is not possible.
    """
    _check_size(member.file_size, name)
    piece = member.file_size or 1
    try:
        with archive.open(member) as file:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                piece = file.MIN_READ_SIZE = PIECE_BYTES  # pyrefly: ignore[missing-attribute]
            return b"".join(iter(lambda: file.read(piece), b""))
    except RuntimeError as error:
        raise ValueError(
            f"{name} is encrypted in its zip archive, or compressed in an unknown way; create the archive again"
        ) from error
    except Exception as error:  # the decompressors raise many types for damaged archives
        raise ValueError(f"{name} is damaged inside its zip archive; create the archive again") from error


def _check_size(size: int, name: str) -> None:
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{name} has more than {MAX_FILE_BYTES // 10**6} MB; use a smaller version")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def open_image(content: bytes, name: str) -> Image.Image:
    """Open the content of a file, if it is of a supported format and not too much work to decode."""
    if not content:
        raise ValueError(f"{name} is empty (0 bytes)")
    if content.startswith(b"\xff\xd8") and _has_many_scans(content):
        raise ValueError(
            f"{name} is a progressive JPEG with more than {MAX_JPEG_SCANS} scans; save it as PNG or as an ordinary JPEG"
        )
    brands = _brands(content)
    if is_heif := bool(brands & HEIF_BRANDS) and not brands & AVIF_BRANDS:
        _register_heif(name)
    try:
        with warnings.catch_warnings():
            # `images.read` checks the size itself, with a lower limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content), formats=("HEIF",) if is_heif else FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} has far more than {MAX_PIXELS // 10**6} million pixels; use a smaller version"
        ) from error
    except MemoryError as error:
        raise ValueError(f"{name} needs too much memory; {ADVICE}") from error
    except Exception as error:  # Pillow's parsers raise many types for damaged files
        raise ValueError(f"{name} is not an image that can be read; {ADVICE}") from error


def _has_many_scans(jpeg: bytes) -> bool:
    """Return whether a JPEG file has more than `MAX_JPEG_SCANS`. A video may follow the image, in a motion photo."""
    if jpeg.count(b"\xff\xda") <= MAX_JPEG_SCANS:  # also in previews and in what follows
        return False
    scans, place = 0, 2
    while scans <= MAX_JPEG_SCANS and (marker := MARKER.search(jpeg, place)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        place = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    return scans > MAX_JPEG_SCANS


def _brands(content: bytes) -> set[bytes]:
    """Return the brands of a HEIF or AVIF file: the major one, and those that it is compatible with."""
    if content[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(content[:4], "big"), MAX_BRANDS_BYTES)
    return {content[start : start + 4] for start in (8, *range(16, end, 4))}


def _register_heif(name: str) -> None:
    """Add HEIF to Pillow."""
    for package in HEIF_PACKAGES:
        try:
            return importlib.import_module(package).register_heif_opener()
        except ImportError:
            continue
    raise ValueError(f"{name} is a HEIC photo, which needs the package pi-heif: pip install pi-heif, or {ADVICE}")


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
    """Convert samples in [0, 1] or [0, 255] to 8 bits."""
    smallest, largest = samples.min(), samples.max()
    if not 0 <= smallest <= largest <= 255:
        raise UnscaledError("the samples of the image are not in [0, 1] or [0, 255]; scale them first")
    scaled = samples * (255 if largest <= 1 else 1)
    return scaled.round(out=scaled).astype(np.uint8)
