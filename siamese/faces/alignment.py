"""Crop a face upright, with its landmarks at fixed places."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from siamese.faces.detection import Detection, Landmarks

# Where a crop has the left eye, right eye, nose, left and right corner of the mouth (as seen in the image), with the
# sides of the crop as unit. These are the usual places of face networks, such as ArcFace's; `siamese train --align
# faces` uses them if it trains from scratch. Other networks bring their own template.
TEMPLATE: Landmarks = (
    (0.341916, 0.461574),
    (0.656534, 0.459834),
    (0.500225, 0.640505),
    (0.370976, 0.824692),
    (0.631517, 0.823250),
)


def crop(photo: Image.Image, detection: Detection, side: int, template: Landmarks) -> Image.Image:
    """Crop a face with the similarity transform that moves its landmarks closest to a template.

    Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", IEEE TPAMI 1991.

    Args:
        photo: the RGB photo in which the face was detected.
        detection: the face.
        side: height and width of the crop in pixels.
        template: the places of the landmarks in the crop, see `TEMPLATE`.

    Returns:
        An RGB image, black outside the photo. A face that shrinks to half its size or less is averaged over blocks
        first, to avoid aliasing.
    """
    # With points as complex numbers, a similarity is crop = factor * photo + shift, with a closed-form solution.
    target, source = np.array(template) @ (side, 1j * side), np.array(detection.landmarks) @ (1, 1j)
    centred = source - source.mean()
    factor = np.vdot(centred, target) / np.vdot(centred, centred)
    shift = target.mean() - factor * source.mean()

    # Cut out the region that is needed, so that only its pixels are averaged.
    corners = (np.array([0, side, 1j * side, (1 + 1j) * side]) - shift) / factor
    left, top = math.floor(corners.real.min()) - 2, math.floor(corners.imag.min()) - 2
    right, bottom = math.ceil(corners.real.max()) + 2, math.ceil(corners.imag.max()) + 2
    block = max(1, int(1 / abs(factor)))
    region = photo.crop((left, top, right, bottom)).reduce(block)

    # Pillow's matrix maps a pixel of the crop to its place in the region.
    inverse = 1 / (factor * block)
    origin = (-shift / factor - complex(left, top)) / block
    matrix = inverse.real, -inverse.imag, origin.real, inverse.imag, inverse.real, origin.imag
    return region.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
