"""Find the person of a portrait in a few photos, and keep the crop of each face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from siamese import images
from siamese.calibration import Calibration
from siamese.faces import Face
from siamese.search.embedder import Embedder
from siamese.search.group import Group, group
from siamese.search.strictness import probability_among

PORTRAIT = "the portrait"  # its name in error messages


@dataclass(frozen=True)
class FoundFace:
    """A face in one of the photos.

    Attributes:
        photo: index of the photo.
        name: name of the photo.
        number: which face of the photo it is, from 1; the main one first.
        count: number of faces in the photo.
        face: the face.
        dissimilarity: distance from the face of the portrait, ≥ 0.
        probability: that it is the person of the portrait, if one of the faces is expected to be, in [0, 1].
    """

    photo: int
    name: str
    number: int
    count: int
    face: Face
    dissimilarity: float
    probability: float


@dataclass(frozen=True)
class Found:
    """The faces of the photos, the most likely one first.

    Attributes:
        portrait: the face of the portrait.
        faces: those in the photos.
        problems: sentences about photos that were left out, and about a portrait with several faces; often empty.
    """

    portrait: Face
    faces: tuple[FoundFace, ...]
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """Return the faces for JSON."""
        faces = [
            {
                "photo": found.name,
                "index": found.photo,
                "number": found.number,
                "box": found.face.box,
                "probability": found.probability,
                "dissimilarity": found.dissimilarity,
            }
            for found in self.faces
        ]
        return {"faces": faces, "warnings": list(self.problems)}


def find_in_photos(
    model: Embedder,
    portrait: images.ImageSource,
    photos: Sequence[tuple[str, images.ImageSource]],
    progress: Callable[[int], None] = lambda done: None,
) -> Found:
    """Compare the main face of a portrait with all faces of several photos.

    Args:
        model: a network.
        portrait: an image of the person, see `images.read`.
        photos: (name, image) of each photo.
        progress: called after each photo with the number of photos done.

    Raises:
        ValueError: if the portrait does not exist, cannot be read or shows no face.
    """
    searched = group(model, [(PORTRAIT, portrait), *photos], lambda done: progress(max(done - 1, 0)))
    if 0 not in searched.photos:
        raise ValueError(searched.problems[0].rstrip("."))
    first = searched.photos.count(0)  # the faces of the portrait come first, its main face before the others
    several = f"The portrait shows {first} faces; the largest one near the middle is searched for."
    rows = range(first, len(searched.faces))
    faces = [_compare(model.calibration, searched, row, len(rows)) for row in rows]
    ranked = sorted(faces, key=lambda found: -found.probability)
    return Found(searched.faces[0], tuple(ranked), ((several,) if first > 1 else ()) + searched.problems)


def _compare(calibration: Calibration, searched: Group, row: int, count: int) -> FoundFace:
    """Compare the main face of the portrait, the first of the group, with one of `count` others."""
    portrait, face, photo = searched.faces[0], searched.faces[row], searched.photos[row]
    distance = np.asarray(np.linalg.norm(searched.z[0] - searched.z[row]))
    known = portrait.quality, face.quality
    probability = probability_among(calibration, distance, None if None in known else np.array(known), count)
    return FoundFace(
        photo=photo - 1,
        name=searched.names[row],
        number=row - searched.photos.index(photo) + 1,
        count=searched.photos.count(photo),
        face=face,
        dissimilarity=float(distance),
        probability=float(probability),
    )
