"""List a data set: a folder or a zip archive with one folder of images per class, such as a person."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from siamese.names import is_system, open_zip, printable

Folder = Path | zipfile.Path
NFC = partial(unicodedata.normalize, "NFC")  # the composed form of Unicode
Entries = Callable[[Any], list[tuple[str, bool]]]  # folder → (name, is it a folder?) of each entry

MAX_LISTED = 5
# Folders that split a data set by people.
TRAINING = {"training", "train"}
TESTING = {"testing", "test", "validation", "valid", "val"}


class LabelledFiles(NamedTuple):
    """The people and image files of a data set."""

    names: tuple[str, ...]  # the people, in natural order (s2 before s10)
    folders: tuple[Folder, ...]
    counts: tuple[int, ...]  # the number of images of each person
    files: list[str]  # the names of all images, person by person; full paths would take five times the memory
    test_names: frozenset[str]  # the people that the data set reserves for testing
    problems: list[str]  # messages about people that cannot be used

    def sample(self, names: Collection[str], max_images: int) -> LabelledFiles:
        """Return some of the people, with at most `max_images` of each."""
        starts = [0, *accumulate(self.counts)]
        kept = [row for row, name in enumerate(self.names) if name in names]
        return self._replace(
            names=tuple(self.names[row] for row in kept),
            folders=tuple(self.folders[row] for row in kept),
            counts=tuple(min(self.counts[row], max_images) for row in kept),
            files=[file for row in kept for file in self.files[starts[row] : starts[row + 1]][:max_images]],
            test_names=self.test_names & set(names),
        )


def title(source: str | Path) -> str:
    """Return the name of a data set: of its folder, or of its zip archive without the suffix."""
    path = Path(source).resolve()
    return path.name if path.is_dir() else path.stem


def list_people(source: Path) -> LabelledFiles:
    """List the people and images of a folder or zip archive without opening an image.

    A single folder around the people's folders is skipped. If the folders are named like the parts of a data set, such
    as `training` and `testing` in AT&T's archive, or `train`, `val` and `test`, the people in all but the first are
    reserved for testing. Files of the operating system are ignored.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give a folder with one folder of images per class")
    root: Folder = source
    if source.is_file():
        try:
            root = zipfile.Path(open_zip(source))
        except zipfile.BadZipFile as error:
            raise ValueError(f"{source} is neither a folder nor a complete zip archive") from error
    entries = _entries(root)
    folders, test_names = _people_folders(root, entries)
    if not folders:
        raise ValueError(
            f"{source} holds no classes: it needs one folder of images per person or thing (FOLDER/CLASS/IMAGES)"
        )
    names, counts, files, problems = natural_order(folders), [], [], []
    for name in names:
        try:
            content = [entry for entry in entries(folders[name]) if not is_system(entry[0], name)]
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}")
            counts.append(0)
            continue
        images, subfolders = ([entry for entry, is_folder in content if is_folder == kind] for kind in (False, True))
        if subfolders:
            problems.append(f"{name} holds a folder, {min(subfolders)}: put its images into the folder {name} itself")
        if len(images) < 2:
            problems.append(f"{name} has {len(images)} image{'s' * (len(images) != 1)}; a pair needs at least 2")
        counts.append(len(images))
        files += natural_order(images)
    return LabelledFiles(
        tuple(names), tuple(folders[name] for name in names), tuple(counts), files, test_names, problems
    )


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names with numbers by value: s2 before s10."""

    def key(name: str) -> tuple[list[int | str], str]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", NFC(name))], name

    return sorted(names, key=key)


def limit_list(items: Sequence[str], most: int) -> list[str]:
    """Return the first `most` items, and how many there are besides."""
    return [*items[:most], *([f"… and {len(items) - most:,} more"] if len(items) > most else [])]


def print_note(message: str, lines: Sequence[str]) -> None:
    """Print a note with lines on stderr, unless there are none."""
    if lines:
        print(f"note: {message}:", *map(printable, lines), sep="\n  ", file=sys.stderr)


def _entries(root: Folder) -> Entries:
    if isinstance(root, Path):
        return lambda folder: [(entry.name, _is_folder(entry)) for entry in os.scandir(folder)]
    # zipfile.Path.iterdir scans the whole archive for each folder, so index it once.
    index: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for path in root.root.namelist():
        parent, _, name = path.rstrip("/").rpartition("/")
        index[parent].append((name, path.endswith("/")))
    return lambda folder: index[folder.at.rstrip("/")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _people_folders(root: Folder, entries: Entries) -> tuple[dict[str, Folder], frozenset[str]]:
    """Return the folder of each person, and the names of the people to test on."""
    folders = _subfolders(root, entries)
    while len(folders) == 1 and (inner := _subfolders(next(iter(folders.values())), entries)):
        folders = inner
    training, testing = ({name for name in folders if name.lower() in part} for part in (TRAINING, TESTING))
    is_split = training and testing and training | testing == folders.keys()
    parts = {name: _subfolders(folder, entries) for name, folder in folders.items()} if is_split else {}
    if not any(parts.values()):
        return folders, frozenset()
    people: dict[str, Folder] = {}
    for part in parts.values():
        if both := people.keys() & part.keys():
            shown = ", ".join(limit_list(natural_order(both), MAX_LISTED))
            raise ValueError(
                f"in several of {', '.join(natural_order(parts))}: {shown}; put all images of a class into one of "
                "them, because the classes to test on are not trained on"
            )
        people |= part
    return people, frozenset(person for name in testing for person in parts[name])


def _subfolders(parent: Folder, entries: Entries) -> dict[str, Folder]:
    folders = {}
    for entry, is_folder in entries(parent):
        if is_folder and not is_system(entry, parent.name):
            name = NFC(entry)
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"the folder name {entry!r} is not in UTF-8; rename the folder") from error
            if name in folders:
                raise ValueError(f"two folders are named {name}, with accents encoded in two ways; merge them")
            folders[name] = parent / entry
    return folders
