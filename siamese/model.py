"""Compare two photos: their distance, the probability that they show the same person, and a verdict."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch

from siamese import comparison, images, wording
from siamese.calibration import MAX_VALUE, Calibration
from siamese.comparison import Comparison
from siamese.faces import Face, detect, quality_warnings
from siamese.faces.detection import Landmarks
from siamese.faces.quality import COVERED, DRAWN_SHARE, MAX_QUALITY, REGIONS, rate_faces
from siamese.files import bundled_weights
from siamese.network import SiameseNetwork
from siamese.record import Record

PHOTOS_AT_ONCE = 16  # that are searched for faces together
MAX_THREADS = 8
FACES_AT_ONCE = 8  # on a CPU, so that the activations fit into its caches
GPU_FACES_AT_ONCE = 256

Progress = Callable[[int, int], object]  # gets how many photos are done, and how many there are
T = TypeVar("T")
R = TypeVar("R")


# After a fork, PyTorch's threads do not exist in the child, and waiting for them would never end.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class _Compared(NamedTuple):
    """A photo, ready to be compared with others. It holds no pixels if the faces have no crops."""

    faces: tuple[Face, ...]  # all, the main one first
    rows: list[int]  # of those that are compared, embedded
    z: np.ndarray  # (R, D) float32, their embeddings
    hashes: list[int]  # of their crops
    problem: str = ""  # why the photo could not be read


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

    def detect(self, photos: Sequence[images.ImageSource], problems: dict[int, str] | None = None) -> list[list[Face]]:
        """Return the faces in each photo, the main one first; for networks without alignment, the whole image.

        Args:
            photos: N images, see `images.read`.
            problems: gets the reason for each image that cannot be read, by its row; such an image shows no face. None
                to raise an exception.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
        images.refuse_single_image(photos)
        return detect(photos, self.network.input_shape, self.template, self.network.device, problems)

    def embed(self, photos: Iterable[images.ImageSource]) -> np.ndarray:
        """Embed the main face of each photo. The Euclidean distance of two rows is their dissimilarity.

        Args:
            photos: N images, see `images.read`.

        Returns:
            (N, D) float32; a row of NaN for a photo without a face.

        Raises:
            FileNotFoundError, ValueError: if an image cannot be read.
        """
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
        images.refuse_single_image(photos)
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
        embeddings = torch.cat(z).numpy()
        if not (abs(embeddings) < MAX_VALUE).all():  # also if they are not numbers
            raise ValueError(
                f"the network {self.id} gives embeddings that are too large or no numbers; use another one"
            )
        return embeddings, rated

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
        names = (f"{photo} photo" for photo in wording.PHOTOS)
        rows = [comparison.rows_to_compare(*each) for each in zip(found, numbers, names, strict=True)]
        first, second = self._embed_rows(found, rows)
        return self._answer((first, second), numbers, fmr)

    def compare_many(
        self,
        pairs: Iterable[Sequence[images.ImageSource]],
        *,
        fmr: float | None = None,
        progress: Progress = lambda done, total: None,
    ) -> list[Comparison]:
        """Compare many pairs of photos, each as `compare` does, but read and embed each photo only once.

        A photo that cannot be read does not stop the others: its pairs get the verdict "not read", and the reason is in
        their warnings. The faces of the answers have no crops, so that memory hardly grows with the number of photos.

        Args:
            pairs: P pairs of images, see `images.read`. A path or object in several pairs is one photo.
            fmr: the false-match rate that "same" must not exceed for the two photos of a pair, see `compare`.
            progress: called with the numbers of photos that are done, and of all different photos.

        Returns:
            P answers, in the order of the pairs.

        Raises:
            ValueError: if an element of `pairs` is no pair, or the false-match rate is invalid or was not measured.
        """
        self.calibration.needed(fmr)
        pairs = [_check_pair(number, pair) for number, pair in enumerate(pairs, 1)]
        photos = {_key(photo): photo for pair in pairs for photo in pair}
        compared: list[_Compared] = []
        for batch in in_threads(self._prepare, list(photos.values())):
            compared += batch
            progress(len(compared), len(photos))
        of = dict(zip(photos, compared, strict=True))
        return [self._answer((of[_key(a)], of[_key(b)]), (None, None), fmr) for a, b in pairs]

    def _prepare(self, photos: Sequence[images.ImageSource]) -> list[_Compared]:
        """Embed the faces that are compared, without their crops. Photos that cannot be read do not stop the others."""
        problems: dict[int, str] = {}
        found = self.detect(photos, problems)
        rows = [comparison.rows_to_compare(faces, None, "") for faces in found]
        return [
            photo._replace(
                faces=tuple(replace(face, crop=None) for face in photo.faces), problem=problems.get(number, "")
            )
            for number, photo in enumerate(self._embed_rows(found, rows))
        ]

    def _embed_rows(self, found: Sequence[Sequence[Face]], rows: Sequence[list[int]]) -> list[_Compared]:
        """Embed some of the faces of each photo."""
        z, embedded = self.embed_faces([faces[row] for faces, kept in zip(found, rows, strict=True) for row in kept])
        ends = np.cumsum([0, *map(len, rows)]).tolist()
        compared = []
        for faces, kept, (start, end) in zip(found, rows, pairwise(ends), strict=True):
            known = dict(zip(kept, embedded[start:end], strict=True))
            crops = [face.crop.tobytes() for face in known.values() if face.crop]
            every = tuple(known.get(row, face) for row, face in enumerate(faces))
            compared.append(_Compared(every, kept, z[start:end], list(map(hash, crops))))
        return compared

    def _answer(
        self, photos: tuple[_Compared, _Compared], requested: tuple[int | None, int | None], fmr: float | None
    ) -> Comparison:
        """Compare two photos, of which certain faces may have been requested."""
        a, b = photos
        # A network that compares whole images finds no faces.
        found = (a.faces, b.faces) if self.align == "faces" else ((), ())
        if not (a.rows and b.rows):
            reasons = [None if photo.rows else photo.problem for photo in photos]
            return replace(comparison.no_face(found, reasons, fmr), model=self.id)
        sides = [a.faces[row] for row in a.rows], [b.faces[row] for row in b.rows]
        answer = comparison.compare_faces(self.calibration, sides, (a.z, b.z), fmr)
        one, other = (number - 1 for number in answer.numbers)
        warnings = ["Both images are identical."] if a.hashes[one] == b.hashes[other] else []
        for photo, number, name in zip(photos, requested, wording.PHOTOS, strict=True):
            warnings += comparison.left_out(photo.faces, name) if number is None else []
        if self.align == "none" and not self.record.settings:
            warnings.append(wording.OTHER_CLASSES.format(self.record.data.name))
        if self.align == "faces":
            warnings += quality_warnings(sides[0][one], "the first photo")
            warnings += quality_warnings(sides[1][other], "the second photo")
        return replace(
            answer,
            numbers=(a.rows[one] + 1, b.rows[other] + 1),
            found=found,
            warnings=(*warnings, *answer.warnings),
            model=self.id,
        )


def in_threads(work: Callable[[Sequence[T]], R], photos: Sequence[T], at_once: int = 0) -> Iterator[R]:
    """Yield the result of each batch of `at_once` or `PHOTOS_AT_ONCE` photos, in the given order, from several threads.

    Each thread reads its own batch and runs the networks on it. So files are read while the networks run, and all
    cores are busy, although the networks are too small to be split among several threads.
    """
    at_once = at_once or PHOTOS_AT_ONCE
    batches = (photos[start : start + at_once] for start in range(0, len(photos), at_once))
    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(MAX_THREADS, cores)
    running: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        while True:
            running += [pool.submit(work, batch) for batch in islice(batches, 2 * workers - len(running))]
            if not running:
                return
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _check_pair(number: int, pair: object) -> tuple[images.ImageSource, images.ImageSource]:
    if images.is_single_image(pair) or not isinstance(pair, Iterable):
        raise ValueError("expected a list of pairs of images, such as [(a, b), (a, c)]")
    photos = tuple(pair)
    if len(photos) != 2:
        raise ValueError(f"pair {number} has {len(photos)} images, expected 2")
    return photos


def _key(photo: images.ImageSource) -> str | int:
    """Return what two mentions of the same photo have in common: its path, or the object."""
    return os.fspath(photo) if isinstance(photo, str | os.PathLike) else id(photo)
