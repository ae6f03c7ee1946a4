"""List the photos in a folder tree and in the zip archives in it."""

from __future__ import annotations

import functools
import os
import posixpath
import stat
import zipfile
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from siamese.images import FORMATS, RAW_SUFFIXES, read_file, read_member
from siamese.names import is_system, open_zip

OTHER_SUFFIXES = (".mpo", ".heic", ".heif", ".hif")  # MPO counts as JPEG; HEIC needs a package, see `images`
ARCHIVE_SUFFIX = ".zip"
ZIP_ERRORS = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Photo:
    """A photo of a folder tree. If size and stamp are as in the last run, it is the same."""

    path: str  # relative to the folder, with slashes, also inside a zip archive; no two photos have the same
    size: int  # in bytes
    stamp: int  # time of the last change in nanoseconds, or the CRC-32 in a zip archive
    file: str  # path of the file, or of the zip archive that it is in
    member: zipfile.ZipInfo | None = None  # in the zip archive

    def read(self) -> bytes:
        """Return the content. Raises a ValueError if that is not possible."""
        try:
            if self.member is None:
                return read_file(Path(self.file), "the file")
            return read_member(_open_archive(Path(self.file)), self.member, "the file")
        except FileNotFoundError as error:
            raise ValueError("it was deleted before it was read") from error
        except OSError as error:
            raise ValueError(f"it cannot be read ({error.strerror})") from error
        except zipfile.BadZipFile as error:
            raise ValueError("its zip archive is damaged") from error


@dataclass
class Listing:
    """What `scan` found."""

    photos: list[Photo] = field(default_factory=list)  # sorted by path
    problems: list[tuple[str, str]] = field(default_factory=list)  # (path, sentence) of what could not be read
    filled: set[str] = field(default_factory=set)  # folders that hold anything, also unread ones; "" is the outer one
    others: int = 0  # number of files that are no photos
    raw: Counter[str] = field(default_factory=Counter)  # suffixes of those that are RAW files, as .NEF

    def missing(self, path: str) -> str | None:
        """Return the outermost folder of a photo that is empty or missing now; None if its folder holds anything."""
        missing = None
        while path:
            path = posixpath.dirname(path)
            if path in self.filled:
                break
            missing = None if path.lower().endswith(ARCHIVE_SUFFIX) else path  # an archive is a file
        return missing


def scan(source: Path) -> Listing:
    """List the photos of a folder tree, or of one zip archive. No photo is opened.

    Links to folders are followed, but each folder is read only once, so loops end. Hidden files and folders of the
    system are skipped.
    """
    if not source.exists():
        raise FileNotFoundError(f"there is no folder {source}")
    found = Listing()
    if source.is_dir():
        os.scandir(source).close()  # raises PermissionError
        _walk(source, found)
    else:
        _list_archive(source, "", found)
        if found.problems:
            raise ValueError(f"{source} is neither a folder nor a complete zip archive")
    found.photos.sort(key=lambda photo: photo.path)
    return found


def find_photo(source: Path, path: str) -> Photo:
    """Return a photo of an index by its path. Raises FileNotFoundError, or ValueError if `scan` finds no such path."""
    file, parts = source, path.split("/")
    if not _is_photo(path) or any(not part or is_system(part) or os.path.basename(part) != part for part in parts):
        raise ValueError(f"{path} is not the path of a photo")
    for number, part in enumerate(parts):
        if file.is_file():
            try:
                member = _open_archive(file).getinfo("/".join(parts[number:]))
            except (*ZIP_ERRORS, KeyError) as error:
                raise FileNotFoundError(f"there is no photo {path} in {source}") from error
            return Photo(path, member.file_size, member.CRC, str(file), member)
        file = file / part
    status = file.stat()
    return Photo(path, status.st_size, status.st_mtime_ns, str(file))


def _walk(root: Path, found: Listing) -> None:
    # Resolved paths tell folders apart. Inodes do not: they are 0 on Windows, and all the same on some network drives.
    seen: set[str] = set()
    folders, links = deque([("", os.path.realpath(root))]), deque[tuple[str, str]]()
    while folders or links:  # all real folders first, so that a photo has the same path in each run
        outer, folder = folders.popleft() if folders else links.popleft()
        if folder in seen:
            continue
        seen.add(folder)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            found.problems.append((outer, f"the folder cannot be opened ({error.strerror})"))
            continue
        for entry in entries:
            if is_system(entry.name, os.path.basename(folder)):
                continue
            path = posixpath.join(outer, entry.name)
            found.filled.add(outer)
            if (shown := os.fsencode(path).decode(errors="replace")) != path:
                found.problems.append((shown, "its name is not in UTF-8; rename it"))
                continue
            try:
                status = entry.stat()
            except OSError as error:
                found.problems.append((path, f"it cannot be opened ({error.strerror})"))
                continue
            if stat.S_ISDIR(status.st_mode):
                target = os.path.realpath(entry.path)  # of a link or junction
                (folders if target == entry.path else links).append((path, target))
            elif path.lower().endswith(ARCHIVE_SUFFIX):
                _list_archive(Path(entry.path), path, found)
            elif _is_photo(path) and not stat.S_ISREG(status.st_mode):
                found.problems.append((path, "it is not a regular file"))
            else:
                _add(Photo(path, status.st_size, status.st_mtime_ns, entry.path), found)


def _list_archive(file: Path, path: str, found: Listing) -> None:
    try:
        if not file.is_file():
            raise zipfile.BadZipFile
        members = [member for member in _open_archive(file).infolist() if not member.is_dir()]
    except ZIP_ERRORS:
        found.problems.append((path, "it is not a complete zip archive"))
        return
    for member in members:
        parts = PurePosixPath(member.filename).parts
        if not any(is_system(part, folder) for part, folder in zip(parts, ("", *parts), strict=False)):
            name = posixpath.join(path, member.filename)
            _add(Photo(name, member.file_size, member.CRC, str(file), member), found)


def _add(file: Photo, found: Listing) -> None:
    """Add a photo, or count another file."""
    suffix = os.path.splitext(file.path)[1]
    if _is_photo(file.path):
        found.photos.append(file)
    else:
        found.others += 1
        if suffix.lower() in RAW_SUFFIXES:
            found.raw[suffix.upper()] += 1


def _is_photo(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in _photo_suffixes()


@functools.cache
def _photo_suffixes() -> set[str]:
    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}.union(OTHER_SUFFIXES)


def _open_archive(file: Path) -> zipfile.ZipFile:
    """Open an archive once for all its photos; threads can share it."""
    status = file.stat()
    return _archive(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _archive(file: Path, stamp: int, size: int) -> zipfile.ZipFile:
    return open_zip(file)
