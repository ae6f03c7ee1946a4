"""Make the index of a folder of photos, bring it up to date, and open what a search can search."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path, PurePosixPath

import numpy as np

from siamese import images
from siamese.files import as_stored
from siamese.model import Model, Progress, in_threads
from siamese.search.embedding import PhotoCollection, PhotoFaces, embed_files
from siamese.search.index import Index, IndexWriter, default_place
from siamese.search.scan import Listing, Photo, scan
from siamese.search.storage import is_index
from siamese.wording import counted

Collection = Index | PhotoCollection
Photos = str | PathLike | Iterable[images.ImageSource] | Collection
MOVED_AT_ONCE = 256  # photos in one transaction


@dataclass(frozen=True)
class Update:
    """What `update_index` did."""

    index: Path  # where it is
    created: bool  # whether it is new
    photos: int  # number of photos in it, with those that could not be read
    embedded: int  # how many of them are new or changed, and so were embedded
    moved: int  # how many of them were in it under another path or with another time
    forgotten: int  # number of photos that were removed, because they no longer exist
    faces: int  # number of faces in it
    problems: list[tuple[str, str]]  # (path, sentence) of what could not be read
    without_faces: list[str]  # paths of the photos in which no face was found
    others: int  # number of files that are no photos
    notes: list[str]  # sentences about the folder: what is missing in it, and which files cannot be read


def update_index(
    model: Model,
    source: Path,
    place: Path | None = None,
    progress: Progress = lambda done, total: None,
    forget: bool = False,
) -> Update:
    """Embed the new and changed photos of a folder tree, and forget those that no longer exist.

    Photos that were moved are known by their content. Photos are kept if their folder cannot be opened, or is empty or
    missing, as if a drive is not mounted.

    Args:
        model: the network.
        source: a folder, or a zip archive.
        place: where the index is or will be; None for `default_place`.
        progress: called with the numbers of photos that are done and to do.
        forget: also forget the photos of folders that are empty or missing.

    Raises:
        FileNotFoundError, PermissionError: if the folder does not exist or may not be read. The index is kept.
        ValueError: if the index was made with another network or from another folder.
        OSError: if another process has opened the index, or it cannot be written. What was written is kept.
    """
    source = as_stored(source)
    place = default_place(source, model) if place is None else place
    if is_index(place) and not source.exists():
        raise FileNotFoundError(f"there is no folder {source}; to search in its index, give that instead: {place}")
    created, listing = not is_index(place), scan(source)
    with IndexWriter(place, model, source) as index:
        photos, moved, forgotten, notes = _compare(index, listing, forget)
        index.note(notes)
        done = 0
        for batch in in_threads(partial(embed_files, model), photos):
            index.add(batch)
            done += len(batch)
            progress(done, len(photos))
        index.compact()
        contents = len(index.files()), len(photos), moved, forgotten, len(index), index.unread, index.without_faces()
        return Update(place, created, *contents, listing.others, notes)


def _compare(index: IndexWriter, listing: Listing, forget: bool) -> tuple[list[Photo], int, int, list[str]]:
    """Find moved photos, and forget those that no longer exist.

    Returns the photos to embed, how many were moved and forgotten, and sentences about the folder.
    """
    known, unread = index.files(), {path for path, _ in listing.problems}
    changed = [photo for photo in listing.photos if known.get(photo.path, ())[:2] != (photo.size, photo.stamp)]
    moved = _find_moved(index, changed, known) if known else {}
    present, found = {photo.path for photo in listing.photos}, set(moved.values())
    kept: Counter[str] = Counter()
    gone = []
    for path in known:
        if path in present or not unread.isdisjoint(map(str, PurePosixPath(path).parents)):
            continue
        folder = None if forget or index.source.is_file() else listing.missing(path)
        if folder is None or known[path][2] in found:
            gone.append(path)
        else:
            kept[folder] += 1
    index.forget(gone)
    nothing = np.empty((0, index.dimension), np.float32)
    lost = [(Photo(path, -1, 0, str(index.source)), PhotoFaces((), nothing, text)) for path, text in listing.problems]
    index.add(lost)
    notes = [
        f"{folder or index.source} is empty or missing. Kept in the index: {counted(count, 'photo')}. "
        "If it was deleted on purpose, run `siamese embed FOLDER --forget`."
        for folder, count in kept.items()
    ]
    notes += [
        f"Not read: {counted(count, 'RAW file')} ({suffix}). Export them as JPEG."
        for suffix, count in listing.raw.items()
    ]
    return [photo for photo in changed if photo.path not in moved], len(moved), len(gone), notes


def _find_moved(index: IndexWriter, photos: Sequence[Photo], known: dict[str, tuple[int, int, str]]) -> dict[str, str]:
    """Copy the faces of photos whose content is known. Returns the SHA-256 of each of them, by its path."""
    places, moved = {digest: path for path, (size, _, digest) in known.items() if size >= 0}, {}
    sizes = {size for size, _, _ in known.values()}
    candidates = [photo for photo in photos if photo.size in sizes]
    for start in range(0, len(candidates), MOVED_AT_ONCE):
        batch = []
        for photo in candidates[start : start + MOVED_AT_ONCE]:
            with suppress(ValueError):  # of reading it, which is tried again
                digest = hashlib.sha256(photo.read()).hexdigest()
                if before := places.get(digest):
                    batch.append((photo, replace(index.photo_faces(before), sha256=digest)))
                    moved[photo.path] = digest
        index.add(batch)
        for photo, _ in batch:  # which may have replaced another one
            places.pop(known[photo.path][2] if photo.path in known else "", None)
        places |= {faces.sha256: photo.path for photo, faces in batch}
    return moved


@contextmanager
def open_photos(model: Model, photos: Photos) -> Iterator[Collection]:
    """Open an index, or photos: of a folder or zip archive, whose index is brought up to date first, or in memory."""
    if isinstance(photos, str | PathLike):
        with open_index(model, Path(photos)) as index:
            yield index
    elif isinstance(photos, Index | PhotoCollection):
        yield photos
    else:
        images.refuse_single_image(photos)
        named = [
            (str(photo) if isinstance(photo, str | PathLike) else f"photo {number}", photo)
            for number, photo in enumerate(photos, 1)
        ]
        yield PhotoCollection(model, named)


def open_index(model: Model, photos: Path, progress: Progress = lambda done, total: None) -> Index:
    """Open an index, or bring the index of a folder or zip archive up to date and open that."""
    return Index(photos if is_index(photos) else update_index(model, photos, progress=progress).index, model)
