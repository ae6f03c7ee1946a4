"""Faces that can be searched: those of an index, or those of photos in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from siamese import images
from siamese.faces.detection import Box, Landmarks
from siamese.search.embedder import Embedder
from siamese.search.embedding import embed_photos


@dataclass(frozen=True)
class FoundFace:
    """A face among many. Coordinates are as in `Detection`; None if the network compares whole images.

    Attributes:
        photo: path or name of the photo.
        number: which face of the photo, from 1; the main one first.
        box, landmarks, score, quality: see `Face`.
    """

    photo: str
    number: int
    box: Box | None = None
    landmarks: Landmarks | None = None
    score: float | None = None
    quality: float | None = None


class Collection(Protocol):
    """N faces with their embeddings. `Index` is one, and `PhotoCollection`."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (B,) rows and their (B, D) embeddings."""
        ...

    def vectors(self) -> np.ndarray:
        """Return the (N, D) embeddings, in the order of their rows."""
        ...

    def qualities(self) -> np.ndarray:
        """Return the (N,) qualities, in the same order; NaN without quality scores."""
        ...

    def faces(self, rows: Sequence[int] | None = None) -> list[FoundFace]:
        """Return the faces of some rows, or all faces in the order of their rows."""
        ...


class PhotoCollection:
    """The faces of photos in memory.

    Args:
        model: the network.
        photos: (name, image) of each photo, see `images.read`.

    Attributes:
        problems: sentences about photos that could not be read or show no face.
    """

    def __init__(self, model: Embedder, photos: Sequence[tuple[str, images.ImageSource]]):
        embeddings = [np.empty((0, model.network.embedding_dim), np.float32)]
        self._faces: list[FoundFace] = []
        self.problems: list[str] = []
        for name, photo in photos:
            (found,) = embed_photos(model, [photo])
            if not found.faces:
                self.problems.append(f"{found.problem}." if found.problem else f"No face was found in {name}.")
            embeddings.append(found.z)
            self._faces += [
                FoundFace(name, number, face.box, face.landmarks, face.score, face.quality)
                for number, face in enumerate(found.faces, 1)
            ]
        self._z = np.concatenate(embeddings)

    def __len__(self) -> int:
        return len(self._faces)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (N,) rows and their (N, D) embeddings."""
        if self._faces:
            yield np.arange(len(self)), self._z

    def vectors(self) -> np.ndarray:
        """Return the (N, D) embeddings."""
        return self._z

    def qualities(self) -> np.ndarray:
        """Return the (N,) qualities; NaN without quality scores."""
        return np.array([np.nan if face.quality is None else face.quality for face in self._faces], np.float32)

    def faces(self, rows: Sequence[int] | None = None) -> list[FoundFace]:
        """Return the faces of some rows, or all faces."""
        return self._faces if rows is None else [self._faces[row] for row in rows]
