"""Detect faces in photos of any size and orientation, with RetinaFace."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from siamese.faces import retinaface
from siamese.faces.retinaface import MEAN

Box = tuple[float, float, float, float]
Landmarks = tuple[tuple[float, float], ...]

# The photo is scaled to a longest side in this range.
MIN_LOOK_SIDE, MAX_PHOTO_SIDE = 160, 2000
REDUCTION, MAX_COPY_SIDE = 4, 350  # of its copies in all four orientations: at least, and their longest side in pixels
GAP = 16  # pixels between the copies
FOUND_SIZE = 24  # pixels: nearly all upright faces of this size in the first look are found
CANDIDATE_SCORE = 0.3  # lowest score in the first look that leads to a close look
SMALL_FACE, SMALL_FACE_SCORE = 32, 0.1  # lower score for faces below this size in pixels, in the full-size photo
# The sum of the log-odds of a face of `EVIDENCE_SIZE` pixels in the first look and two close looks. A photo has four
# times as many places for a face of half the size, see `_needed_evidence`. Chosen so that nearly all small and masked
# faces of LFW's View 1 are kept, and nearly all that is no face is dropped, on every second photo of
# benchmarks/no_people.py.
MIN_EVIDENCE, EVIDENCE_SIZE = 8.0, 64
MAX_EVIDENCE_SIZE = 100  # pixels: larger faces need as much evidence as this size
MIN_FACE = 12  # pixels of the photo: smaller faces cannot be recognized, and most that seem to be are none
# A face needs no close look if the first look meets all four conditions.
CERTAIN_SCORE = 0.99  # lowest score
PRECISE_PIXELS = 1_000_000  # largest image, which also shows the copies
MIN_PRECISE_FACE = 80  # smallest face, in pixels
MAX_TILT = 30  # largest tilt, in degrees
DECIDING_FACE, PLACING_FACE = 64, 112  # sizes in pixels to which close looks scale a face
CLOSE_LOOK = 1.5  # side of the image, in sizes of the face
SAME_FACE_OVERLAP = 0.3  # two candidates with a higher intersection over union are the same face
ENLARGED_SIDE, MAX_ENLARGEMENT = 1600, 4  # of smaller photos without a face, and relative to the first look
BORDER_SIDE, BORDER = 320, 80  # of a look for faces that the photo's edge cuts off
MAX_DETECTED_FACES = 500  # in a photo
CLOSE_LOOKS_AT_ONCE = 256  # limits the memory, too
BATCH_PIXELS = 1_500_000  # that go through the network at once: more are slower, as they do not fit into the caches
ROTATE = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}

MIN_SHARE_INSIDE = 0.8  # of the box of the main face, inside the photo
SIMILAR_SIZE = 0.8  # of the largest face: sizes are only known to about 20 %


@dataclass(frozen=True)
class Detection:
    """A face in a photo. Coordinates are pixels of the upright photo: x to the right, y down, from the top left corner.

    Attributes:
        box: left, top, right, bottom; may reach beyond the photo.
        landmarks: (x, y) of left eye, right eye, nose, left and right corner of the mouth, as seen in the upright face.
        score: the detector's score, in [0, 1].
        smallest: size in pixels from which on the faces in the photo are found; smaller ones may be missed.
    """

    box: Box
    landmarks: Landmarks
    score: float
    smallest: float = 0.0

    @property
    def size(self) -> float:
        """Geometric mean of the width and height of the box, in pixels."""
        return _size(self.box)

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
            factor * self.smallest,
        )


def _size(box: Box) -> float:
    left, top, right, bottom = box
    return math.sqrt((right - left) * (bottom - top))


class View(NamedTuple):
    """A part of an image that shows a photo. Points are complex numbers, x + iy.

    A point z of the image is at factor × z + shift in the photo.
    """

    box: tuple[int, int, int, int]
    factor: complex
    shift: complex
    precise: bool = False  # whether the landmarks of large faces can be used
    is_copy: bool = False  # whether it is a reduced copy

    def moved(self, x: int, y: int) -> View:
        """Return the view for an image in which the part is further right by x and further down by y."""
        left, top, right, bottom = self.box
        return self._replace(
            box=(left + x, top + y, right + x, bottom + y), shift=self.shift - self.factor * complex(x, y)
        )


class Look(NamedTuple):
    """An image for the detector, and what it shows of one photo."""

    photo: int
    image: Image.Image
    parts: tuple[View, ...]


class Candidate(NamedTuple):
    """What may be a face, in the pixels of its photo."""

    photo: int
    box: Box
    landmarks: Landmarks
    score: float
    factor: complex  # of the view in which it was found
    evidence: float  # log-odds that it is a face
    is_copy: bool  # whether the view is a reduced copy
    final: bool = False  # whether a close look is not needed

    @property
    def centre(self) -> complex:
        left, top, right, bottom = self.box
        return complex(left + right, top + bottom) / 2

    @property
    def size(self) -> float:
        return _size(self.box)

    @property
    def direction(self) -> complex:
        """From the left eye to the right eye."""
        left, right = self.landmarks[:2]
        return complex(*right) - complex(*left)


def find_faces(photos: Sequence[Image.Image], device: str | torch.device = "cpu") -> list[list[Detection]]:
    """Detect all faces in photos.

    A first look shows the whole photo, with a longest side of at most 2000 pixels, and copies with at most a quarter of
    that side in all four orientations. It finds places that may show an upright face of about 20 pixels or more, or a
    rotated one of about 100 to 150. Close looks at each place decide whether it is a face, which side of it is up, and
    where its landmarks are. If no face is found, the photo is searched enlarged and with a gray border. The result of a
    photo does not depend on the others. Faces smaller than 12 pixels are left out.

    Returns:
        For each photo its faces; none if it shows none. The main face comes first: the largest one inside the photo, or
        the most central one of several that are about as large. The others follow in order of size.
    """
    device = torch.device(device)
    first_looks = [_first_looks(number, photo) for number, photo in enumerate(photos)]
    smallest = [FOUND_SIZE * abs(looks[0].parts[0].factor) for looks in first_looks]
    found = _search(photos, [look for looks in first_looks for look in looks], smallest, device)
    missing = [number for number in range(len(photos)) if number not in found]
    last_looks = [look for number in missing for look in _last_looks(number, photos[number])]
    found |= _search(photos, last_looks, [0.0] * len(photos), device)
    return [_main_face_first(found.get(number, []), photo.size) for number, photo in enumerate(photos)]


def _search(
    photos: Sequence[Image.Image], looks: list[Look], smallest: Sequence[float], device: torch.device
) -> dict[int, list[Detection]]:
    """Look at some of the photos, and then closely at each candidate. Returns the faces of the photos that show any.

    `smallest` is for each photo, see `Detection`.
    """
    candidates = _by_photo(_look(looks, device, _fast_dtype(device)))
    candidates = [face for group in candidates.values() for face in _distinct(_doubt(group))[:MAX_DETECTED_FACES]]
    final = [candidate for candidate in candidates if candidate.final]
    others = [candidate for candidate in candidates if not candidate.final]
    decided = _look_closely(photos, others, DECIDING_FACE, range(4), device)
    upright = [
        others[row]._replace(factor=face.direction, evidence=others[row].evidence + face.evidence)
        for row, face in decided.items()
    ]
    placed = _look_closely(photos, upright, PLACING_FACE, range(1), device)
    found = [face._replace(evidence=upright[row].evidence + face.evidence) for row, face in placed.items()]
    final += [face for face in found if face.evidence >= _needed_evidence(face.size)]
    return {
        number: [Detection(face.box, face.landmarks, face.score, smallest[number]) for face in _distinct(group)]
        for number, group in _by_photo(final).items()
    }


def _needed_evidence(size: float) -> float:
    """Return the log-odds that a face of a size in pixels needs: more for small ones, as they have more places."""
    return MIN_EVIDENCE + 2 * math.log(EVIDENCE_SIZE / min(size, MAX_EVIDENCE_SIZE))


def _first_looks(number: int, photo: Image.Image) -> list[Look]:
    """Return the whole photo, and reduced copies in all four orientations. Small ones are in one image."""
    scale = min(max(max(photo.size), MIN_LOOK_SIDE), MAX_PHOTO_SIDE) / max(photo.size)
    full = _scale(photo, scale)
    copies, parts = _copies(full, scale)
    left, top = (0, full.height + GAP) if full.width >= full.height else (full.width + GAP, 0)
    size = max(full.width, left + copies.width), max(full.height, top + copies.height)
    if size[0] * size[1] > PRECISE_PIXELS:
        return [_whole(number, full, 1 / scale, 0), Look(number, copies, parts)]
    image = Image.new("RGB", size, MEAN)
    image.paste(full)
    image.paste(copies, (left, top))
    whole = View((0, 0, *full.size), 1 / scale, 0, precise=True)
    return [Look(number, image, (whole, *(part.moved(left, top) for part in parts)))]


def _copies(full: Image.Image, scale: float) -> tuple[Image.Image, tuple[View, ...]]:
    """Return an image with reduced copies in all four orientations, and what it shows of the photo."""
    reduction = max(REDUCTION, math.ceil(max(full.size) / MAX_COPY_SIDE))
    reduced = full.reduce(reduction)
    copies = [reduced, *(reduced.transpose(ROTATE[turns]) for turns in (1, 2, 3))]
    # Where the upper left corner of the reduced photo is in each copy.
    corners = 0, 1j * copies[1].height, complex(*copies[2].size), copies[3].width
    step = max(reduced.size)
    image = Image.new("RGB", (4 * step, step) if full.width >= full.height else (step, 4 * step), MEAN)
    parts = []
    for turns, (copy, corner) in enumerate(zip(copies, corners, strict=True)):
        left, top = (turns * step, 0) if full.width >= full.height else (0, turns * step)
        image.paste(copy, (left, top))
        factor = 1j**turns * reduction / scale
        shift = -factor * (complex(left, top) + corner)
        parts.append(View((left, top, left + copy.width, top + copy.height), factor, shift, precise=True, is_copy=True))
    return image, tuple(parts)


def _last_looks(number: int, photo: Image.Image) -> list[Look]:
    """Return the photo enlarged, and with a gray border."""
    scale = BORDER_SIDE / max(photo.size)
    bordered = ImageOps.expand(_scale(photo, scale), BORDER, MEAN)
    looks = [_whole(number, bordered, 1 / scale, -BORDER * (1 + 1j) / scale)]
    scale = min(ENLARGED_SIDE, MAX_ENLARGEMENT * max(*photo.size, MIN_LOOK_SIDE)) / max(photo.size)
    return [*looks, _whole(number, _scale(photo, scale), 1 / scale, 0)] if scale > 1 else looks


def _scale(photo: Image.Image, scale: float) -> Image.Image:
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    return photo if size == photo.size else photo.resize(size, Image.Resampling.BILINEAR)


def _whole(number: int, image: Image.Image, factor: complex, shift: complex) -> Look:
    return Look(number, image, (View((0, 0, *image.size), factor, shift),))


def _fast_dtype(device: torch.device) -> torch.dtype:
    """Return the type for looks that close looks follow."""
    return torch.bfloat16 if device.type == "cpu" and torch.cpu._is_amx_tile_supported() else torch.float32


def _look(looks: Sequence[Look], device: torch.device, dtype: torch.dtype = torch.float32) -> list[Candidate]:
    """Run the detector on looks, those of one size together, and return the candidates of all.

    Looks with a precise part are in single precision.
    """
    kinds: dict[tuple[bool, tuple[int, int]], list[Look]] = defaultdict(list)
    for look in looks:
        kinds[look.parts[0].precise, look.image.size].append(look)
    found = []
    for (precise, (width, height)), group in kinds.items():
        step = max(1, BATCH_PIXELS // (width * height))
        for batch in (group[start : start + step] for start in range(0, len(group), step)):
            images = [look.image for look in batch]
            results = retinaface.detect(images, SMALL_FACE_SCORE, device, torch.float32 if precise else dtype)
            for look, faces in zip(batch, results, strict=True):
                found += _in_photo(look, faces)
    return found


def _in_photo(look: Look, faces: retinaface.Candidates) -> list[Candidate]:
    """Return the candidates of a look, in the pixels of its photo."""
    found = []
    for box, landmarks, score in zip(*(values.double().numpy() for values in faces), strict=True):
        x, y = (box[:2] + box[2:]) / 2
        for (left, top, right, bottom), factor, shift, precise, is_copy in look.parts:
            if left <= x < right and top <= y < bottom:
                points = landmarks @ (1, 1j) * factor + shift
                place = _box_in_photo(box, factor, shift)
                moved = tuple(zip(points.real.tolist(), points.imag.tolist(), strict=True))
                face = Candidate(look.photo, place, moved, float(score), factor, _log_odds(float(score)), is_copy)
                size = face.size / abs(factor)
                is_certain = size >= MIN_PRECISE_FACE and face.score >= CERTAIN_SCORE
                is_upright = abs(np.angle(face.direction, deg=True)) <= MAX_TILT
                min_score = SMALL_FACE_SCORE if size < SMALL_FACE and not is_copy else CANDIDATE_SCORE
                if face.score >= min_score and face.size >= MIN_FACE:
                    found.append(face._replace(final=bool(precise and is_certain and is_upright)))
    return found


def _log_odds(score: float) -> float:
    score = min(max(score, 0.001), 0.999)  # the network's scores are not exact beyond
    return math.log(score / (1 - score))


def _box_in_photo(box: np.ndarray, factor: complex, shift: complex) -> Box:
    """Return the upright box with the size and the centre of a box in a rotated image."""
    centre = complex(*(box[:2] + box[2:])) / 2 * factor + shift
    half = (box[2:] - box[:2]) / 2 * abs(factor)
    width, height = (half if abs(factor.real) >= abs(factor.imag) else half[::-1]).tolist()
    return centre.real - width, centre.imag - height, centre.real + width, centre.imag + height


def _look_closely(
    photos: Sequence[Image.Image], candidates: Sequence[Candidate], size: int, orientations: range, device: torch.device
) -> dict[int, Candidate]:
    """Look at each candidate, scaled to a size in pixels, and return the best face at its place, by its index, if any.

    The factor of a candidate tells which direction is the x axis. `orientations` are the numbers of quarter turns from
    it in which to look.
    """
    best: dict[int, Candidate] = {}
    for start in range(0, len(candidates), CLOSE_LOOKS_AT_ONCE):
        looks, side = [], round(CLOSE_LOOK * size)
        for row in range(start, min(start + CLOSE_LOOKS_AT_ONCE, len(candidates))):
            candidate = candidates[row]
            factor = candidate.factor / abs(candidate.factor) * candidate.size / size
            middle = factor * side / 2 * (1 + 1j)
            image = warp(photos[candidate.photo], factor, candidate.centre - middle, side, MEAN)
            for turns in orientations:
                turned = image.transpose(ROTATE[turns]) if turns else image
                looks.append(_whole(row, turned, factor * 1j**turns, candidate.centre - middle * 1j**turns))
        for face in _look(looks, device):
            row, candidate = face.photo, candidates[face.photo]
            near = abs(face.centre - candidate.centre) < candidate.size / 2 and 0.5 < face.size / candidate.size < 2
            if near and (row not in best or face.score > best[row].score):
                best[row] = face
    return {row: face._replace(photo=candidates[row].photo) for row, face in best.items()}


def _by_photo(candidates: Sequence[Candidate]) -> dict[int, list[Candidate]]:
    groups: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.photo].append(candidate)
    return groups


def _same_place(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return (C, C) bool, whether the boxes of two candidates overlap so much that they can be one face."""
    boxes = np.array([face.box for face in candidates]).reshape(-1, 4)
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shared > SAME_FACE_OVERLAP * (areas[:, None] + areas - shared)


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Keep the best candidate at each place."""
    ranked = sorted(candidates, key=lambda face: (face.final, face.score), reverse=True)
    same = _same_place(ranked)
    kept: list[int] = []
    for row in range(len(ranked)):
        if not same[row, kept].any():
            kept.append(row)
    return [ranked[row] for row in kept]


def _doubt(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates that are only final if no copy of the photo shows the face better in another orientation.

    In the full size, the scores of large faces hardly depend on the orientation.
    """
    same = _same_place(candidates)
    scores = np.array([face.score for face in candidates])
    copies = np.array([face.is_copy for face in candidates], dtype=bool)
    directions = np.array([face.direction for face in candidates])
    result = []
    for row, face in enumerate(candidates):
        agree = abs(np.angle(directions * np.conj(face.direction), deg=True)) < 45
        ally, rival = (float(scores[same[row] & copies & kind].max(initial=0)) for kind in (agree, ~agree))
        result.append(face._replace(final=face.final and rival <= ally))
    return result


def warp(
    photo: Image.Image, factor: complex, shift: complex, side: int, fill: tuple[int, int, int] = (0, 0, 0)
) -> Image.Image:
    """Sample a square image whose point z is at factor × z + shift in the photo, with points as complex numbers.

    Returns:
        An RGB image of side × side pixels, filled with a color outside the photo. A region that shrinks to half its
        size or less is averaged over blocks first, to avoid aliasing.
    """
    # Cut out the region that is needed, so that only its pixels are averaged.
    corners = np.array([0, side, 1j * side, (1 + 1j) * side]) * factor + shift
    left, top = math.floor(corners.real.min()) - 2, math.floor(corners.imag.min()) - 2
    right, bottom = math.ceil(corners.real.max()) + 2, math.ceil(corners.imag.max()) + 2
    block = max(1, int(abs(factor)))
    if left >= 0 and top >= 0 and right <= photo.width and bottom <= photo.height:
        region = photo.crop((left, top, right, bottom))
    else:
        region = Image.new("RGB", (right - left, bottom - top), fill)
        inside = max(left, 0), max(top, 0), min(right, photo.width), min(bottom, photo.height)
        if inside[0] < inside[2] and inside[1] < inside[3]:
            region.paste(photo.crop(inside), (inside[0] - left, inside[1] - top))
    region = region.reduce(block)
    # Pillow's matrix maps a pixel of the result to its place in the region.
    step, origin = factor / block, (shift - complex(left, top)) / block
    matrix = step.real, -step.imag, origin.real, step.imag, step.real, origin.imag
    return region.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill)


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
