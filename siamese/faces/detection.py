"""Find the faces in a photo, and bring each upright into a network's crop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from siamese import images
from siamese.faces import mtcnn

# Two looks at a photo: its longest side at most, and the smallest face, both in pixels.
FIRST, CLOSER = (640, 40), (1600, 20)
LONGEST = CLOSER[0]
# A lower score may be that of a face on its side or upside down: one upright face in twelve has a lower one, and nearly
# every other that is found all the same. So the photo is turned, and a turned look believed where it has a fifth of the
# doubt: of LFW's upright photos that turns 1 in 2,000 wrong, and of turned ones leaves 1 in 30 as they are.
UPRIGHT, DOUBT = 0.99, 1 / 5

# Where left eye, right eye, nose and the corners of the mouth, as seen in the image, belong in a crop with sides of 1:
# about where dlib's own alignment puts them, and 3 % further out, which tells people of LFW's View 1 a little better
# apart.
TEMPLATE = np.array([(47.4, 45.7), (101.7, 45.6), (74.5, 78.2), (51.2, 104.8), (98.5, 105.1)]) / 150
TEMPLATE = 0.5 + 1.03 * (TEMPLATE - 0.5)


@dataclass(frozen=True)
class Found:
    """A face in a photo. Coordinates are in pixels of the upright photo, x to the right and y down, from its corner.

    Attributes:
        box: left, top, right, bottom; may reach beyond the photo.
        landmarks: (x, y) of left eye, right eye, nose, left and right corner of the mouth, as seen with the face
            upright.
        score: the detector's, in [0, 1].
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    score: float

    @property
    def size(self) -> float:
        """The geometric mean of the box's width and height, in pixels."""
        left, top, right, bottom = self.box
        return math.sqrt((right - left) * (bottom - top))

    @property
    def angle(self) -> float:
        """By how many degrees the head is turned clockwise in the image, in [-180, 180]."""
        (x1, y1), (x2, y2) = self.landmarks[:2]
        return math.degrees(math.atan2(y2 - y1, x2 - x1))

    @property
    def turn(self) -> float:
        """How far the nose lies from the middle between the eyes, in distances of the eyes: 0 frontal, about ½ half-way
        to the profile, more beyond."""
        left, right, nose = (complex(*point) for point in self.landmarks[:3])
        return abs(((nose - (left + right) / 2) / (right - left)).real) if left != right else math.inf

    def scaled(self, factor: float) -> "Found":
        """Return the same face in a photo `factor` times as large."""
        return Found(
            tuple(factor * value for value in self.box),
            tuple((factor * x, factor * y) for x, y in self.landmarks),
            self.score,
        )


def find(photos: Sequence[Image.Image], device: str | torch.device = "cpu") -> list[list[Found]]:
    """Find all faces in photos.

    A photo is looked at with its longest side at most 640 pixels, for faces from 40 pixels up, and where nothing is
    found at most 1600, for faces from 20 pixels up; it is never enlarged. So in a photo of 640 pixels or more a face of
    a sixteenth of the longest side is found, and in one of 1600 or more, where there is no larger face, of an
    eightieth. Where the detector is not sure that it saw an upright face, the photo is also looked at on each side and
    upside down.

    Args:
        photos: N RGB images of any size, see `images.read`; those of one size are looked at together.
        device: where to look.

    Returns:
        N lists of faces, empty where there is none. The face to compare comes first: the largest that is well inside
        the photo, or of several about as large the one nearest to the middle. The others follow, larger ones first.
    """
    found: list[list[Found]] = [[] for _ in photos]
    to_beat = [0.0] * len(photos)

    def look(rows: list[int], *how) -> None:
        of_one_size: dict[tuple[int, int], list[int]] = {}
        for row in rows:
            of_one_size.setdefault(photos[row].size, []).append(row)
        for group in of_one_size.values():
            for row, faces in zip(group, _look([photos[row] for row in group], *how, device), strict=True):
                if (score := max((face.score for face in faces), default=0.0)) > to_beat[row]:
                    found[row], to_beat[row] = faces, score

    look(list(range(len(photos))), *FIRST, 0)
    look([row for row, faces in enumerate(found) if not faces], *CLOSER, 0)
    unsure = [row for row, score in enumerate(to_beat) if score < UPRIGHT]
    for row in unsure:
        if found[row]:
            to_beat[row] = 1 - DOUBT * (1 - to_beat[row])
    for quarters in (1, 3, 2):
        look(unsure, *FIRST, quarters)
    return [_in_order(faces, photo.size) for faces, photo in zip(found, photos, strict=True)]


def align(photo: Image.Image, face: Found, side: int) -> Image.Image:
    """Cut a face out, upright, by the similarity transform that brings its landmarks closest to `TEMPLATE`.

    Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", IEEE TPAMI 1991.

    Args:
        photo: RGB, the one in which the face was found.
        face: one of `find`.
        side: height and width of the crop in pixels.

    Returns:
        An RGB image, black where it reaches beyond the photo; averaged over blocks where the face shrinks to a half or
        less.
    """
    # In complex numbers a similarity is crop = factor · photo + shift, and the least squares have a closed form.
    target, source = TEMPLATE @ (side, 1j * side), np.array(face.landmarks) @ (1, 1j)
    spread = source - source.mean()
    factor = np.vdot(spread, target) / np.vdot(spread, spread)
    shift = target.mean() - factor * source.mean()

    corners = (np.array([0, side, 1j * side, (1 + 1j) * side]) - shift) / factor
    left, top = math.floor(corners.real.min()) - 2, math.floor(corners.imag.min()) - 2
    right, bottom = math.ceil(corners.real.max()) + 2, math.ceil(corners.imag.max()) + 2
    blocks = max(1, int(1 / abs(factor)))
    region = photo.crop((left, top, right, bottom)).reduce(blocks)

    back = 1 / (factor * blocks)
    origin = (-shift / factor - complex(left, top)) / blocks
    matrix = back.real, -back.imag, origin.real, back.imag, back.real, origin.imag
    return region.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _look(
    photos: list[Image.Image], longest: int, smallest: int, quarters: int, device: str | torch.device
) -> list[list[Found]]:
    """Look at photos of one size, shrunk and then turned to the left by quarters."""
    size = photos[0].size
    scale = min(1, longest / max(size))
    shrunk = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    x = torch.stack([images.to_tensor(photo.resize(shrunk, Image.Resampling.BILINEAR)) for photo in photos])
    x = x.to(device).rot90(quarters, (2, 3)).float()
    return [
        [_upright(*face, quarters, shrunk, size) for face in zip(*faces, strict=True)]
        for faces in mtcnn.detect(x, smallest)
    ]


def _upright(box, landmarks, score, quarters: int, shrunk: tuple[int, int], size: tuple[int, int]) -> Found:
    """Take a face from the look, which was shrunk and then turned, back to the photo."""
    width, height = shrunk
    x, y = torch.cat([box.view(2, 2), landmarks]).double().cpu().T
    x, y = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[quarters]
    (x1, y1), (x2, y2), *points = zip((x * size[0] / width).tolist(), (y * size[1] / height).tolist(), strict=True)
    return Found((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), tuple(points), float(score))


def _in_order(faces: list[Found], size: tuple[int, int]) -> list[Found]:
    width, height = size

    def share_inside(face: Found) -> float:
        left, top, right, bottom = face.box
        inside = max(0, min(right, width) - max(left, 0)) * max(0, min(bottom, height) - max(top, 0))
        return inside / ((right - left) * (bottom - top))

    def off_centre(face: Found) -> float:
        left, top, right, bottom = face.box
        return math.hypot(left + right - width, top + bottom - height)

    faces = sorted(faces, key=lambda face: -face.size)
    eligible = [face for face in faces if share_inside(face) >= 0.8] or faces
    # Photographers put whom they mean in the middle, and sizes are known to some tenths only.
    rivals = [face for face in eligible if face.size >= 0.8 * eligible[0].size]
    return sorted(faces, key=lambda face: face is not min(rivals, key=off_centre)) if faces else []
