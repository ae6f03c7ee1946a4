"""Write the index of a folder of photos.

Embeddings are written to new rows of vectors.npy first; then one transaction of SQLite makes them count. So if the
process is killed, or the disk is full, only the photos in work are lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from siamese.search.embedder import Embedder, digest
from siamese.search.embedding import PhotoFaces
from siamese.search.index import DATABASE, FORMAT, HEADER_BYTES, VECTORS, Index, is_index
from siamese.search.scan import Photo

SCHEMA = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
        stamp INTEGER NOT NULL, sha256 TEXT NOT NULL, problem TEXT NOT NULL)""",
    """CREATE TABLE faces (row INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES files (id),
        number INTEGER NOT NULL, x1 REAL, y1 REAL, x2 REAL, y2 REAL, landmarks TEXT, score REAL, quality REAL)""",
    "CREATE INDEX faces_of_file ON faces (file)",
)


class IndexWriter(Index):
    """An index that is open for writing. It is created if needed. While it is open, nobody else can open it.

    Args:
        folder: where the index is.
        model: the network that makes the embeddings.
        source: the folder or zip archive of the photos.

    Raises:
        ValueError: if the folder has other files, or the index is damaged, or was made with another network or version
            or from other photos.
        OSError: if another process has opened it, or it cannot be written.
    """

    def __init__(self, folder: Path, model: Embedder, source: Path):
        self.folder, self.dimension, self.source = folder, model.network.embedding_dim, source
        if not is_index(folder) and folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} has other files; choose a new folder for the index")
        with self._errors():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # faces are nobody else's business
            self._connect("rwc")
        with self._closing_on_failure():
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("BEGIN EXCLUSIVE")
            if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._create(model)
            self._db.execute("COMMIT")
            made_from = self._check(model)
            self._check_vectors()
            if made_from != source:
                raise ValueError(f"{folder} is the index of {made_from}; use another one for {source}")

    def _create(self, model: Embedder) -> None:
        (self.folder / VECTORS).write_bytes(_header(0, self.dimension))
        for statement in SCHEMA:
            self._db.execute(statement)
        settings = {
            "format": FORMAT,
            "model": model.id,
            "network": digest(model).hexdigest(),
            "source": str(self.source),
        }
        self._db.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())

    def add(self, batch: Sequence[tuple[Photo, PhotoFaces]]) -> None:
        """Add photos, or replace what is known of them.

        Raises:
            OSError: if the disk is full. What was added before is kept.
        """
        with self._errors():
            row = self._end()
            self._write(row, np.concatenate([found.z for _, found in batch]))
            with self._transaction():
                for photo, found in batch:
                    self._forget([photo.path])
                    # With the size -1, the next run tries a photo again that could not be read.
                    size = -1 if found.problem else photo.size
                    values = photo.path, size, photo.stamp, found.sha256, found.problem
                    query = "INSERT INTO files (path, size, stamp, sha256, problem) VALUES (?, ?, ?, ?, ?)"
                    file = self._db.execute(query, values).lastrowid
                    for number, face in enumerate(found.faces, 1):
                        box, landmarks = face.box or (None,) * 4, face.landmarks and json.dumps(face.landmarks)
                        values = row, file, number, *box, landmarks, face.score, face.quality
                        self._db.execute("INSERT INTO faces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                        row += 1

    def forget(self, paths: Sequence[str]) -> None:
        """Remove photos and their faces."""
        with self._errors(), self._transaction():
            self._forget(paths)

    def take_over(self, other: Path, model: Embedder) -> None:
        """Add all photos of another index of the same photos, made with the same network, and delete that index."""
        IndexWriter(other, model, self.source).close()  # completes what a killed process was writing
        with self._errors():
            self._db.execute("ATTACH ? AS other", (str(other / DATABASE),))
            start, count = self._end(), self._db.execute("SELECT max(row) + 1 FROM other.faces").fetchone()[0] or 0
            with (other / VECTORS).open("rb") as file:
                file.seek(HEADER_BYTES)
                z = np.fromfile(file, np.float32, count * self.dimension).reshape(count, self.dimension)
            self._write(start, z)
            with self._transaction():
                self._forget([path for (path,) in self._db.execute("SELECT path FROM other.files")])
                columns = "path, size, stamp, sha256, problem"
                self._db.execute(f"INSERT INTO files ({columns}) SELECT {columns} FROM other.files")
                self._db.execute(
                    """INSERT INTO faces SELECT row + ?, mine.id, number, x1, y1, x2, y2, landmarks, score, quality
                    FROM other.faces JOIN other.files AS theirs ON file = theirs.id JOIN files AS mine USING (path)""",
                    (start,),
                )
            self._db.execute("DETACH other")
            for name in (DATABASE, VECTORS):
                (other / name).unlink()
            with contextlib.suppress(OSError):  # the user has put other files there
                other.rmdir()

    def compact(self) -> None:
        """Move the last rows to rows that are no longer used, and shorten vectors.npy."""
        with self._errors():
            count = len(self)
            used = self._db.execute("SELECT row FROM faces WHERE row < ?", (count,))
            free = np.setdiff1d(np.arange(count), [row for (row,) in used]).tolist()
            last = [row for (row,) in self._db.execute("SELECT row FROM faces WHERE row >= ? ORDER BY row", (count,))]
            moves = list(zip(free, last, strict=True))
            for target, row in moves:
                self._write(target, self._vectors(row, 1))
            with self._transaction():
                self._db.executemany("UPDATE faces SET row = ? WHERE row = ?", moves)
            with (self.folder / VECTORS).open("r+b") as file:
                file.write(_header(count, self.dimension))
                file.truncate(HEADER_BYTES + 4 * self.dimension * count)

    def _forget(self, paths: Sequence[str]) -> None:
        ids = "SELECT id FROM files WHERE path = ?"
        self._db.executemany(f"DELETE FROM faces WHERE file = ({ids})", [(path,) for path in paths])
        self._db.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in paths])

    def _write(self, row: int, z: np.ndarray) -> None:
        """Write embeddings to vectors.npy, from a row on that no face uses."""
        with (self.folder / VECTORS).open("r+b") as file:
            file.seek(HEADER_BYTES + 4 * self.dimension * row)
            file.write(z.tobytes())
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # after some errors SQLite has rolled back already
                self._db.execute("ROLLBACK")
            raise


def _header(rows: int, dimension: int) -> bytes:
    """Return the header of a .npy file, with spaces up to `HEADER_BYTES`, see `numpy.lib.format`."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}"
    length = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"
