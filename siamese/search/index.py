"""The index of a folder of photos: an array of embeddings in a file, and the faces that they belong to in SQLite.

    faces.sqlite   which photos were read, and the faces in them
    vectors.npy    (rows, D) float32, the embedding of each face

A row of vectors.npy counts only if the table `faces` names it. Embeddings are written to new rows first; then one
transaction of SQLite makes them count. So if the process is killed, or the disk is full, only the photos in work are
lost. A million embeddings are read from the array in a third of the time that SQLite needs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from siamese.faces import Face
from siamese.faces.detection import Detection
from siamese.files import check_new_folder, write_error
from siamese.model import Model
from siamese.names import unique_name
from siamese.search import storage
from siamese.search.embedding import Block, FoundFace, PhotoFaces
from siamese.search.scan import Photo
from siamese.search.storage import DATABASE, VECTORS, is_index

T = TypeVar("T")

HEADER_BYTES = 128  # of vectors.npy
BLOCK_ROWS = 1 << 14  # embeddings that are read at once: 12 MB for the face network
OTHER_PLACE = "choose a folder on a local disk with --out, or set XDG_CACHE_HOME to one"
KEPT = "What was written before is kept. Run again to continue"


class Index:
    """An index that is open for reading. Use it in a `with` statement. While it is open, nobody can change it.

    It is checked when it is opened, and vectors when they are read, because it may come from another machine.

    Attributes:
        source: the folder or zip archive of the photos.
        dimension: D, the length of an embedding.

    Raises:
        FileNotFoundError: if there is no index.
        ValueError: if it was made with another network or version or by another user, or is damaged.
        OSError: if another process is changing it, or the drive has no file locks.
    """

    def __init__(self, folder: Path, model: Model):
        if not is_index(folder):
            raise FileNotFoundError(f"{folder} holds no index; `siamese embed FOLDER` makes one")
        self.folder, self.dimension = folder, model.network.embedding_dim
        with self._errors(), contextlib.ExitStack() as opened:
            self._db = storage.connect(folder)
            opened.callback(self.close)
            self._db.execute("BEGIN")
            self._check(model)
            opened.pop_all()

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __len__(self) -> int:
        """Return the number of faces."""
        return self._query("SELECT count(*) FROM faces")[0][0]

    def blocks(self) -> Iterator[Block]:
        """Yield (B,) rows and their (B, D) embeddings, block by block, so that memory does not grow."""
        end = self._end()
        has_gaps = len(self) < end
        for start in range(0, end, BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, end))
            z = self._vectors(start, len(rows))
            if has_gaps:
                used = self._query("SELECT row FROM faces WHERE row BETWEEN ? AND ?", (start, int(rows[-1])))
                rows = np.array(sorted(row for (row,) in used), dtype=int)
                z = z[rows - start]
            if not np.isfinite(np.vdot(z, z)):
                raise ValueError(self._damaged(f"{VECTORS} has values that are not finite"))
            yield rows, z

    def faces(self, rows: Sequence[int] | None = None) -> list[FoundFace]:
        """Return the faces of some rows, or all faces in the order of their rows."""
        query = (
            "SELECT row, path, number, x1, y1, x2, y2, landmarks, score, quality FROM faces JOIN files ON file = id "
            f"{'ORDER BY row' if rows is None else 'WHERE row = ?'}"
        )
        with self._errors():
            if rows is None:
                return list(map(_to_face, self._query(query)))
            return [_to_face(self._query(query, (int(row),))[0]) for row in rows]

    def files(self) -> dict[str, tuple[int, int, str]]:
        """Return size, stamp and SHA-256 of each photo by its path, see `Photo`. If it was not read, the size is -1."""
        rows = self._query("SELECT path, size, stamp, sha256 FROM files")
        return {path: (size, stamp, sha256) for path, size, stamp, sha256 in rows}

    def photo_faces(self, path: str) -> PhotoFaces:
        """Return what is known of a photo that was read."""
        query = "SELECT row FROM faces WHERE file = (SELECT id FROM files WHERE path = ?) ORDER BY number"
        rows = [row for (row,) in self._query(query, (path,))]
        z = [self._vectors(row, 1) for row in rows]
        faces = tuple(found.face for found in self.faces(rows))
        return PhotoFaces(faces, np.concatenate([np.empty((0, self.dimension), np.float32), *z]))

    @property
    def unread(self) -> list[tuple[str, str]]:
        """(path, sentence) of each photo that could not be read."""
        return self._query("SELECT path, problem FROM files WHERE problem != '' ORDER BY path")

    @property
    def problems(self) -> list[str]:
        """Sentences about the folder in the last run, and about photos that could not be read."""
        return [*self._notes, *(f"{path}: {problem}." for path, problem in self.unread)]

    def without_faces(self) -> list[str]:
        """Return the paths of the photos in which no face was found."""
        query = "SELECT path FROM files WHERE problem = '' AND id NOT IN (SELECT file FROM faces) ORDER BY path"
        return [path for (path,) in self._query(query)]

    def _query(self, query: str, values: tuple = ()) -> list[tuple]:
        with self._errors():
            return self._db.execute(query, values).fetchall()

    def _check(self, model: Model) -> None:
        """Check all but the embeddings, and read the settings."""
        storage.check_tables(self._db, self.folder)
        settings = dict(self._db.execute("SELECT name, value FROM settings"))
        if settings["network"] != model.fingerprint():
            raise ValueError(
                f"{self.folder} was made with another network, {settings['model']}; use that one, or another index"
            )
        self.source, self._notes = Path(settings["source"]), json.loads(settings.get("notes", "[]"))
        if "\0" in settings["source"] or not isinstance(self._notes, list) or any(self._numbers(*storage.INVALID)):
            raise sqlite3.DatabaseError("a value is not valid")
        # The missing end of a file would read as zeros.
        pages, page_bytes = self._numbers("PRAGMA page_count", "PRAGMA page_size")
        needed = {DATABASE: pages * page_bytes, VECTORS: HEADER_BYTES + 4 * self.dimension * self._end()}
        for name, size in needed.items():
            if not (self.folder / name).is_file() or (self.folder / name).stat().st_size < size:
                raise sqlite3.DatabaseError(f"the end of {name} is missing")

    def _numbers(self, *queries: str) -> list[int]:
        return [self._query(query)[0][0] for query in queries]

    def _end(self) -> int:
        """Return the first row after the last face."""
        return self._query("SELECT coalesce(max(row) + 1, 0) FROM faces")[0][0]

    def _vectors(self, start: int, count: int) -> np.ndarray:
        """Map `count` rows of vectors.npy: (count, D)."""
        offset = HEADER_BYTES + 4 * self.dimension * start
        return np.memmap(self.folder / VECTORS, np.float32, "r", offset, (count, self.dimension))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the database and the file system into sentences."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if ("locked" in text or "disk I/O" in text) and not storage.has_locks(self.folder):
                raise OSError(f"the drive of {self.folder} has no file locks; {OTHER_PLACE}") from error
            if "locked" in text:
                raise OSError(f"{self.folder} is in use by another run; wait until that has finished") from error
            if any(words in text for words in ("full", "disk I/O", "unable to open", "readonly")):
                code = errno.ENOSPC if "full" in text or "disk I/O" in text else errno.EACCES
                raise write_error(self.folder, OSError(code, text), OTHER_PLACE, KEPT) from error
            raise ValueError(self._damaged(text)) from error
        except OSError as error:
            if error.errno is None:  # a sentence already
                raise
            raise write_error(self.folder, error, OTHER_PLACE, KEPT) from error
        except (AttributeError, IndexError, KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
            raise ValueError(self._damaged("a value is missing or not valid")) from error

    def _damaged(self, reason: str) -> str:
        return f"{self.folder} is damaged ({reason}); delete it and run `siamese embed` again"


class IndexWriter(Index):
    """An index of photos that is open for writing. It is created if needed. While it is open, nobody else can open it.

    Raises:
        ValueError: if the folder has other files, or the index is damaged, or was made with another network or version
            or from other photos.
        OSError: if another process has opened it, or it cannot be written.
    """

    def __init__(self, folder: Path, model: Model, source: Path):
        self.folder, self.dimension = folder, model.network.embedding_dim
        if not is_index(folder):
            check_new_folder(folder)
        with self._errors(), contextlib.ExitStack() as opened:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = storage.connect(folder, create=True)
            opened.callback(self.close)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("BEGIN EXCLUSIVE")
            if self._numbers("SELECT count(*) FROM sqlite_master") == [0]:
                self._create(model, source)
            self._db.execute("COMMIT")
            self._check(model)
            if self.source != source:
                raise ValueError(f"{folder} is the index of {self.source}; use another one for {source}")
            opened.pop_all()

    def _create(self, model: Model, source: Path) -> None:
        if (self.folder / VECTORS).stat().st_size > HEADER_BYTES:
            raise sqlite3.DatabaseError(f"{DATABASE} is empty")
        self._end_vectors(0)
        for statement in storage.SCHEMA:
            self._db.execute(statement)
        settings = {"model": model.id, "network": model.fingerprint(), "source": str(source)}
        self._db.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())

    def add(self, batch: Sequence[tuple[Photo, PhotoFaces]]) -> None:
        """Add photos, or replace what is known of them."""
        if not batch:
            return
        with self._errors():
            row = self._end()
            self._write(row, np.concatenate([found.z for _, found in batch]))
            with self._transaction():
                for photo, found in batch:
                    self._forget([photo.path])
                    size = -1 if found.problem else photo.size  # -1: the next run tries to read it again
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

    def note(self, notes: Sequence[str]) -> None:
        """Replace the sentences about the folder, see `problems`."""
        with self._errors():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES ('notes', ?)", (json.dumps(notes),))

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
            self._end_vectors(count)

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

    def _end_vectors(self, rows: int) -> None:
        """Write the header of vectors.npy, and remove what follows these rows."""
        with (self.folder / VECTORS).open("r+b") as file:
            description = {"descr": "<f4", "fortran_order": False, "shape": (rows, self.dimension)}
            np.lib.format.write_array_header_1_0(file, description)
            file.truncate(HEADER_BYTES + 4 * self.dimension * rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._db:  # commits, or rolls back after an error
            self._db.execute("BEGIN")
            yield


def default_place(source: Path, model: Model) -> Path:
    """Return where the index of a folder of photos is by default, with one for each network."""
    key = hashlib.sha256(f"{source.resolve()} {model.fingerprint()}".encode("utf-8", "surrogateescape"))
    end = f"-{key.hexdigest()[:12]}"
    return storage.indexes_folder() / (unique_name(source.resolve().name, {}, len(end)) + end)


def _to_face(values: tuple) -> FoundFace:
    row, photo, number, *box, landmarks, score, quality = values
    detection = None
    if landmarks is not None:
        left, top, right, bottom = box
        points = tuple((x, y) for x, y in json.loads(landmarks))
        if len(points) != 5 or not all(map(math.isfinite, (*box, score, *sum(points, ())))):
            raise TypeError("five points, a box and a score are needed")
        detection = Detection((left, top, right, bottom), points, score)
    return FoundFace(row, photo, number, Face(None, detection, quality))
