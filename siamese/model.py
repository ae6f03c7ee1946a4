"""Compare two photos: their distance, the probability that they show the same person, and a verdict."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from siamese import images, wording
from siamese.calibration import Calibration
from siamese.comparison import Comparison
from siamese.face_pairs import at_fmr, closest_pair, face_numbers, name_left_out, rows_to_compare
from siamese.faces import Face, detect, quality_warnings
from siamese.faces.detection import Landmarks
from siamese.faces.quality import mark_covered
from siamese.network import SiameseNetwork, to_tensor
from siamese.record import Record
from siamese.search.find import DEFAULT_LIMIT, Matches, find
from siamese.search.people import People, group_people
from siamese.search.photos import Photos, open_photos
from siamese.search.strictness import FIND_FMR, GROUP_FMR
from siamese.wording import VERDICT_PROBABILITY

BATCH_SIZE = 32  # photos per batch in `Model.embed`
FACES_AT_ONCE = 8  # on a CPU, whose caches hold the activations of so many
GPU_FACES_AT_ONCE = 256
NO_FACE = "No face was found in the {} photo. Use a photo in which the whole face is large and well lit."


# After a fork, PyTorch's threads do not exist in the child, which would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


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
        crops = [to_tensor(face.crop) for face in faces]
        x = torch.stack(crops) if crops else torch.empty((0, *self.network.input_shape), dtype=torch.uint8)
        device = self.network.device
        with torch.inference_mode():
            parts = x.split(FACES_AT_ONCE if device.type == "cpu" else GPU_FACES_AT_ONCE)
            features = torch.cat([self.network.features(part.to(device)) for part in parts])  # (N, D)
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
        face: int | tuple[int | None, int | None] | None = None,
        fmr: float | None = None,
    ) -> Comparison:
        """Compare two photos: every face of one with every face of the other.

        A photo without a face gives an answer with the verdict "no face", not an error. Faces that are too poor to
        compare, next to better ones, are left out and named in the warnings.

        Args:
            a: first image, see `images.read`.
            b: second image; the order does not matter.
            face: the face of each photo to compare, from 1 in the order of `Comparison.found`; one number for both
                photos, or one for each. None for all faces of a photo.
            fmr: the false-match rate that "same" must not exceed for the two photos, one of
                `calibration.operating_points`. None for a verdict at odds of 3 to 1.

        Raises:
            FileNotFoundError: if a file does not exist.
            ValueError: if an image cannot be read, a face number is out of range, or the false-match rate was not
                measured.
        """
        chosen = face_numbers(face)
        if self.align == "none" and any(chosen):
            raise ValueError("this network compares whole images; omit face")
        if fmr is not None:
            self.calibration.operating_point(fmr)  # raises before the photos are read
        found = self.detect([a, b])
        rows = [rows_to_compare(*photo) for photo in zip(found, chosen, wording.PHOTOS, strict=True)]
        if not all(rows):
            return self._no_face(found) if fmr is None else at_fmr(self.calibration, self._no_face(found), fmr)
        places = [(photo, row) for photo in (0, 1) for row in rows[photo]]
        z, embedded = self.embed_faces([found[photo][row] for photo, row in places])
        for (photo, row), embedded_face in zip(places, embedded, strict=True):
            found[photo][row] = embedded_face
        good = [self._good_enough([found[photo][row] for row in rows[photo]]) for photo in (0, 1)]  # (n,) bool each
        rows = [[row for row, kept in zip(rows[photo], good[photo], strict=True) if kept] for photo in (0, 1)]
        z1, z2 = (half[kept] for half, kept in zip(np.split(z, [len(good[0])]), good, strict=True))
        q1, q2 = (np.array([found[photo][row].quality for row in rows[photo]]) for photo in (0, 1))
        pair = closest_pair(self.calibration, (z1, z2), None if None in (*q1, *q2) else (q1, q2), None)
        numbers = rows[0][pair.rows[0]], rows[1][pair.rows[1]]
        face1, face2 = mark_covered(self.network, [found[photo][number] for photo, number in enumerate(numbers)])
        found[0][numbers[0]], found[1][numbers[1]] = face1, face2

        warnings = ["Both images are identical."] if face1.crop.tobytes() == face2.crop.tobytes() else []
        warnings += name_left_out(found, rows, chosen)
        if self.align == "faces":
            warnings += quality_warnings(face1, "first") + quality_warnings(face2, "second")
        answer = Comparison(
            verdict=pair.verdict,
            probability=pair.probability,
            confidence_interval=pair.confidence_interval,
            dissimilarity=pair.distance,
            threshold=pair.threshold,
            fmr=None,
            faces=(face1, face2),
            numbers=(numbers[0] + 1, numbers[1] + 1),
            pairs=len(rows[0]) * len(rows[1]),
            found=(_with_box(found[0]), _with_box(found[1])),
            warnings=tuple(warnings),
            model=self.id,
        )
        return answer if fmr is None else at_fmr(self.calibration, answer, fmr)

    def find(
        self,
        portraits: images.ImageSource | Iterable[images.ImageSource],
        photos: Photos,
        *,
        fmr: float = FIND_FMR,
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

    def group(self, photos: Photos, *, fmr: float = GROUP_FMR) -> People:
        """Group the faces of many photos by person.

        Args:
            photos: see `find`.
            fmr: expected number of false matches of a face among all faces. See `search_threshold`.

        Raises:
            FileNotFoundError, ValueError, OSError: if the photos or the index cannot be used.
        """
        with open_photos(self, photos) as collection:
            return group_people(self, collection, fmr)

    def _no_face(self, found: list[list[Face]]) -> Comparison:
        """Return the answer for photos of which at least one shows no face."""
        faceless = [name for name, faces in zip(wording.PHOTOS, found, strict=True) if not faces]
        return Comparison(
            verdict="no face",
            probability=math.nan,
            confidence_interval=None,
            dissimilarity=math.nan,
            threshold=self.calibration.distance_at(VERDICT_PROBABILITY),
            fmr=None,
            faces=(found[0][0] if found[0] else None, found[1][0] if found[1] else None),
            numbers=(1, 1),
            pairs=0,
            found=(_with_box(found[0]), _with_box(found[1])),
            warnings=tuple(map(NO_FACE.format, faceless)),
            model=self.id,
        )

    def _good_enough(self, faces: Sequence[Face]) -> np.ndarray:
        """Return for each of the faces of a photo, (n,) bool, whether its quality is good enough to compare it.

        Next to better faces, a face needs `Calibration.min_quality`. The best face is always good enough.
        """
        quality = np.array([math.inf if face.quality is None else face.quality for face in faces])
        return quality >= min(self.calibration.min_quality, quality.max())


def _with_box(faces: list[Face]) -> tuple[Face, ...]:
    return tuple(face for face in faces if face.box)
