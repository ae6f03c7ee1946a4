"""Detect and embed the faces of many photos, and collections of such faces."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from PIL import Image

from siamese import images
from siamese.faces import Face
from siamese.faces.detection import Box
from siamese.model import Model, Progress, in_threads
from siamese.search.scan import Photo

LARGE_FILE_BYTES = 50_000_000
Block = tuple[np.ndarray, np.ndarray]  # (B,) rows, and their (B, D) float32 embeddings


@dataclass(frozen=True)
class PhotoFaces:
    """The faces of one photo."""

    faces: tuple[Face, ...]  # F, the main one first, with their quality
    z: np.ndarray  # (F, D) float32, their embeddings
    problem: str = ""  # a sentence if the photo could not be read
    sha256: str = ""  # of the file, if it was read from one


def embed_photos(model: Model, sources: Sequence[images.ImageSource]) -> list[PhotoFaces]:
    """Detect and embed the faces of several photos at once. Photos that cannot be read do not stop the others."""
    problems: dict[int, str] = {}
    found = model.detect(sources, problems)
    z, faces = model.embed_faces([face for faces in found for face in faces])
    ends = np.cumsum([0, *map(len, found)])
    return [
        PhotoFaces(tuple(faces[start:end]), z[start:end], problems.get(row, ""))
        for row, (start, end) in enumerate(pairwise(ends))
    ]


def embed_files(model: Model, photos: Sequence[Photo]) -> list[tuple[Photo, PhotoFaces]]:
    """Read and embed several photos at once, see `embed_photos`."""
    files = [_File(photo) for photo in photos]
    return [
        (file.photo, replace(result, sha256=file.sha256))
        for file, result in zip(files, embed_photos(model, files), strict=True)
    ]


class _File:
    """A photo that is read when its faces are detected, so that only one file of a batch is in memory at once."""

    large = threading.Lock()  # only one thread has a large file

    def __init__(self, photo: Photo):
        self.photo, self.sha256 = photo, ""

    def read_reduced(self, min_long_side: int | None) -> tuple[Image.Image, int]:
        """Read the photo, see `images.read_reduced`."""
        with self.large if self.photo.size > LARGE_FILE_BYTES else nullcontext():
            content = self.photo.read()
            self.sha256 = hashlib.sha256(content).hexdigest()
            return images.read_reduced(content, min_long_side)


@dataclass(frozen=True)
class FoundFace:
    """A face among the faces of many photos."""

    row: int  # of its embedding
    photo: str  # path or name
    number: int  # which face of the photo it is, from 1; the main one first
    face: Face  # with a crop if the photo is in memory

    @property
    def box(self) -> Box | None:
        """Left, top, right, bottom in pixels of the upright photo; None if the network compares whole images."""
        return self.face.box

    @property
    def quality(self) -> float | None:
        """Of the face, in [0, 1]; None if the network has no quality scores."""
        return self.face.quality

    def to_dict(self) -> dict:
        """Return where the face is and its quality, for JSON."""
        return {"photo": self.photo, "number": self.number, "box": self.box, "quality": self.quality}


class PhotoCollection:
    """The faces of photos in memory, with their crops, and sentences about the photos that were left out."""

    def __init__(
        self,
        model: Model,
        photos: Sequence[tuple[str, images.ImageSource]],  # with their names
        max_faces: int | None = None,  # stop after this many; None for no limit
        progress: Progress = lambda done, total: None,  # called after each photo
        max_seconds: float = math.inf,  # stop after this time
    ):
        end = time.monotonic() + max_seconds
        embeddings = [np.empty((0, model.network.embedding_dim), np.float32)]
        self._faces: list[FoundFace] = []
        self.problems: list[str] = []
        results = in_threads(lambda some: embed_photos(model, [photo for _, photo in some]), photos, at_once=1)
        for done, ((name, _), (found,)) in enumerate(zip(photos, results, strict=True), 1):
            if not found.faces:
                self.problems.append(f"{found.problem}." if found.problem else f"No face was found in {name}.")
            embeddings.append(found.z)
            self._faces += [
                FoundFace(row, name, number, face)
                for number, (row, face) in enumerate(enumerate(found.faces, len(self._faces)), 1)
            ]
            progress(done, len(photos))
            if time.monotonic() > end and done < len(photos):
                self.problems.append(f"Only the photos up to {name} are used; the others took too much time.")
                break
            if max_faces is not None and len(self._faces) > max_faces:
                self.problems.append(f"Only the first {max_faces} {model.words.item}s are used, up to {name}.")
                break
        self._faces, self.z = self._faces[:max_faces], np.concatenate(embeddings)[:max_faces]

    def __len__(self) -> int:
        return len(self._faces)

    def blocks(self) -> Iterator[Block]:
        """Yield the (N,) rows and their (N, D) embeddings, as an index does in several blocks."""
        yield np.arange(len(self)), self.z

    def faces(self, rows: Sequence[int] | None = None) -> list[FoundFace]:
        """Return the faces of some rows, or all faces."""
        return self._faces if rows is None else [self._faces[row] for row in rows]
