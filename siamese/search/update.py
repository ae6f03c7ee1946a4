"""Make the index of a folder of photos, bring it up to date, and open what a search can search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath

import numpy as np

from siamese import images
from siamese.model import Model
from siamese.search.embedding import PhotoCollection, PhotoFaces, Progress, embed_files
from siamese.search.index import Index, IndexWriter, default_place, is_index
from siamese.search.scan import Listing, Photo, scan

Collection = Index | PhotoCollection
Photos = str | PathLike | Iterable[images.ImageSource] | Collection


@dataclass(frozen=True)
class Update:
    """What `update_index` did.

    Attributes:
        index: where the index is.
        created: whether it is new.
        photos: number of photos in it, with those that could not be read.
        embedded: how many of them are new or changed, and so were read.
        forgotten: number of photos that were removed, because they no longer exist.
        faces: number of faces in it.
        problems: (path, sentence) of what could not be read.
        without_faces: paths of the photos in which no face was found.
        others: number of files that are no photos.
    """

    index: Path
    created: bool
    photos: int
    embedded: int
    forgotten: int
    faces: int
    problems: list[tuple[str, str]]
    without_faces: list[str]
    others: int


def update_index(
    model: Model, source: Path, place: Path | None = None, progress: Progress = lambda done, total: None
) -> Update:
    """Embed the new and changed photos of a folder tree, and forget those that no longer exist.

    Photos in folders that cannot be opened at present are kept.

    Args:
        model: the network.
        source: a folder, or a zip archive.
        place: where the index is or will be; None for `default_place`.
        progress: called with the numbers of photos that are done and to do.

    Raises:
        FileNotFoundError, PermissionError: if the folder does not exist or may not be read.
        ValueError: if the index was made with another network or from another folder.
        OSError: if another process has opened the index, or it cannot be written. What was written is kept.
    """
    source = source.resolve()
    place = default_place(source, model) if place is None else place
    created, listing = not is_index(place), scan(source)
    with IndexWriter(place, model, source) as index:
        photos, forgotten = _compare(index, listing)
        done = 0
        for batch in embed_files(model, photos):
            index.add(batch)
            done += len(batch)
            progress(done, len(photos))
        index.compact()
        contents = len(index.files()), len(photos), forgotten, len(index), index.unread, index.without_faces()
        return Update(place, created, *contents, listing.others)


def _compare(index: IndexWriter, listing: Listing) -> tuple[list[Photo], int]:
    """Forget photos that no longer exist. Returns the photos to embed, and how many were forgotten."""
    known, unread = index.files(), set(listing.unread)
    kept = {photo.path for photo in listing.photos}
    gone = [path for path in known if path not in kept and unread.isdisjoint(map(str, PurePosixPath(path).parents))]
    index.forget(gone)
    nothing = np.empty((0, index.dimension), np.float32)
    lost = [(Photo(path, -1, 0, index.source), PhotoFaces((), nothing, text)) for path, text in listing.problems]
    if lost:
        index.add(lost)
    return [photo for photo in listing.photos if known.get(photo.path) != (photo.size, photo.stamp)], len(gone)


@contextmanager
def open_photos(model: Model, photos: Photos) -> Iterator[Collection]:
    """Open an index, or photos: of a folder or zip archive, whose index is brought up to date first, or in memory."""
    if isinstance(photos, str | PathLike):
        with open_index(model, Path(photos)) as index:
            yield index
    elif isinstance(photos, Index | PhotoCollection):
        yield photos
    elif images.is_single_image(photos):
        raise ValueError("expected a folder or a list of images, got one image; put it into a list")
    else:
        named = [
            (str(photo) if isinstance(photo, str | PathLike) else f"photo {number}", photo)
            for number, photo in enumerate(photos, 1)
        ]
        yield PhotoCollection(model, named)


def open_index(model: Model, photos: Path, progress: Progress = lambda done, total: None) -> Index:
    """Open an index, or bring the index of a folder or zip archive up to date and open that."""
    return Index(photos if is_index(photos) else update_index(model, photos, progress=progress).index, model)
