"""The files of an index, which may be damaged, hostile, or on an unusual drive: open, check, list and delete them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from siamese.files import as_stored, cache_folder

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

DATABASE, VECTORS = "faces.sqlite", "vectors.npy"
FILES = (VECTORS, DATABASE, *(f"{DATABASE}-{end}" for end in ("journal", "wal", "shm")))  # the last three of SQLite
SCHEMA = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
        stamp INTEGER NOT NULL, sha256 TEXT NOT NULL, problem TEXT NOT NULL)""",
    """CREATE TABLE faces (row INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES files (id),
        number INTEGER NOT NULL, x1 REAL, y1 REAL, x2 REAL, y2 REAL, landmarks TEXT, score REAL, quality REAL)""",
    "CREATE INDEX faces_of_file ON faces (file)",
)
NUMBERS = "x1", "y1", "x2", "y2", "score", "quality"
# Queries that count values of another type, which SQLite allows in all columns, or that belong to nothing.
INVALID = (
    """SELECT count(*) FROM files WHERE typeof(path) || typeof(size) || typeof(stamp) || typeof(sha256) ||
        typeof(problem) != 'textintegerintegertexttext'""",
    f"""SELECT count(*) FROM faces WHERE row < 0 OR typeof(number) != 'integer' OR file NOT IN (SELECT id FROM files)
        {"".join(f"OR typeof({name}) NOT IN ('real', 'null') OR abs({name}) > 1e9 " for name in NUMBERS)}""",
)


def is_index(folder: Path) -> bool:
    """Return whether a folder is an index."""
    return (folder / DATABASE).is_file()


def indexes_folder() -> Path:
    """Return the folder of the indexes that have no other place."""
    return cache_folder() / "indexes"


def connect(folder: Path, create: bool = False) -> sqlite3.Connection:
    """Open the database of an index, and create its files if needed. What a killed process was writing is undone.

    Raises:
        ValueError: if a file is of another user, or reading it could wait for ever or go elsewhere.
    """
    for name in FILES:
        with contextlib.suppress(FileNotFoundError):
            _check_file(folder / name)
    if create:
        for path in (folder / DATABASE, folder / VECTORS):
            if not path.exists():
                path.touch(0o600)
        # Only this user may read embeddings of faces, which are personal data. Not all drives have permissions.
        for path, mode in ((folder, 0o700), (folder / DATABASE, 0o600), (folder / VECTORS, 0o600)):
            with contextlib.suppress(OSError):
                path.chmod(mode)
    address = f"{(folder / DATABASE).absolute().as_uri()}?mode=rw"
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=1, check_same_thread=False)


def _check_file(file: Path) -> None:
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{file} is not a regular file; give another index")
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        # Some network drives give all files to another user, also new ones.
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=file.parent) as new:
            if status.st_uid == os.fstat(new.fileno()).st_uid:
                return
        raise ValueError(f"{file} belongs to another user; make an index of your own")


def check_tables(db: sqlite3.Connection, folder: Path) -> None:
    """Raise a ValueError if a database has other tables than an index, or views, which could run for ever."""
    found = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    if not found:
        raise sqlite3.DatabaseError(f"{DATABASE} is empty")
    if sorted(found) != sorted(SCHEMA):
        raise ValueError(f"{folder} is not an index of this version; give another folder for the index")


def has_locks(folder: Path) -> bool:
    """Return whether files in a folder can be locked. Some network drives do not support it."""
    if fcntl is None:
        return True
    # Nobody else can have locked a new file.
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class StoredIndex:
    """An index."""

    folder: Path
    source: Path | None  # the folder or zip archive of the photos, which may not exist any more; None if not known
    problem: str  # "in use" or "damaged", or empty
    size: int  # in bytes
    modified: float  # time of the last change in seconds


def stored_indexes() -> list[StoredIndex]:
    """Return the indexes in `indexes_folder()`, the one that was changed last first."""
    places = indexes_folder().iterdir() if indexes_folder().is_dir() else ()
    return sorted(map(_describe, filter(is_index, places)), key=lambda index: -index.modified)


def forget_indexes(folder: Path) -> list[StoredIndex]:
    """Delete an index, or those in `indexes_folder()` of a folder of photos, which may not exist any more.

    Raises FileNotFoundError, ValueError or OSError if there is none, or one is not an index, in use or not deletable.
    """
    folder = as_stored(folder)
    if is_index(folder):
        found = [_describe(folder)]
    else:
        found = [index for index in stored_indexes() if index.source and as_stored(index.source) == folder]
    if not found:
        raise FileNotFoundError(f"there is no index of {folder}; `siamese index` lists all")
    for index in found:
        if index.problem == "in use":
            raise OSError(f"{index.folder} is in use by another run; wait until that has finished")
        if index.problem and index.folder.parent != indexes_folder().resolve():
            raise ValueError(f"{index.folder} is damaged or not an index; delete it yourself")
        for name in FILES:
            (index.folder / name).unlink(missing_ok=True)
        if not any(index.folder.iterdir()):
            index.folder.rmdir()
    return found


def _describe(folder: Path) -> StoredIndex:
    status = [file.stat() for file in folder.iterdir() if file.name in FILES]
    source, problem = None, ""
    try:
        with contextlib.closing(connect(folder)) as db:
            check_tables(db, folder)
            source = Path(db.execute("SELECT value FROM settings WHERE name = 'source'").fetchone()[0])
    except (sqlite3.Error, ValueError, TypeError) as error:
        locked = isinstance(error, sqlite3.Error) and "locked" in str(error) and has_locks(folder)
        problem = "in use" if locked else "damaged"
    return StoredIndex(
        folder, source, problem, sum(file.st_size for file in status), max(file.st_mtime for file in status)
    )
