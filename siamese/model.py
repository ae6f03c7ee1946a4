"""Compare two photos: their distance, the probability that they show the same person, and a verdict."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from siamese import images
from siamese.calibration import Calibration
from siamese.faces import Face, detect, quality_warnings
from siamese.faces.cover import mark_covered
from siamese.faces.detection import Landmarks
from siamese.network import SiameseNetwork, distance
from siamese.record import Record
from siamese.search.find import DEFAULT_LIMIT, Matches, find
from siamese.search.people import People, group_people
from siamese.search.photos import Photos, open_photos
from siamese.search.strictness import DEFAULT_FMR

# The verdict is "same" from this probability, "different" up to its complement, and "unsure" in between.
VERDICT_PROBABILITY = 0.75

BATCH_SIZE = 32  # photos per batch in `Model.embed`

Verdict = Literal["same", "unsure", "different"]


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two photos.

    Attributes:
        dissimilarity: Euclidean distance of the two embeddings, ≥ 0; lower is more alike. NaN if a face is missing.
        threshold: largest distance with the verdict "same" for the requested false-match rate; without one, the
            distance at even odds.
        probability: P(same) in [0, 1] at even prior odds. NaN if a face is missing.
        confidence_interval: 95 % confidence interval of `probability`; None if it is unknown or a face is missing.
        verdict: "same" or "different" at odds of at least 3 to 1, else "unsure". For a requested false-match rate,
            "same" up to `threshold`.
        faces: the two compared faces; None for a photo without a face.
        found: all faces in each photo, the main one first; empty if the network compares whole images.
        warnings: sentences for the user, for example about a blurred face; often empty.
        model: the network that gave the answer, see `Model.id`.
    """

    dissimilarity: float
    threshold: float
    probability: float
    confidence_interval: tuple[float, float] | None
    verdict: Verdict
    faces: tuple[Face | None, Face | None]
    found: tuple[tuple[Face, ...], tuple[Face, ...]] = ((), ())
    warnings: tuple[str, ...] = ()
    model: str = ""

    def to_dict(self) -> dict:
        """Return all but the crops, for JSON, with None instead of NaN."""
        known = not math.isnan(self.dissimilarity)
        return {
            "dissimilarity": self.dissimilarity if known else None,
            "threshold": self.threshold,
            "probability": self.probability if known else None,
            "confidence_interval": self.confidence_interval and list(self.confidence_interval),
            "verdict": self.verdict,
            "faces": [face and _face_to_dict(face) for face in self.faces],
            "found": [[_face_to_dict(face) for face in faces] for faces in self.found],
            "warnings": list(self.warnings),
            "model": self.model,
        }


class Model:
    """A trained network with its calibration and record, from `siamese.load`. Threads can share it.

    Attributes:
        network: the network, in evaluation mode.
        calibration: maps a distance to P(same).
        record: what the network was trained on and how well it does.
        name: the folder or Hub id that it was loaded from.
        template: where the crop of a face has the eyes, the nose and the corners of the mouth, see `crop`; None if the
            network compares whole images.
        revision: commit of a network from the Hub; else None.
        note: a sentence for the user if the Hub could not be reached and a cached copy was loaded; else empty.
    """

    def __init__(
        self,
        network: SiameseNetwork,
        calibration: Calibration,
        record: Record,
        name: str,
        template: Landmarks | None = None,
        revision: str | None = None,
        note: str = "",
    ):
        self.network, self.calibration, self.record, self.name = network.eval(), calibration, record, name
        self.template, self.revision, self.note = template, revision, note

    @property
    def align(self) -> Literal["faces", "none"]:
        """What happens to a photo: "faces" are detected and aligned, or "none" to use the whole image."""
        return "none" if self.template is None else "faces"

    @property
    def id(self) -> str:
        """USER/NAME@COMMIT for a network from the Hub, which `load` accepts; else the name of the folder."""
        return f"{self.name}@{self.revision}" if self.revision else Path(self.name).resolve().name

    def detect(self, pictures: Sequence[images.ImageSource]) -> list[list[Face]]:
        """Return the faces in each photo, the main one first; for networks without alignment, the whole image.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
        return detect(pictures, self.network.input_shape, self.template, self.network.device)

    def embed(self, pictures: Iterable[images.ImageSource]) -> np.ndarray:
        """Embed the main face of each photo. The Euclidean distance of two rows is their dissimilarity.

        Args:
            pictures: N images, see `images.read`.

        Returns:
            (N, D) float32; a row of NaN for a photo without a face.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
        if images.is_single_image(pictures):
            raise ValueError("expected a list of images, got one image; put it into a list")
        return self.embed_with_quality(pictures)[0]

    def embed_with_quality(self, pictures: Iterable[images.ImageSource]) -> tuple[np.ndarray, np.ndarray]:
        """Embed the main face of each photo, and estimate its quality.

        Args:
            pictures: N images, see `images.read`.

        Returns:
            (N, D) and (N,) float32: embeddings, and qualities in [0, 1], see `Face.quality`. NaN for a photo without a
            face; the qualities are also NaN if the network has no quality scores.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
        pictures = list(pictures)
        z = np.full((len(pictures), self.network.embedding_dim), np.nan, np.float32)
        quality = np.full(len(pictures), np.nan, np.float32)
        for start in range(0, len(pictures), BATCH_SIZE):
            found = self.detect(pictures[start : start + BATCH_SIZE])
            rows = [start + row for row, faces in enumerate(found) if faces]
            z[rows], faces = self.embed_faces([faces[0] for faces in found if faces])
            quality[rows] = [math.nan if face.quality is None else face.quality for face in faces]
        return z, quality

    def embed_faces(self, faces: Sequence[Face]) -> tuple[np.ndarray, list[Face]]:
        """Embed N faces from `detect`. Returns (N, D) float32, and the faces with their quality."""
        crops = [images.to_tensor(face.crop) for face in faces]
        x = torch.stack(crops) if crops else torch.empty((0, *self.network.input_shape), dtype=torch.uint8)
        with torch.inference_mode():
            features = self.network.features(x.to(self.network.device))  # (N, D)
            z = self.network.head(features).float().cpu().numpy()
            quality = self.network.quality(features)
        if quality is not None:
            faces = [replace(face, quality=value) for face, value in zip(faces, quality.tolist(), strict=True)]
        return z, list(faces)

    def compare(
        self,
        a: images.ImageSource,
        b: images.ImageSource,
        *,
        face: int | tuple[int, int] = 0,
        fmr: float | None = None,
    ) -> Comparison:
        """Compare two photos. A photo without a face gives an answer with the verdict "unsure", not an error.

        Args:
            a: first image, see `images.read`.
            b: second image; the order does not matter.
            face: which face of each photo to compare, as an index into `Comparison.found`; one number for both photos.
            fmr: the false-match rate that "same" must not exceed, one of `calibration.operating_points`. None for a
                verdict at odds of 3 to 1.

        Raises:
            FileNotFoundError: if a file does not exist.
            ValueError: if an image cannot be read, a face number is out of range, or the false-match rate was not
                measured.
        """
        numbers = (operator.index(face),) * 2 if not isinstance(face, Sequence) else tuple(map(operator.index, face))
        if len(numbers) != 2:
            raise ValueError(f"face must be one number, or one for each of the two photos, got {face!r}")
        if self.align == "none" and any(numbers):
            raise ValueError("this network compares whole images; omit face")
        point = None if fmr is None else self.calibration.operating_point(fmr)
        detected1, detected2 = self.detect([a, b])
        face1, face2 = _choose(detected1, numbers[0], "first"), _choose(detected2, numbers[1], "second")
        warnings: list[str] = []
        dissimilarity, quality, interval = math.nan, None, None
        if face1 and face2:
            z, embedded = self.embed_faces([face1, face2])
            face1, face2 = mark_covered(self.network, embedded)
            detected1[numbers[0]], detected2[numbers[1]] = face1, face2
            dissimilarity = float(distance(*torch.from_numpy(z)))
            if face1.quality is not None and face2.quality is not None:
                quality = face1.quality, face2.quality
            interval = self.calibration.confidence_interval(dissimilarity, quality)
            if face1.crop.tobytes() == face2.crop.tobytes():
                warnings.append("Both images are identical.")
        if self.align == "faces":
            warnings += quality_warnings(face1, len(detected1), numbers[0], "first")
            warnings += quality_warnings(face2, len(detected2), numbers[1], "second")
        probability = float(self.calibration.probability(dissimilarity, quality))
        is_same = dissimilarity <= point.distance if point else probability >= VERDICT_PROBABILITY
        if point and quality and min(quality) < self.calibration.min_quality:
            warnings.append(f"The photos are too poor for a false-match rate of 1 in {round(1 / point.fmr):,}.")
            is_same = False
        return Comparison(
            dissimilarity=dissimilarity,
            threshold=point.distance if point else self.calibration.distance_at(0.5, quality),
            probability=probability,
            confidence_interval=interval,
            verdict="same" if is_same else "different" if probability <= 1 - VERDICT_PROBABILITY else "unsure",
            faces=(face1, face2),
            found=(_with_box(detected1), _with_box(detected2)),
            warnings=tuple(warnings),
            model=self.id,
        )

    def find(
        self,
        portraits: images.ImageSource | Iterable[images.ImageSource],
        photos: Photos,
        *,
        fmr: float = DEFAULT_FMR,
        limit: int = DEFAULT_LIMIT,
    ) -> Matches:
        """Find a person in many photos.

        Args:
            portraits: a photo of the person, or several, which count together. Their main faces are used.
            photos: a folder or zip archive, whose faces are kept in an index so that the next search is fast; an index;
                or images.
            fmr: expected number of false matches among all faces. See `search_threshold`.
            limit: how many faces to return, at most.

        Raises:
            FileNotFoundError, ValueError, OSError: if a portrait, the photos or the index cannot be used.
        """
        several: list[Any] = [portraits] if images.is_single_image(portraits) else list(cast(Iterable, portraits))
        with open_photos(self, photos) as collection:
            return find(self, several, collection, fmr, limit)

    def group(self, photos: Photos, *, fmr: float = DEFAULT_FMR) -> People:
        """Group the faces of many photos by person.

        Args:
            photos: see `find`.
            fmr: expected number of false matches of a face among all faces. See `search_threshold`.

        Raises:
            FileNotFoundError, ValueError, OSError: if the photos or the index cannot be used.
        """
        with open_photos(self, photos) as collection:
            return group_people(self, collection, fmr)


def _with_box(faces: list[Face]) -> tuple[Face, ...]:
    return tuple(face for face in faces if face.box)


def _choose(faces: list[Face], number: int, name: str) -> Face | None:
    """Return a face by its number; None if there are no faces.

    Raises:
        ValueError: if there are faces, but not this one.
    """
    if not faces:
        return None
    if not 0 <= number < len(faces):
        expected = f"0 to {len(faces) - 1}" if len(faces) > 1 else "0"
        plural = "s" if len(faces) > 1 else ""
        raise ValueError(f"the {name} photo shows {len(faces)} face{plural}: face must be {expected}, got {number}")
    return faces[number]


def _face_to_dict(face: Face) -> dict:
    names = ("box", "landmarks", "angle", "score", "quality", "covered")
    return {name: getattr(face, name) for name in names}
