"""Turn photos into network inputs: the aligned crop of each face, or the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from siamese import images
from siamese.faces.detection import MAX_PHOTO_SIDE, Box, Detection, Landmarks, find_faces, warp
from siamese.network import resize_to_input, to_tensor

Part = Literal["eyes", "mouth"]
Cause = Literal["covered", "drawn", "small", "blurred", "dark", "turned", "poor"]
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


def check_template(template: Landmarks) -> None:
    """Raise a ValueError if a template is not roughly upright, or so large or small that its crops would be, too."""
    usual, given = (np.array(points) @ (1, 1j) for points in (TEMPLATE, template))
    centred = usual - usual.mean()
    factor = np.vdot(centred, given).real / np.vdot(centred, centred).real  # compared with `TEMPLATE`, as in `crop`
    if not (0.4 <= factor <= 2.5 and np.abs(np.array(template) - 0.5).max() <= 1):
        raise ValueError("a template has the landmarks of an upright face that fills the crop, in sides of the crop")


@dataclass(frozen=True)
class Face:
    """A network input, and where in the photo it is from.

    Attributes:
        crop: image at the network's input size, mode "L" or "RGB"; None for a face of an index or of
            `Model.compare_many`.
        detection: the face in the photo; None if the input is the whole image.
        quality: how well the face can be recognized, in [0, 1], see `SiameseNetwork.quality` and `visible_quality`;
            None before the face is embedded, and for networks without quality scores.
        covered: parts that seem to be covered, for example by a mask or dark glasses; found when the face is embedded.
        causes: what makes the face hard to compare, see `quality_causes`; found when the face is embedded.
    """

    crop: Image.Image | None
    detection: Detection | None = None
    quality: float | None = None
    covered: tuple[Part, ...] = ()
    causes: tuple[Cause, ...] = ()

    @property
    def box(self) -> Box | None:
        """Left, top, right, bottom in pixels of the photo, see `Detection`; None for a whole image."""
        return self.detection.box if self.detection else None

    @property
    def landmarks(self) -> Landmarks | None:
        """(x, y) of left eye, right eye, nose, left and right corner of the mouth; None for a whole image."""
        return self.detection.landmarks if self.detection else None

    @property
    def score(self) -> float | None:
        """The detector's score, in [0, 1]; None for a whole image."""
        return self.detection.score if self.detection else None

    @property
    def pixels(self) -> Tensor:
        """The crop as a (C, H, W) uint8 tensor."""
        assert self.crop, "faces of an index are not embedded again"
        return to_tensor(self.crop)

    def to_dict(self) -> dict:
        """Return all but the crop, for JSON."""
        place = self.detection
        return {
            "box": place and place.box,
            "landmarks": place and place.landmarks,
            "angle": place and place.angle,
            "score": place and place.score,
            "quality": self.quality,
            "covered": self.covered,
        }


def detect(
    pictures: Sequence[images.ImageSource],
    input_shape: tuple[int, int, int],
    template: Landmarks | None,
    device: str | torch.device = "cpu",
    problems: dict[int, str] | None = None,
) -> list[list[Face]]:
    """Read photos and return the faces in each, the main one first; without a template, the whole image.

    With `problems`, a photo that cannot be read shows no face, and `problems` gets the reason, by its row.
    """
    read: dict[int, tuple[Image.Image, int]] = {}
    for row, picture in enumerate(pictures):
        try:
            photo, scale = images.read_reduced(picture, None if template is None else MAX_PHOTO_SIDE)
        except (ValueError, OSError) as error:
            if problems is None:
                raise
            problems[row] = str(error)
        else:
            read[row] = (resize_to_input(photo, input_shape) if template is None else photo), scale
    if template is None:
        faces = {row: [Face(image)] for row, (image, _) in read.items()}
    else:
        found = find_faces([photo for photo, _ in read.values()], device)
        faces = {
            row: [_to_face(photo, scale, detection, input_shape, template) for detection in detections]
            for (row, (photo, scale)), detections in zip(read.items(), found, strict=True)
        }
    return [faces.get(row, []) for row in range(len(pictures))]


def _to_face(
    photo: Image.Image, scale: int, detection: Detection, input_shape: tuple[int, int, int], template: Landmarks
) -> Face:
    aligned = resize_to_input(crop(photo, detection, input_shape[1], template), input_shape)
    return Face(aligned, detection.scaled(scale))


def crop(photo: Image.Image, detection: Detection, side: int, template: Landmarks) -> Image.Image:
    """Crop a face with the similarity transform that moves its landmarks closest to a template.

    Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", IEEE TPAMI 1991.

    Returns:
        An RGB image of side × side pixels, black outside the photo, see `warp`.
    """
    # With points as complex numbers, a similarity is crop = factor * photo + shift, with a closed-form solution.
    target, source = np.array(template) @ (side, 1j * side), np.array(detection.landmarks) @ (1, 1j)
    centred = source - source.mean()
    factor = np.vdot(centred, target) / np.vdot(centred, centred)
    shift = target.mean() - factor * source.mean()
    return warp(photo, 1 / factor, -shift / factor, side)
