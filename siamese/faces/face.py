"""Turn photos into network inputs: the aligned crop of each face, or the whole image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from siamese import images
from siamese.faces.detection import MAX_PHOTO_SIDE, Box, Detection, Landmarks, find_faces
from siamese.network import resize_to_input

Part = Literal["eyes", "mouth"]
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


@dataclass(frozen=True)
class Face:
    """A network input, and where in the photo it is from. Coordinates are as in `Detection`.

    Attributes:
        crop: image at the network's input size, mode "L" or "RGB".
        box: left, top, right, bottom; None if the input is the whole image. So are then all other attributes.
        landmarks: (x, y) of left eye, right eye, nose, left and right corner of the mouth.
        score: the detector's score, in [0, 1].
        quality: how well the face can be recognised, in [0, 1], see `SiameseNetwork.quality`; None before the face is
            embedded, and for networks without quality scores.
        covered: parts that seem to be covered, for example by a mask or dark glasses; only checked by `Model.compare`
            for faces with a low quality, see `siamese.faces.quality`.
    """

    crop: Image.Image
    box: Box | None = None
    landmarks: Landmarks | None = None
    score: float | None = None
    quality: float | None = None
    covered: tuple[Part, ...] = ()

    @property
    def size(self) -> float | None:
        """Geometric mean of the width and height of the box, in pixels."""
        return self._detection.size if self._detection else None

    @property
    def angle(self) -> float | None:
        """Clockwise rotation of the head in the image plane, in degrees, see `Detection.angle`."""
        return self._detection.angle if self._detection else None

    @property
    def turn(self) -> float | None:
        """Turn of the head to the side: 0 for a frontal face, see `Detection.turn`."""
        return self._detection.turn if self._detection else None

    @property
    def _detection(self) -> Detection | None:
        if self.box is None or self.landmarks is None or self.score is None:
            return None
        return Detection(self.box, self.landmarks, self.score)


def detect(
    pictures: Sequence[images.ImageSource],
    input_shape: tuple[int, int, int],
    template: Landmarks | None,
    device: str | torch.device = "cpu",
) -> list[list[Face]]:
    """Read photos and return the network inputs in each.

    Args:
        pictures: N images, see `images.read`.
        input_shape: (C, H, W) of the network.
        template: places of the landmarks in the crops, see `crop`; None to use the whole image.
        device: device of the detector.

    Returns:
        N lists: all faces of a photo, the main one first, see `find_faces`; one input for a whole image.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if an image cannot be read.
    """
    if template is None:
        return [[Face(resize_to_input(images.read(picture), input_shape))] for picture in pictures]
    read = [images.read_reduced(picture, MAX_PHOTO_SIDE) for picture in pictures]
    found = find_faces([photo for photo, _ in read], device)
    return [
        [_to_face(photo, scale, detection, input_shape, template) for detection in detections]
        for (photo, scale), detections in zip(read, found, strict=True)
    ]


def _to_face(
    photo: Image.Image, scale: int, detection: Detection, input_shape: tuple[int, int, int], template: Landmarks
) -> Face:
    original = detection.scaled(scale)
    aligned = resize_to_input(crop(photo, detection, input_shape[1], template), input_shape)
    return Face(aligned, original.box, original.landmarks, original.score)


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
