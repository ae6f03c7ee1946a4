"""Open the content of an image file, without decoding it yet."""

from __future__ import annotations

import importlib
import io
import warnings

from PIL import Image

MAX_PIXELS = 50_000_000
ADVICE = "save it as JPEG or PNG"

# The formats of photos; JPEG includes MPO. Pillow reads about 40 more; some of them start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
HEIF_PACKAGES = ("pi_heif", "pillow_heif")  # either adds HEIF to Pillow
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12
# Each scan of a progressive JPEG costs as much time as a whole baseline JPEG. Cameras and editors write at most 20.
MAX_JPEG_SCANS = 100


def open_image(content: bytes, name: str) -> Image.Image:
    """Open an image file.

    Args:
        content: of the file.
        name: of the file, for error messages.

    Raises:
        ValueError: if it is not an image of a supported format, or would need too much work to decode.
    """
    if not content:
        raise ValueError(f"{name} is empty (0 bytes)")
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MAX_JPEG_SCANS:  # start of a scan
        raise ValueError(f"{name} has more than {MAX_JPEG_SCANS} scans; {ADVICE} without progressive scans")
    if is_heif := content[4:8] == b"ftyp" and content[8:12] in HEIF_BRANDS:
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


def _register_heif(name: str) -> None:
    """Add HEIF to Pillow.

    Raises:
        ValueError: if no package for it is installed.
    """
    for package in HEIF_PACKAGES:
        try:
            return importlib.import_module(package).register_heif_opener()
        except ImportError:
            continue
    raise ValueError(f"{name} is a HEIC photo, which needs the package pi-heif: pip install pi-heif, or {ADVICE}")
