"""Compare two photos: their distance, the probability that they show the same person, and a verdict."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from siamese import images
from siamese.calibration import Calibration
from siamese.faces import Face, detect, quality_warnings
from siamese.network import SiameseNetwork, distance
from siamese.record import Record

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
        align: "faces" to detect and align the faces in a photo, "none" to use the whole image.
        revision: commit of a network from the Hub; else None.
        note: a sentence for the user if the Hub could not be reached and a cached copy was loaded; else empty.
    """

    def __init__(
        self,
        network: SiameseNetwork,
        calibration: Calibration,
        record: Record,
        name: str,
        align: str = "none",
        revision: str | None = None,
        note: str = "",
    ):
        self.network, self.calibration, self.record, self.name = network.eval(), calibration, record, name
        self.align, self.revision, self.note = align, revision, note

    @property
    def id(self) -> str:
        """USER/NAME@COMMIT for a network from the Hub, which `load` accepts; else the name of the folder."""
        return f"{self.name}@{self.revision}" if self.revision else Path(self.name).resolve().name

    def detect(self, pictures: Sequence[images.ImageSource]) -> list[list[Face]]:
        """Return the faces in each photo, the main one first; for networks without alignment, the whole image.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
        return detect(pictures, self.network.input_shape, self.align, self.network.device)

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
        pictures = list(pictures)
        batches = [pictures[start : start + BATCH_SIZE] for start in range(0, len(pictures), BATCH_SIZE)] or [[]]
        return np.concatenate(
            [self._embed([faces[0] if faces else None for faces in self.detect(batch)]).numpy() for batch in batches]
        )

    def embed_faces(self, faces: Sequence[Face]) -> np.ndarray:
        """Embed N faces from `detect`. Returns (N, D) float32."""
        return self._embed(faces).numpy()

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
        threshold = self.calibration.threshold if fmr is None else self.calibration.operating_point(fmr).distance
        faces, found, warnings = [], [], []
        for candidates, number, name in zip(self.detect([a, b]), numbers, ("first", "second"), strict=True):
            faces.append(_choose(candidates, number, name))
            found.append(tuple(candidate for candidate in candidates if candidate.box))
            if self.align == "faces":
                warnings += quality_warnings(faces[-1], len(candidates), number, name)
        dissimilarity, probability, verdict, interval = math.nan, math.nan, "unsure", None
        if None not in faces:
            if faces[0].crop.tobytes() == faces[1].crop.tobytes():
                warnings.append("Both images are identical.")
            dissimilarity = float(distance(*self._embed(faces)))
            probability = float(self.calibration.probability(dissimilarity))
            interval = self.calibration.confidence_interval(dissimilarity)
            is_same = probability >= VERDICT_PROBABILITY if fmr is None else dissimilarity <= threshold
            verdict = "same" if is_same else "different" if probability <= 1 - VERDICT_PROBABILITY else "unsure"
        return Comparison(
            dissimilarity,
            threshold,
            probability,
            interval,
            verdict,
            tuple(faces),
            tuple(found),
            tuple(warnings),
            self.id,
        )

    @torch.inference_mode()
    def _embed(self, faces: Sequence[Face | None]) -> torch.Tensor:
        """Return (N, D) float32 on the CPU, with a row of NaN for None."""
        crops = [images.to_tensor(face.crop) for face in faces if face]
        x = torch.stack(crops) if crops else torch.empty((0, *self.network.input_shape), dtype=torch.uint8)
        z = self.network.embed(x.to(self.network.device)).float().cpu()
        rows = z.new_full((len(faces), z.shape[1]), math.nan)
        rows[torch.tensor([face is not None for face in faces], dtype=torch.bool)] = z
        return rows


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
    return {"box": face.box, "landmarks": face.landmarks, "angle": face.angle, "score": face.score}
