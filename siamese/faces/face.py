"""Turn photos into network inputs: the aligned crop of each face, or the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image

from siamese import images, inputs
from siamese.faces.alignment import crop
from siamese.faces.detection import MAX_PHOTO_SIDE, Box, Detection, Landmarks, find_faces

Part = Literal["eyes", "mouth"]


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
            for faces with a low quality, see `siamese.faces.cover`.
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
        return [[Face(inputs.fit(images.read(picture), input_shape))] for picture in pictures]
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
    aligned = inputs.fit(crop(photo, detection, input_shape[1], template), input_shape)
    return Face(aligned, original.box, original.landmarks, original.score)
