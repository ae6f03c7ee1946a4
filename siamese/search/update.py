"""Make the index of a folder of photos, or bring it up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch.distributed as dist

from siamese.processes import run_on_main
from siamese.search.embedder import Embedder
from siamese.search.embedding import PhotoFaces, embed_files
from siamese.search.index import default_place, is_index
from siamese.search.index_writer import IndexWriter
from siamese.search.scan import Listing, Photo, scan

PART = "part-"  # folders in an index: what the other processes have embedded

Progress = Callable[[int, int], None]  # gets how many photos are done, and how many there are to do


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
    model: Embedder, source: Path, place: Path | None = None, progress: Progress = lambda done, total: None
) -> Update | None:
    """Embed the new and changed photos of a folder tree, and forget those that no longer exist.

    Photos in folders that cannot be opened at present are kept. If several processes were launched, each embeds a share
    of the photos.

    Args:
        model: the network.
        source: a folder, or a zip archive.
        place: where the index is or will be; None for `default_place`.
        progress: called with the numbers of photos that are done and to do, of this process.

    Returns:
        What was done; None on all but the main process.

    Raises:
        FileNotFoundError, PermissionError: if the folder does not exist or may not be read.
        ValueError: if the index was made with another network or from another folder.
        OSError: if another process has opened the index, or it cannot be written. What was written is kept.
    """
    source = source.resolve()
    place = default_place(source, model) if place is None else place
    created, rank, world_size = not is_index(place), *_rank_and_size()

    def plan() -> tuple[Listing, list[Photo], int]:
        listing = scan(source)
        with IndexWriter(place, model, source) as index:
            _merge_parts(index, model)
            return listing, *_compare(index, listing)

    listing, photos, forgotten = run_on_main(plan)
    with IndexWriter(place / f"{PART}{rank}" if rank else place, model, source) as index:
        _embed(model, index, photos[rank::world_size], progress)
    if dist.is_initialized():
        dist.barrier()
    if rank:
        return None
    with IndexWriter(place, model, source) as index:
        _merge_parts(index, model)
        index.compact()
        contents = len(index.files()), len(photos), forgotten, len(index), index.problems(), index.without_faces()
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


def _embed(model: Embedder, index: IndexWriter, photos: Sequence[Photo], progress: Progress) -> None:
    done = 0
    for batch in embed_files(model, photos):
        index.add(batch)
        done += len(batch)
        progress(done, len(photos))


def _merge_parts(index: IndexWriter, model: Embedder) -> None:
    """Take over what other processes have embedded, in this run or in one that was killed."""
    for part in sorted(index.folder.glob(f"{PART}*")):
        if is_index(part) and not part.is_symlink():
            index.take_over(part, model)


def _rank_and_size() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
