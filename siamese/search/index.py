"""The index of a folder of photos: an array of embeddings in a file, and the faces that they belong to in SQLite.

    faces.sqlite   which photos were read, and the faces in them
    vectors.npy    (rows, D) float32, the embedding of each face

A row of vectors.npy counts only if the table `faces` names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from siamese.files import cache_folder
from siamese.search.collection import FoundFace
from siamese.search.embedder import Embedder, digest

T = TypeVar("T")

DATABASE, VECTORS = "faces.sqlite", "vectors.npy"
FORMAT = "1"
HEADER_BYTES = 128  # of vectors.npy
BLOCK_ROWS = 1 << 14  # embeddings that are read at once: 12 MB for the face network


class Index:
    """An index that is open for reading. Use it in a `with` statement. While it is open, nobody can change it.

    Args:
        folder: where the index is.
        model: the network that it was made with.

    Attributes:
        folder: where the index is.
        source: the folder or zip archive of the photos.
        dimension: D, the length of an embedding.

    Raises:
        FileNotFoundError: if there is no index.
        ValueError: if it was made with another network or version, or is damaged.
        OSError: if another process is changing it.
    """

    def __init__(self, folder: Path, model: Embedder):
        if not is_index(folder):
            raise FileNotFoundError(f"{folder} holds no index; `siamese embed FOLDER` makes one")
        self.folder, self.dimension = folder, model.network.embedding_dim
        self._connect("rw")
        with self._closing_on_failure():
            self._db.execute("BEGIN")
            self.source = self._check(model)
            self._check_vectors()

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __len__(self) -> int:
        """Return the number of faces."""
        return self._db.execute("SELECT count(*) FROM faces").fetchone()[0]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (B,) rows and their (B, D) embeddings. They are read block by block, so memory does not grow."""
        end = self._end()
        has_gaps = len(self) < end
        for start in range(0, end, BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, end))
            z = self._vectors(start, len(rows))
            if has_gaps:
                used = self._db.execute("SELECT row FROM faces WHERE row BETWEEN ? AND ?", (start, int(rows[-1])))
                rows = np.array(sorted(row for (row,) in used), dtype=int)
                z = z[rows - start]
            yield rows, z

    def vectors(self) -> np.ndarray:
        """Return the (N, D) embeddings of all faces, in the order of their rows, in memory."""
        return np.concatenate([np.empty((0, self.dimension), np.float32), *(z for _, z in self.blocks())])

    def qualities(self) -> np.ndarray:
        """Return the (N,) qualities of all faces, in the order of their rows; NaN without quality scores."""
        values = self._db.execute("SELECT quality FROM faces ORDER BY row")
        return np.array([np.nan if value is None else value for (value,) in values], np.float32)

    def faces(self, rows: Sequence[int] | None = None) -> list[FoundFace]:
        """Return the faces of some rows, or all faces in the order of their rows."""
        query = (
            "SELECT path, number, x1, y1, x2, y2, landmarks, score, quality FROM faces JOIN files ON file = id "
            f"{'ORDER BY row' if rows is None else 'WHERE row = ?'}"
        )
        if rows is None:
            return list(map(_to_face, self._db.execute(query)))
        return [_to_face(self._db.execute(query, (int(row),)).fetchone()) for row in rows]

    def files(self) -> dict[str, tuple[int, int]]:
        """Return the size and stamp of each photo, by its path, see `Photo`; a size of -1 if it could not be read."""
        return {path: (size, stamp) for path, size, stamp in self._db.execute("SELECT path, size, stamp FROM files")}

    def problems(self) -> list[tuple[str, str]]:
        """Return (path, sentence) of each photo that could not be read."""
        return self._db.execute("SELECT path, problem FROM files WHERE problem != '' ORDER BY path").fetchall()

    def without_faces(self) -> list[str]:
        """Return the paths of the photos in which no face was found."""
        query = "SELECT path FROM files WHERE problem = '' AND id NOT IN (SELECT file FROM faces) ORDER BY path"
        return [path for (path,) in self._db.execute(query)]

    def _connect(self, mode: str) -> None:
        # Also a reader needs the mode "rw": it completes or undoes what a killed process was writing.
        address = f"{(self.folder / DATABASE).absolute().as_uri()}?mode={mode}"
        self._db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=1, check_same_thread=False)

    def _check(self, model: Embedder) -> Path:
        """Return the folder of the photos.

        Raises:
            ValueError: if the index was made with another network or version.
        """
        settings = dict(self._db.execute("SELECT name, value FROM settings"))
        if settings["format"] != FORMAT:
            raise ValueError(f"{self.folder} was made by another version; delete it and run `siamese embed` again")
        if settings["network"] != digest(model).hexdigest():
            raise ValueError(
                f"{self.folder} was made with another network, {settings['model']}; use that one, or another index"
            )
        return Path(settings["source"])

    def _check_vectors(self) -> None:
        """Raise a ValueError if vectors.npy does not have all rows that the database names."""
        needed = HEADER_BYTES + 4 * self.dimension * self._end()
        file = self.folder / VECTORS
        if not file.is_file() or file.stat().st_size < needed:
            raise ValueError(
                f"{self.folder} is damaged ({VECTORS} is missing or too short); delete it and run `siamese embed` again"
            )

    def _end(self) -> int:
        """Return the first row after the last face."""
        return self._db.execute("SELECT coalesce(max(row) + 1, 0) FROM faces").fetchone()[0]

    def _vectors(self, start: int, count: int) -> np.ndarray:
        """Map `count` rows of vectors.npy: (count, D)."""
        offset = HEADER_BYTES + 4 * self.dimension * start
        return np.memmap(self.folder / VECTORS, np.float32, "r", offset, (count, self.dimension))

    @contextlib.contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        try:
            with self._errors():
                yield
        except BaseException:
            self._db.close()
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the database and the file system into sentences."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "locked" in text:
                raise OSError(f"{self.folder} is in use by another run; wait until that has finished") from error
            if any(words in text for words in ("full", "disk I/O", "unable to open", "readonly")):
                raise OSError(self._not_written(text)) from error
            raise ValueError(f"{self.folder} is damaged ({text}); delete it and run `siamese embed` again") from error
        except OSError as error:
            if error.errno is None:  # a sentence already
                raise
            raise OSError(self._not_written(error.strerror or str(error))) from error

    def _not_written(self, reason: str) -> str:
        return (
            f"cannot write {self.folder}; is the disk full? ({reason}). What was written before is kept. Run again to "
            "continue"
        )


def is_index(folder: Path) -> bool:
    """Return whether a folder is an index."""
    return (folder / DATABASE).is_file()


def default_place(source: Path, model: Embedder) -> Path:
    """Return where the index of a folder of photos is by default: in `cache_folder()`, with one for each network."""
    key = hashlib.sha256(f"{source.resolve()} {digest(model).hexdigest()}".encode("utf-8", "surrogateescape"))
    return cache_folder() / "indexes" / f"{source.resolve().name}-{key.hexdigest()[:12]}"


def _to_face(values: tuple) -> FoundFace:
    photo, number, *box, landmarks, score, quality = values
    if landmarks is None:
        return FoundFace(photo, number)
    places = tuple((x, y) for x, y in json.loads(landmarks))
    x1, y1, x2, y2 = box
    return FoundFace(photo, number, (x1, y1, x2, y2), places, score, quality)
