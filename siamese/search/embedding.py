"""Detect and embed the faces of many photos."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from siamese import images
from siamese.face_pairs import MIN_FACE_SCORE
from siamese.faces import Face
from siamese.faces.detection import MAX_PHOTO_SIDE
from siamese.search.embedder import Embedder
from siamese.search.scan import Photo

BATCH_SIZE = 16  # photos that are searched for faces together
MAX_THREADS = 8


@dataclass(frozen=True)
class PhotoFaces:
    """The faces of one photo.

    Attributes:
        faces: F faces, the main one first, with their quality.
        z: (F, D) float32, their embeddings.
        problem: a sentence if the photo could not be read; else empty.
        sha256: hash of the file; empty if it was not read from a file.
    """

    faces: tuple[Face, ...]
    z: np.ndarray
    problem: str = ""
    sha256: str = ""


def embed_photos(model: Embedder, sources: Sequence[images.ImageSource]) -> list[PhotoFaces]:
    """Detect and embed the faces of several photos at once. Photos that cannot be read do not stop the others.

    Args:
        model: a network. If it compares whole images, each image counts as one face.
        sources: N images, see `images.read`.

    Returns:
        N results.
    """
    read: list[tuple[Image.Image, int] | str] = []
    for source in sources:
        try:
            read.append(images.read_reduced(source, None if model.template is None else MAX_PHOTO_SIDE))
        except (ValueError, OSError) as error:
            read.append(str(error))
    detected = iter(model.detect([entry[0] for entry in read if not isinstance(entry, str)]))
    found = [[] if isinstance(entry, str) else _scaled(_likely(next(detected)), entry[1]) for entry in read]
    z, faces = model.embed_faces([face for faces in found for face in faces])
    ends = np.cumsum([0, *map(len, found)])
    return [
        PhotoFaces(tuple(faces[start:end]), z[start:end], entry if isinstance(entry, str) else "")
        for entry, start, end in zip(read, ends, ends[1:], strict=False)
    ]


def embed_files(model: Embedder, photos: Sequence[Photo]) -> Iterator[list[tuple[Photo, PhotoFaces]]]:
    """Embed photos in several threads, batch by batch, in the given order.

    Each thread reads its own batch and runs the networks on it. So files are read while the networks run, and all
    cores are busy, although the networks are too small to be split among several threads.
    """
    threads = torch.get_num_threads()
    batches = iter([photos[start : start + BATCH_SIZE] for start in range(0, len(photos), BATCH_SIZE)])
    workers = min(
        MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    running: deque[Future[list[tuple[Photo, PhotoFaces]]]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        while True:
            while len(running) < 2 * workers and (batch := next(batches, None)):
                running.append(pool.submit(_embed_batch, model, batch))
            if not running:
                return
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _embed_batch(model: Embedder, photos: Sequence[Photo]) -> list[tuple[Photo, PhotoFaces]]:
    contents: list[bytes | str] = []
    for photo in photos:
        try:
            contents.append(photo.read())
        except FileNotFoundError:
            contents.append("it was deleted before it was read")
        except OSError as error:
            contents.append(f"it cannot be read ({error.strerror})")
        except ValueError as error:
            contents.append(str(error))
    results = iter(embed_photos(model, [content for content in contents if isinstance(content, bytes)]))
    embedded = []
    for photo, content in zip(photos, contents, strict=True):
        if isinstance(content, str):
            embedded.append((photo, PhotoFaces((), np.empty((0, model.network.embedding_dim), np.float32), content)))
            continue
        result = next(results)
        problem = result.problem.replace("the file", "it", 1)
        embedded.append((photo, replace(result, problem=problem, sha256=hashlib.sha256(content).hexdigest())))
    return embedded


def _likely(faces: list[Face]) -> list[Face]:
    """Drop detections that are probably no faces."""
    return faces[:1] + [face for face in faces[1:] if (face.score or 0) >= MIN_FACE_SCORE]


def _scaled(faces: list[Face], factor: int) -> list[Face]:
    """Return the faces with their coordinates in a photo `factor` times as large."""
    if factor == 1:
        return faces
    return [
        face
        if face.box is None or face.landmarks is None
        else replace(
            face,
            box=(factor * face.box[0], factor * face.box[1], factor * face.box[2], factor * face.box[3]),
            landmarks=tuple((factor * x, factor * y) for x, y in face.landmarks),
        )
        for face in faces
    ]
