"""A folder, or a zip, with one folder of images for each person → who they are, and where their images lie."""

import os
import re
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

Folder = Path | zipfile.Path
Lister = Callable[[Folder], list[tuple[str, bool]]]  # a folder → the names in it, and which are folders themselves

LEFT_BY_WINDOWS = {"thumbs.db", "desktop.ini"}


class People(NamedTuple):
    """Who is in a data set.

    Attributes:
        names: the people, in natural order: s2 before s10.
        folders: where the images of each lie.
        counts: how many images each has.
        files: the names of all images, person by person. Of a million, paths would take five times the memory.
        testing: the people that the data set itself sets apart for testing; empty where it does not.
        problems: sentences about what is not as it should be.
    """

    names: tuple[str, ...]
    folders: tuple[Folder, ...]
    counts: tuple[int, ...]
    files: list[str]
    testing: frozenset[str]
    problems: list[str]


def title(source: str | Path) -> str:
    """Return the name of a data set: that of its folder, or of its zip without the ending."""
    path = Path(source).resolve()
    return path.name if path.is_dir() else path.stem


def list_people(source: Path) -> People:
    """List a data set without opening an image.

    Where it holds the two folders `training` and `testing`, as AT&T's archive does, the people in `testing` are those
    to test on. A single folder that holds all is looked through. What systems leave beside images is left out.

    Args:
        source: a folder or a zip; it is there.

    Raises:
        ValueError: where it is neither, nobody is in it, or a name stands for two.
    """
    root = source
    if source.is_file():
        try:
            root = zipfile.Path(zipfile.ZipFile(source))
        except zipfile.BadZipFile as error:
            raise ValueError(f"{source} is neither a folder nor a whole zip archive") from error
    entries = _lister(root)
    folders, testing = _folders(root, entries), frozenset()
    while len(folders) == 1 and (inner := _folders(next(iter(folders.values())), entries)):
        folders = inner
    if set(folders) == {"training", "testing"}:
        training, testing = (_folders(folders[side], entries) for side in ("training", "testing"))
        if both := training.keys() & testing.keys():
            raise ValueError(f"in both training and testing: {', '.join(natural(both))}; a person may be in one")
        folders, testing = training | testing, frozenset(testing)
    if not folders:
        raise ValueError(f"{source} holds no people: it needs one folder of images per person (FOLDER/PERSON/IMAGES)")
    zipped = isinstance(root, zipfile.Path)
    names, counts, files, problems = natural(folders), [], [], []
    for name in names:
        inside = [entry for entry in entries(folders[name]) if not _left_by_systems(entry[0])]
        own, deeper = ([entry for entry, is_folder in inside if is_folder == kind] for kind in (False, True))
        if deeper:
            problems.append(f"{name} holds a folder, {min(deeper)}: images must lie in that of their person itself")
        if len(own) < 2:
            problems.append(f"{name} has {len(own)} image{'s' * (len(own) != 1)}: at least 2 are needed to make a pair")
        counts.append(len(own))
        files += natural(own, lambda entry: _name(entry, zipped))
    return People(tuple(names), tuple(folders[name] for name in names), tuple(counts), files, testing, problems)


def natural(names: Iterable[str], shown: Callable[[str], str] = str) -> list[str]:
    """Sort names as people do, by what is shown of them: s2 before s10."""

    def key(name: str) -> tuple[list[int | str], str]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", shown(name))], name

    return sorted(names, key=key)


def _lister(root: Folder) -> Lister:
    if isinstance(root, Path):
        return lambda folder: [(entry.name, entry.is_dir()) for entry in os.scandir(folder)]
    inside = defaultdict(list)  # looked up once: zipfile itself goes through the whole archive for each folder
    for path in dict.fromkeys(root.root.namelist()):  # an archive that was added to may name one twice
        parent, _, name = path.rstrip("/").rpartition("/")
        inside[parent].append((name, path.endswith("/")))
    return lambda folder: inside[folder.at.rstrip("/")]


def _folders(root: Folder, entries: Lister) -> dict[str, Folder]:
    folders = {}
    for entry, is_folder in entries(root):
        if is_folder and not _left_by_systems(entry):
            name = _name(entry, isinstance(root, zipfile.Path))
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"the name of the folder {entry!r} is not in UTF-8: rename it") from error
            if name in folders:
                raise ValueError(f"two folders are called {name}, with its accents written in two ways: join them")
            folders[name] = root / entry
    return folders


def _left_by_systems(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX" or name.lower() in LEFT_BY_WINDOWS


def _name(entry: str, zipped: bool) -> str:
    """Return a name as it is written everywhere: macOS takes accents apart, and does not say in a zip that its names
    are in UTF-8."""
    if zipped:
        with suppress(UnicodeError):
            entry = entry.encode("cp437").decode()
    return unicodedata.normalize("NFC", entry)
