"""Check the files and the database of an index, which may be damaged, hostile, or on an unusual drive."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tempfile
from pathlib import Path

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
# SQLite allows values of other types in all columns.
NUMBERS = "x1", "y1", "x2", "y2", "score", "quality"
INVALID = (
    """SELECT count(*) FROM files WHERE typeof(path) || typeof(size) || typeof(stamp) || typeof(sha256) ||
        typeof(problem) != 'textintegerintegertexttext'""",
    f"""SELECT count(*) FROM faces WHERE row < 0 OR typeof(number) != 'integer' OR file NOT IN (SELECT id FROM files)
        {"".join(f"OR typeof({name}) NOT IN ('real', 'null') OR abs({name}) > 1e9 " for name in NUMBERS)}""",
)


def check_files(folder: Path) -> None:
    """Raise a ValueError if a file is of another user, or reading it could wait for ever or go elsewhere."""
    for name in FILES:
        with contextlib.suppress(FileNotFoundError):
            status = (folder / name).lstat()
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{folder / name} is not a regular file; give another index")
            if (
                hasattr(os, "geteuid")
                and status.st_uid != os.geteuid()
                and status.st_uid != _owner_of_new_files(folder)
            ):
                raise ValueError(f"{folder / name} belongs to another user; make an index of your own")


def _owner_of_new_files(folder: Path) -> int | None:
    """Return who owns the files that this user makes in a folder. Some network drives give them to another user."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_uid
    except OSError:
        return None


def check_tables(db: sqlite3.Connection, folder: Path) -> None:
    """Raise a ValueError if a database has other tables than an index, or views, which could run for ever."""
    found = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    if not found:
        raise sqlite3.DatabaseError(f"{DATABASE} is empty")
    if sorted(found) != sorted(SCHEMA):
        raise ValueError(f"{folder} is not an index of this version; give another folder for the index")


def check_values(db: sqlite3.Connection) -> None:
    """Raise a DatabaseError if a value has the wrong type or range, or belongs to nothing."""
    if any(db.execute(query).fetchone()[0] for query in INVALID):
        raise sqlite3.DatabaseError("a value is not valid")


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
