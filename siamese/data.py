"""Folders of people → pixels in memory, people split so that nobody is on both sides, and pairs of images."""

import hashlib
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from siamese import images
from siamese.datasets import find_att
from siamese.see import see


@dataclass(frozen=True)
class Gallery:
    """Every image of a data set, decoded once, with the identity that each shows.

    Attributes:
        pixels: (N, C, H, W) uint8.
        identity: (N,) int, an index into `names`.
        names: the people (or classes), in natural order: s2 before s10.
        test_names: the people that the data set itself sets apart for testing; empty where it does not.
    """

    pixels: Tensor
    identity: np.ndarray
    names: tuple[str, ...]
    test_names: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.identity)

    def fingerprint(self) -> str:
        """Return a sha256 over names and pixels: equal for equal data, wherever it lies."""
        digest = hashlib.sha256("\n".join(self.names[i] for i in self.identity).encode())
        digest.update(self.pixels.numpy().tobytes())
        return digest.hexdigest()

    def only(self, names: Iterable[str]) -> "Gallery":
        """Return the images of these people alone."""
        names = set(names)
        kept = tuple(name for name in self.names if name in names)
        rows = np.flatnonzero(np.isin(self.identity, [i for i, name in enumerate(self.names) if name in names]))
        identity = np.unique(self.identity[rows], return_inverse=True)[1]
        return Gallery(self.pixels[rows], identity, kept, self.test_names & names)

    def split(self, seed: int = 0) -> tuple["Gallery", "Gallery"]:
        """Split by person into training and test.

        Args:
            seed: draws the test people, where the data set does not name them itself: a fifth of all, at least two.

        Returns:
            The two galleries, with no person in both.

        Raises:
            ValueError: where fewer than 2 people would be left on a side.
        """
        test = self.test_names
        if not test:
            count = max(2, round(len(self.names) / 5))
            test = frozenset(np.random.default_rng(seed).permutation(self.names)[:count].tolist())
        if len(test) < 2 or len(self.names) - len(test) < 2:
            raise ValueError(
                f"{len(self.names)} people are too few to hold some out for testing: at least 2 are needed to train "
                "on and 2 others to test on"
            )
        return self.only(set(self.names) - test), self.only(test)

    def folds(self, count: int) -> list[tuple["Gallery", "Gallery"]]:
        """Split all people into `count` folds (person number modulo `count`); each is the test side once.

        Args:
            count: 2 or more, with at least 2 people in each fold.

        Returns:
            `count` pairs of (training, test).

        Raises:
            ValueError: where `count` does not fit the number of people.
        """
        if not 2 <= count <= len(self.names) // 2:
            raise ValueError(
                f"{len(self.names)} people can be split into 2 to {len(self.names) // 2} folds of at least two, "
                f"got {count}"
            )
        tests = [set(self.names[k::count]) for k in range(count)]
        return [(self.only(set(self.names) - test), self.only(test)) for test in tests]


def load(source: str | Path, input_shape: tuple[int, int, int], align: str = "none") -> Gallery:
    """Read a data set and decode each image once.

    A data set is a folder (or zip) with one folder of images per person. Where it holds the two folders `training` and
    `testing`, as AT&T's archive does, the people in `testing` are those to test on.

    Args:
        source: "att" for the AT&T faces (see `find_att`), or the path of a folder or zip.
        input_shape: (C, H, W) of the network that will see the images.
        align: "none" to take each image whole, or "faces" to find the face in it and cut it out upright.

    Returns:
        All people, each with at least two images.

    Raises:
        FileNotFoundError: where there is no such path.
        ValueError: where the folder has no people, a person has one image, or files cannot be read or show no face; all
            are named.
        ConnectionError: where AT&T is to be downloaded and cannot be.
    """
    path = find_att() if source == "att" else Path(source)
    if not path.exists():
        raise FileNotFoundError(f"there is no data at {path}; give a folder with one folder of images per person")
    if path.is_file():
        try:
            root = zipfile.Path(zipfile.ZipFile(path))
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is neither a folder nor a whole zip archive") from error
    else:
        root = path
    people, test_names = _people(root)
    if not people:
        raise ValueError(f"{path} holds no people: it needs one folder of images per person (FOLDER/PERSON/IMAGES)")

    pixels, identity, problems = [], [], []
    for number, (name, files) in enumerate(people.items()):
        if len(files) < 2:
            problems.append(f"{name} has {len(files)} image: at least 2 are needed to make a pair")
        for file in files:
            try:
                (seen,) = see([file], input_shape, align)
                if not seen:
                    raise ValueError(f"no face was found in {file.name}; remove it")
                pixels.append(images.to_tensor(seen[0].crop))
                identity.append(number)
            except ValueError as error:
                problems.append(f"{name}: {error}")
    if problems:
        more = f"\n  … and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ValueError(f"{path} cannot be used as it is:\n  " + "\n  ".join(problems[:20]) + more)
    return Gallery(torch.stack(pixels), np.array(identity), tuple(people), test_names)


def _people(root: Path | zipfile.Path) -> tuple[dict[str, list], frozenset[str]]:
    folders = _folders(root)
    while len(folders) == 1 and _folders(next(iter(folders.values()))):
        folders = _folders(next(iter(folders.values())))
    if set(folders) != {"training", "testing"}:
        return {name: _files(folder) for name, folder in folders.items()}, frozenset()
    training, testing = _folders(folders["training"]), _folders(folders["testing"])
    if both := training.keys() & testing.keys():
        raise ValueError(
            f"in both training and testing: {', '.join(sorted(both, key=_natural))}; a person may be in one"
        )
    people = {**training, **testing}
    return {name: _files(people[name]) for name in sorted(people, key=_natural)}, frozenset(testing)


def _folders(root: Path | zipfile.Path) -> dict[str, Path | zipfile.Path]:
    folders = {
        entry.name: entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))
    }
    return {name: folders[name] for name in sorted(folders, key=_natural)}


def _files(folder: Path | zipfile.Path) -> list:
    files = [entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    return sorted(files, key=lambda file: _natural(file.name))


def _natural(name: str) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
