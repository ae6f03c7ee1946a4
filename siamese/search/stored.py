"""List and delete the indexes that have no other place."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from siamese.search.checks import FILES, check_tables, connect
from siamese.search.index import indexes_folder, is_index


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
    folder = folder.resolve()
    found = [_describe(folder)] if is_index(folder) else [x for x in stored_indexes() if x.source == folder]
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
        with closing(connect(folder)) as db:
            check_tables(db, folder)
            source = Path(db.execute("SELECT value FROM settings WHERE name = 'source'").fetchone()[0])
    except (sqlite3.Error, ValueError, TypeError) as error:
        problem = "in use" if isinstance(error, sqlite3.Error) and "locked" in str(error) else "damaged"
    return StoredIndex(
        folder, source, problem, sum(file.st_size for file in status), max(file.st_mtime for file in status)
    )
