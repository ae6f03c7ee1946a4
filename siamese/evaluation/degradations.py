"""Make photographs worse on purpose, to fit and to test probabilities on poor photographs."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from siamese.faces.detection import Detection

# In units of the distance between the eyes, from the midpoint of the eyes, x along the line through the eyes.
LENS = 0.36, 0.27  # semi-axes
MASK = ((-0.95, 0.45), (0, 0.3), (0.95, 0.45), (0.8, 1.35), (0, 1.95), (-0.8, 1.35))
BLACK, BLUE = (15, 15, 15), (110, 150, 190)

Degradation = Callable[[Image.Image, Detection], Image.Image]


def shrink(photo: Image.Image, face: Detection, pixels: float) -> Image.Image:
    """Shrink a photograph until its face has a size of `pixels`, see `Detection.size`."""
    factor = pixels / face.size
    size = max(1, round(photo.width * factor)), max(1, round(photo.height * factor))
    return photo.resize(size, Image.Resampling.BICUBIC)


def blur(photo: Image.Image, face: Detection) -> Image.Image:
    """Apply a Gaussian blur with a standard deviation of 4 % of the face's size."""
    return photo.filter(ImageFilter.GaussianBlur(0.04 * face.size))


def compress(photo: Image.Image, face: Detection) -> Image.Image:
    """Compress as JPEG at quality 10."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=10)
    return Image.open(file).convert("RGB")


def darken(photo: Image.Image, face: Detection) -> Image.Image:
    """Reduce the brightness to a fifth."""
    return ImageEnhance.Brightness(photo).enhance(0.2)


def decolor(photo: Image.Image, face: Detection) -> Image.Image:
    """Remove all color."""
    return photo.convert("L").convert("RGB")


def draw_glasses(photo: Image.Image, face: Detection) -> Image.Image:
    """Draw dark glasses over the eyes."""
    place, unit = _frame(face)
    photo = photo.copy()
    draw = ImageDraw.Draw(photo)
    turn = np.exp(2j * np.pi * np.arange(48) / 48)
    for side in (-0.5, 0.5):
        lens = side + LENS[0] * turn.real + 1j * LENS[1] * turn.imag
        draw.polygon([place(point) for point in lens], fill=BLACK)
    draw.line([place(-1.0 + 0j), place(-0.5 + 0j), place(0.5 + 0j), place(1.0 + 0j)], BLACK, max(1, round(0.08 * unit)))
    return photo


def draw_mask(photo: Image.Image, face: Detection) -> Image.Image:
    """Draw a surgical mask from the nose to below the chin."""
    place, _ = _frame(face)
    photo = photo.copy()
    ImageDraw.Draw(photo).polygon([place(complex(*point)) for point in MASK], fill=BLUE)
    return photo


def draw_both(photo: Image.Image, face: Detection) -> Image.Image:
    """Draw a mask and dark glasses."""
    return draw_glasses(draw_mask(photo, face), face)


def _frame(face: Detection) -> tuple[Callable[[complex], tuple[float, float]], float]:
    """Return a map from the face's coordinates to the photograph's, and the distance between the eyes.

    The origin is the midpoint of the eyes, 1 is the distance between them, and y points to the mouth. The coordinates
    are sheared so that (0, 1.1) is the middle of the mouth.
    """
    left, right, _, mouth_left, mouth_right = (complex(*point) for point in face.landmarks)
    middle, across = (left + right) / 2, right - left
    down = ((mouth_left + mouth_right) / 2 - middle) / 1.1

    def place(point: complex) -> tuple[float, float]:
        at = middle + point.real * across + point.imag * down
        return at.real, at.imag

    return place, abs(across)


DEGRADATIONS: dict[str, Degradation] = {
    **{f"{n} pixels": lambda photo, face, n=n: shrink(photo, face, n) for n in (40, 30, 20, 14)},
    "blur": blur,
    "JPEG at quality 10": compress,
    "dark": darken,
    "gray": decolor,
    "dark glasses": draw_glasses,
    "mask": draw_mask,
    "mask and dark glasses": draw_both,
}
