"""Detect faces in photos of any size and orientation, with MTCNN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor

from siamese.faces import mtcnn
from siamese.faces.mtcnn import GRAY

Box = tuple[float, float, float, float]
Landmarks = tuple[tuple[float, float], ...]


class Pass(NamedTuple):
    """Settings of one run of the detector, in pixels."""

    max_side: int  # photos are shrunk to this longest side
    min_face: int  # smallest face, after shrinking
    border: int = 0  # gray, around the photo, which is then also enlarged to `max_side`


FIRST_PASS = Pass(640, 40)
BATCH_PIXELS = 16 * FIRST_PASS.max_side**2  # limits the memory
ROTATE = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
SECOND_PASS = Pass(1600, 20)  # only if the first pass finds nothing
BORDER_PASS = Pass(320, 96, 80)  # only if nothing else finds a face: for large faces that the photo's edge cuts off
MAX_PHOTO_SIDE = SECOND_PASS.max_side

# A lower score can mean that the face is rotated, so the photo is searched again in the other orientations. One upright
# face in fifty has a lower score, and almost every other face that the detector finds in a rotated photo.
UPRIGHT_SCORE = 0.99
# The result of another orientation is used if its distance from a score of 1 is at most this fraction of the upright
# one's. In LFW's View 1 this rotates none of 1,549 upright photos by mistake, and misses 3 of 500 rotated ones.
ROTATED_DOUBT = 1 / 5

MIN_SHARE_INSIDE = 0.8  # of the box of the main face, inside the photo
SIMILAR_SIZE = 0.8  # of the largest face: sizes are only known to about 20 %


@dataclass(frozen=True)
class Detection:
    """A face in a photo. Coordinates are pixels of the upright photo: x to the right, y down, from the top left corner.

    Attributes:
        box: left, top, right, bottom; may reach beyond the photo.
        landmarks: (x, y) of left eye, right eye, nose, left and right corner of the mouth, as seen in the upright face.
        score: the detector's score, in [0, 1].
    """

    box: Box
    landmarks: Landmarks
    score: float

    @property
    def size(self) -> float:
        """Geometric mean of the width and height of the box, in pixels."""
        left, top, right, bottom = self.box
        return math.sqrt((right - left) * (bottom - top))

    @property
    def angle(self) -> float:
        """Clockwise rotation of the head in the image plane, in degrees, in [-180, 180]."""
        (x1, y1), (x2, y2) = self.landmarks[:2]
        return math.degrees(math.atan2(y2 - y1, x2 - x1))

    @property
    def turn(self) -> float:
        """Distance of the nose from the midpoint of the eyes, along the line through the eyes, in eye distances.

        0 for a frontal face, about 0.5 half-way to a profile.
        """
        left, right, nose = (complex(*point) for point in self.landmarks[:3])
        return abs(((nose - (left + right) / 2) / (right - left)).real) if left != right else math.inf

    def scaled(self, factor: float) -> Detection:
        """Return the same face in a photo `factor` times as large."""
        left, top, right, bottom = self.box
        return Detection(
            (factor * left, factor * top, factor * right, factor * bottom),
            tuple((factor * x, factor * y) for x, y in self.landmarks),
            self.score,
        )


def find_faces(photos: Sequence[Image.Image], device: str | torch.device = "cpu") -> list[list[Detection]]:
    """Detect all faces in photos.

    The first pass shrinks a photo to a longest side of at most 640 pixels and detects faces of at least 40 pixels. If
    it finds none, a second pass uses at most 1600 pixels and faces of at least 20 pixels. If the best score is below
    `UPRIGHT_SCORE`, the photo is also searched rotated by 90, 180 and 270 degrees. If there is still no face, a last
    pass scales the photo to a longest side of 320 pixels, with a gray border of 80 pixels, and detects faces of at
    least 96 pixels. The result of a photo does not depend on the others.

    Returns:
        For each photo its faces; none if it shows none. The main face comes first: the largest one inside the photo, or
        the most central one of several that are about as large. The others follow in order of size.
    """
    found: list[list[Detection]] = [[] for _ in photos]
    score_to_beat = [0.0] * len(photos)

    def search(numbers: list[int], settings: Pass, quarter_turns: int) -> None:
        step = max(1, BATCH_PIXELS // settings.max_side**2)
        for batch in (numbers[start : start + step] for start in range(0, len(numbers), step)):
            results = _detect([photos[number] for number in batch], settings, quarter_turns, device)
            for number, faces in zip(batch, results, strict=True):
                best = max((face.score for face in faces), default=0.0)
                if best > score_to_beat[number]:
                    found[number], score_to_beat[number] = faces, best

    search(list(range(len(photos))), FIRST_PASS, 0)
    search([number for number, faces in enumerate(found) if not faces], SECOND_PASS, 0)
    uncertain = [number for number, score in enumerate(score_to_beat) if score < UPRIGHT_SCORE]
    for number in uncertain:
        if found[number]:
            score_to_beat[number] = 1 - ROTATED_DOUBT * (1 - score_to_beat[number])
    for quarter_turns in (1, 3, 2):
        search(uncertain, FIRST_PASS, quarter_turns)
    search([number for number, faces in enumerate(found) if not faces], BORDER_PASS, 0)
    return [_main_face_first(faces, photo.size) for faces, photo in zip(found, photos, strict=True)]


def _detect(
    photos: list[Image.Image], settings: Pass, quarter_turns: int, device: str | torch.device
) -> list[list[Detection]]:
    """Run the detector on photos, scaled and then rotated counterclockwise."""
    scaled = [_scale(photo, settings) for photo in photos]
    turned = [photo.transpose(ROTATE[quarter_turns]) if quarter_turns else photo for photo in scaled]
    padded = [ImageOps.expand(photo, settings.border, (GRAY, GRAY, GRAY)) for photo in turned]
    results = mtcnn.detect(padded, settings.min_face, device)
    return [
        [
            _to_photo(box, landmarks, score, settings.border, quarter_turns, small.size, photo.size)
            for box, landmarks, score in zip(*map(Tensor.tolist, faces), strict=True)
        ]
        for faces, small, photo in zip(results, scaled, photos, strict=True)
    ]


def _scale(photo: Image.Image, settings: Pass) -> Image.Image:
    scale = settings.max_side / max(photo.size)
    scale = scale if settings.border else min(1, scale)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    return photo.resize(size, Image.Resampling.BILINEAR)


def _to_photo(
    box: Box,
    landmarks: Landmarks,
    score: float,
    border: int,
    quarter_turns: int,
    scaled: tuple[int, int],
    size: tuple[int, int],
) -> Detection:
    """Undo the border, the rotation and the scaling of `_detect` for one face."""
    width, height = scaled

    def place(x: float, y: float) -> tuple[float, float]:
        x, y = x - border, y - border
        x, y = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[quarter_turns]
        return x * size[0] / width, y * size[1] / height

    (x1, y1), (x2, y2) = place(*box[:2]), place(*box[2:])
    box = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    return Detection(box, tuple(place(*point) for point in landmarks), score)


def _main_face_first(faces: list[Detection], size: tuple[int, int]) -> list[Detection]:
    """Sort the faces of a photo of (width, height) `size`, see `find_faces`."""
    width, height = size

    def share_inside(face: Detection) -> float:
        left, top, right, bottom = face.box
        inside = max(0, min(right, width) - max(left, 0)) * max(0, min(bottom, height) - max(top, 0))
        return inside / ((right - left) * (bottom - top))

    def distance_to_centre(face: Detection) -> float:
        left, top, right, bottom = face.box
        return math.hypot(left + right - width, top + bottom - height)

    if not faces:
        return []
    faces = sorted(faces, key=lambda face: -face.size)
    eligible = [face for face in faces if share_inside(face) >= MIN_SHARE_INSIDE] or faces
    candidates = [face for face in eligible if face.size >= SIMILAR_SIZE * eligible[0].size]
    main = min(candidates, key=distance_to_centre)
    return sorted(faces, key=lambda face: face is not main)
