"""Open what a search can search: a folder of photos, an index, or photos in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from siamese import images
from siamese.search.collection import Collection, PhotoCollection
from siamese.search.embedder import Embedder
from siamese.search.index import Index, is_index
from siamese.search.update import Progress, update_index

Photos = str | PathLike | Iterable[images.ImageSource]


@contextmanager
def open_photos(model: Embedder, photos: Photos) -> Iterator[Collection]:
    """Open photos to search them.

    Args:
        model: the network.
        photos: an index; a folder or zip archive, whose index is brought up to date first; or images, see
            `images.read`.

    Raises:
        FileNotFoundError, ValueError, OSError: see `Index` and `update_index`.
    """
    if isinstance(photos, str | PathLike):
        with open_index(model, Path(photos)) as index:
            yield index
    elif images.is_single_image(photos):
        raise ValueError("expected a folder or a list of images, got one image; put it into a list")
    else:
        yield PhotoCollection(model, [(_name(photo, number), photo) for number, photo in enumerate(photos, 1)])


def open_index(model: Embedder, photos: Path, progress: Progress = lambda done, total: None) -> Index:
    """Open an index, or bring the index of a folder or zip archive up to date and open that.

    Args:
        model, photos: see `open_photos`.
        progress: see `update_index`.

    Raises:
        FileNotFoundError, ValueError, OSError: see `Index` and `update_index`.
    """
    if not is_index(photos):
        update = update_index(model, photos, progress=progress)
        assert update, "several processes only embed"
        photos = update.index
    return Index(photos, model)


def _name(photo: images.ImageSource, number: int) -> str:
    return str(photo) if isinstance(photo, str | PathLike) else f"photo {number}"
