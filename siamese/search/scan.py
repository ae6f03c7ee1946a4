"""List the photos in a folder tree and in the zip archives in it."""

from __future__ import annotations

import functools
import os
import stat
import zipfile
import zlib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from siamese.images import FORMATS

OTHER_SUFFIXES = (".mpo", ".heic", ".heif", ".hif")  # MPO counts as JPEG; HEIC needs a package, see `images`


@dataclass(frozen=True)
class Photo:
    """A photo of a folder tree. If size and stamp are as in the last run, it is the same."""

    path: str  # relative to the folder, with slashes, also inside a zip archive
    size: int  # in bytes
    stamp: int  # time of the last change in nanoseconds, or the CRC-32 in a zip archive
    file: Path  # the file, or the zip archive that it is in
    member: str | None = None  # the name in the zip archive

    def read(self) -> bytes:
        """Return the content. Raises OSError or ValueError."""
        if self.member is None:
            return self.file.read_bytes()
        status = self.file.stat()
        try:
            return _archive(self.file, status.st_mtime_ns, status.st_size).read(self.member)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, KeyError) as error:  # or encrypted
            raise ValueError(f"{PurePosixPath(self.path).name} cannot be unpacked from its zip archive") from error


@dataclass
class Listing:
    """What `scan` found."""

    photos: list[Photo] = field(default_factory=list)  # sorted by path
    problems: list[tuple[str, str]] = field(default_factory=list)  # (path, sentence) of what could not be read
    unread: list[str] = field(default_factory=list)  # folders and archives that could not be opened
    others: int = 0  # number of files that are no photos


def scan(source: Path) -> Listing:
    """List the photos of a folder tree, or of one zip archive. No photo is opened.

    Links to folders are followed, but each folder is read only once, so loops end. Hidden files are skipped.
    """
    if not source.exists():
        raise FileNotFoundError(f"there is no folder {source}")
    found = Listing()
    if source.is_dir():
        os.scandir(source).close()  # raises PermissionError
        _walk(source, found)
    elif zipfile.is_zipfile(source):
        _list_archive(source, "", found)
    else:
        raise ValueError(f"{source} is neither a folder nor a zip archive")
    found.photos.sort(key=lambda photo: photo.path)
    return found


def _walk(root: Path, found: Listing) -> None:
    seen = {_identity(root.stat())}
    folders, links = deque([root]), deque[Path]()
    while folders or links:  # all real folders first, so that a photo has the same path in each run
        folder = folders.popleft() if folders else links.popleft()
        try:
            if folder.is_symlink():
                if _identity(folder.stat()) in seen:
                    continue
                seen.add(_identity(folder.stat()))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            found.problems.append((_relative(folder, root), f"the folder cannot be opened ({error.strerror})"))
            found.unread.append(_relative(folder, root))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if not _is_unicode(entry.name):
                shown = os.fsencode(path.relative_to(root)).decode(errors="replace")
                found.problems.append((shown, "its name is not in UTF-8; rename it"))
                continue
            try:
                status = entry.stat()
            except OSError as error:
                found.problems.append((_relative(path, root), f"it cannot be opened ({error.strerror})"))
                continue
            if not stat.S_ISDIR(status.st_mode):
                _add_file(path, status, root, found)
            elif entry.is_symlink():
                links.append(path)
            elif _identity(status) not in seen:
                seen.add(_identity(status))
                folders.append(path)


def _add_file(path: Path, status: os.stat_result, root: Path, found: Listing) -> None:
    relative = _relative(path, root)
    if path.suffix.lower() == ".zip":
        _list_archive(path, f"{relative}/", found)
    elif path.suffix.lower() not in photo_suffixes():
        found.others += 1
    elif not stat.S_ISREG(status.st_mode):
        found.problems.append((relative, "it is not a regular file"))
    else:
        found.photos.append(Photo(relative, status.st_size, status.st_mtime_ns, path))


def _list_archive(file: Path, prefix: str, found: Listing) -> None:
    try:
        if not file.is_file():
            raise zipfile.BadZipFile
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        found.problems.append((prefix.rstrip("/"), "it is not a complete zip archive"))
        found.unread.append(prefix.rstrip("/"))
        return
    for name, member in members.items():
        path = PurePosixPath(name)
        if any(part.startswith((".", "__MACOSX")) for part in path.parts):
            continue
        if path.suffix.lower() in photo_suffixes():
            found.photos.append(Photo(prefix + name, member.file_size, member.CRC, file, name))
        else:
            found.others += 1


@functools.cache
def photo_suffixes() -> frozenset[str]:
    """Return the suffixes of photos, in lower case."""
    extensions = Image.registered_extensions()
    return frozenset(suffix for suffix, name in extensions.items() if name in FORMATS) | frozenset(OTHER_SUFFIXES)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 become surrogates
        return False
    return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


@functools.lru_cache(maxsize=4)
def _archive(file: Path, stamp: int, size: int) -> zipfile.ZipFile:
    """Open an archive once for all its photos; threads can share it. `stamp` and `size` change if the file does."""
    return zipfile.ZipFile(file)
