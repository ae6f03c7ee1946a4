"""Compare two photos: their distance, the probability that they show the same person, and a verdict."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from siamese import comparison, images, wording
from siamese.calibration import Calibration
from siamese.comparison import Comparison
from siamese.faces import Face, detect, quality_warnings
from siamese.faces.detection import Landmarks
from siamese.faces.quality import COVERED, DRAWN_SHARE, MAX_QUALITY, REGIONS, rate_faces
from siamese.files import bundled_weights
from siamese.network import SiameseNetwork
from siamese.record import Record

PHOTOS_AT_ONCE = 32  # in `Model.embed`
FACES_AT_ONCE = 8  # on a CPU, so that the activations fit into its caches
GPU_FACES_AT_ONCE = 256


# After a fork, PyTorch's threads do not exist in the child, and waiting for them would never end.
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
        license_text: the content of the LICENSE of the weights; empty if they have none of their own.
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
        license_text: str = "",
    ):
        self.network, self.calibration, self.record, self.name = network.eval(), calibration, record, name
        self.template, self.revision, self.note, self.license_text = template, revision, note, license_text

    @property
    def align(self) -> Literal["faces", "none"]:
        """What happens to a photo: "faces" are detected and aligned, or "none" to use the whole image."""
        return "none" if self.template is None else "faces"

    @property
    def words(self) -> wording.Vocabulary:
        """Words for what the network compares."""
        return wording.IMAGES if self.template is None else wording.FACES

    @property
    def id(self) -> str:
        """USER/NAME@COMMIT for a network from the Hub, which `load` accepts; else the name of the folder."""
        return f"{self.name}@{self.revision}" if self.revision else Path(self.name).resolve().name

    def fingerprint(self) -> str:
        """Return a hash of the weights and settings that an embedding and its quality depend on."""
        net = self.network
        settings = type(net.backbone).__name__, net.mirror, net.unit, net.reference_norm, self.template
        settings = *settings, net.input_shape, getattr(net.backbone, "name", "")  # of a network of timm
        digest = hashlib.sha256(json.dumps([*settings, MAX_QUALITY, COVERED, DRAWN_SHARE, REGIONS]).encode())
        if net.onnx:
            digest.update(json.dumps(asdict(net.onnx)).encode())  # with the hash of the file
        for name, tensor in sorted(net.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        if self.template is not None:
            digest.update((bundled_weights("retinaface") / "model.safetensors").read_bytes())
        return digest.hexdigest()

    def detect(self, photos: Sequence[images.ImageSource]) -> list[list[Face]]:
        """Return the faces in each photo, the main one first; for networks without alignment, the whole image.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
        return detect(photos, self.network.input_shape, self.template, self.network.device)

    def embed(self, photos: Iterable[images.ImageSource]) -> np.ndarray:
        """Embed the main face of each photo. The Euclidean distance of two rows is their dissimilarity.

        Args:
            photos: N images, see `images.read`.

        Returns:
            (N, D) float32; a row of NaN for a photo without a face.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
        if images.is_single_image(photos):
            raise ValueError("expected a list of images, got one image; put it into a list")
        return self.embed_with_quality(photos)[0]

    def embed_with_quality(self, photos: Iterable[images.ImageSource]) -> tuple[np.ndarray, np.ndarray]:
        """Embed the main face of each photo, and estimate its quality.

        Args:
            photos: N images, see `images.read`.

        Returns:
            (N, D) and (N,) float32: embeddings, and qualities in [0, 1], see `Face.quality`. NaN for a photo without a
            face; the qualities are also NaN if the network has no quality scores.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
        photos = list(photos)
        z = np.full((len(photos), self.network.embedding_dim), np.nan, np.float32)
        quality = np.full(len(photos), np.nan, np.float32)
        for start in range(0, len(photos), PHOTOS_AT_ONCE):
            found = self.detect(photos[start : start + PHOTOS_AT_ONCE])
            rows = [start + row for row, faces in enumerate(found) if faces]
            z[rows], faces = self.embed_faces([faces[0] for faces in found if faces])
            quality[rows] = [math.nan if face.quality is None else face.quality for face in faces]
        return z, quality

    def embed_faces(self, faces: Sequence[Face]) -> tuple[np.ndarray, list[Face]]:
        """Embed N faces from `detect`. Returns (N, D) float32, and the faces with their quality and what is covered."""
        crops = [face.pixels for face in faces]
        x = torch.stack(crops) if crops else torch.empty((0, *self.network.input_shape), dtype=torch.uint8)
        device, z, rated = self.network.device, [], []
        with torch.inference_mode():
            for part in x.split(FACES_AT_ONCE if device.type == "cpu" else GPU_FACES_AT_ONCE):
                pixels = part.to(device)
                features = self.network.features(pixels)  # (B, D)
                z.append(self.network.head(features).float().cpu())
                rated += rate_faces(self.network, faces[len(rated) : len(rated) + len(part)], pixels, features)
        return torch.cat(z).numpy(), rated

    def compare(
        self,
        a: images.ImageSource,
        b: images.ImageSource,
        *,
        face: int | tuple[int | None, int | None] | None = None,
        fmr: float | None = None,
    ) -> Comparison:
        """Compare two photos: every face of one with every face of the other.

        A photo without a face gives an answer with the verdict "no face", not an error.

        Args:
            a: first image, see `images.read`.
            b: second image; the order does not matter.
            face: the face of each photo to compare, from 1 in the order of `Comparison.found`; one number for both
                photos, or one for each. None for all faces of a photo.
            fmr: the false-match rate that "same" must not exceed for the two photos, see `Calibration.needed`. None for
                a verdict at odds of 3 to 1, or more for poor faces, see `Calibration.score`.

        Raises:
            FileNotFoundError: if a file does not exist.
            ValueError: if an image cannot be read, a face number is out of range, or the false-match rate is invalid or
                was not measured.
        """
        numbers = comparison.face_numbers(face)
        if self.align == "none" and any(numbers):
            raise ValueError("this network compares whole images; omit face")
        self.calibration.needed(fmr)  # raises before the photos are read
        found = self.detect([a, b])
        rows = [comparison.rows_to_compare(*each) for each in zip(found, numbers, wording.PHOTOS, strict=True)]
        if not all(rows):
            return replace(comparison.no_face(self._with_box(found), fmr), model=self.id)
        z, embedded = self.embed_faces([faces[row] for faces, kept in zip(found, rows, strict=True) for row in kept])
        first, second = embedded[: len(rows[0])], embedded[len(rows[0]) :]
        answer = comparison.compare_faces(self.calibration, (first, second), (z[: len(first)], z[len(first) :]), fmr)
        return self._describe(answer, found, rows, numbers)

    def _describe(
        self,
        answer: Comparison,
        found: list[list[Face]],
        rows: list[list[int]],
        requested: tuple[int | None, int | None],
    ) -> Comparison:
        """Add to an answer about the embedded faces, `rows` of each photo, what the photos show."""
        for faces, kept, embedded in zip(found, rows, answer.found, strict=True):
            for row, face in zip(kept, embedded, strict=True):
                faces[row] = face
        places = [kept[number - 1] for kept, number in zip(rows, answer.numbers, strict=True)]
        first, second = (faces[row] for faces, row in zip(found, places, strict=True))
        warnings = ["Both images are identical."] if torch.equal(first.pixels, second.pixels) else []
        for faces, number, name in zip(found, requested, wording.PHOTOS, strict=True):
            warnings += comparison.left_out(faces, name) if number is None else []
        if self.align == "none" and not self.record.settings:
            warnings.append(wording.OTHER_CLASSES.format(self.record.data.name))
        if self.align == "faces":
            warnings += quality_warnings(first, "the first photo") + quality_warnings(second, "the second photo")
        return replace(
            answer,
            faces=(first, second),
            numbers=(places[0] + 1, places[1] + 1),
            found=self._with_box(found),
            warnings=(*warnings, *answer.warnings),
            model=self.id,
        )

    def _with_box(self, found: list[list[Face]]) -> tuple[tuple[Face, ...], tuple[Face, ...]]:
        """Return the faces of two photos; none if the network compares whole images."""
        first, second = (tuple(faces) if self.align == "faces" else () for faces in found)
        return first, second
