"""Folders of people → pixels in memory, people split so that nobody is on both sides, and pairs of images."""

import hashlib
import math
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from siamese import devices, images
from siamese.datasets import cache_folder, find_att
from siamese.see import see

BATCH = 256
MOST = 20_000  # images that are measured


@dataclass(frozen=True)
class Gallery:
    """Images of a data set, decoded once, with the identity that each shows.

    Attributes:
        pixels: (M, C, H, W) uint8, of these images and perhaps of others; in memory, or in a file of which the system
            reads what is asked for.
        identity: (N,) int, an index into `names`.
        names: the people (or classes), in natural order: s2 before s10.
        test_names: the people that the data set itself sets apart for testing; empty where it does not.
        rows: (N,) int, which of `pixels` these images are; all of them by default.
    """

    pixels: Tensor
    identity: np.ndarray
    names: tuple[str, ...]
    test_names: frozenset[str] = frozenset()
    rows: np.ndarray = None

    def __post_init__(self):
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(len(self.pixels)))

    def __len__(self) -> int:
        return len(self.identity)

    def batches(self) -> Iterator[Tensor]:
        """Yield the images in order, (`BATCH`, C, H, W) uint8 at a time, on the CPU; fewer at the end."""
        for start in range(0, max(len(self), 1), BATCH):
            yield self.pixels[self.rows[start : start + BATCH]]

    def picture(self, number: int) -> np.ndarray:
        """Return one of the images, (H, W) or (H, W, 3) uint8."""
        return self.pixels[self.rows[number]].permute(1, 2, 0).squeeze(-1).numpy()

    def fingerprint(self) -> str:
        """Return a sha256 over names and pixels: equal for equal data, wherever it lies."""
        digest = hashlib.sha256("\n".join(self.names[i] for i in self.identity).encode())
        for x in self.batches():
            digest.update(x.numpy())
        return digest.hexdigest()

    def only(self, names: Iterable[str]) -> "Gallery":
        """Return the images of these people alone; no pixel is copied."""
        names = set(names)
        kept = tuple(name for name in self.names if name in names)
        rows = np.flatnonzero(np.isin(self.identity, [i for i, name in enumerate(self.names) if name in names]))
        identity = np.unique(self.identity[rows], return_inverse=True)[1]
        return Gallery(self.pixels, identity, kept, self.test_names & names, self.rows[rows])

    def split(self, seed: int = 0) -> tuple["Gallery", "Gallery"]:
        """Split by person into training and test.

        Args:
            seed: draws the test people, where the data set does not name them itself: a fifth of all, at least two.

        Returns:
            The two galleries, with no person in both.

        Raises:
            ValueError: where fewer than 2 people would be left on a side.
        """
        test = self.test_names or self.draw(5, seed)
        if len(test) < 2 or len(self.names) - len(test) < 2:
            raise ValueError(
                f"{len(self.names)} people are too few to hold some out for testing: at least 2 are needed to train "
                "on and 2 others to test on"
            )
        return self.only(set(self.names) - test), self.only(test)

    def draw(self, share: int, seed: int) -> frozenset[str]:
        """Draw one in `share` of the people, at least two, by the seed."""
        count = max(2, round(len(self.names) / share))
        return frozenset(np.random.default_rng(seed).permutation(self.names)[:count].tolist())

    def sample(self, most: int = MOST) -> "Gallery":
        """Return the images of people drawn at random, always the same ones, at most so many images or else two people;
        all where there are no more."""
        if len(self) <= most:
            return self
        drawn = np.random.default_rng(0).permutation(len(self.names))
        images = np.bincount(self.identity)[drawn].cumsum()
        return self.only(self.names[number] for number in drawn[: max(2, np.searchsorted(images, most, "right"))])

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
        OSError: where the images fit neither into memory nor onto the disk.
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

    names, files, counts = tuple(people), [], []
    for folder in people.values():
        files += (own := _files(folder))
        counts.append(len(own))
    problems = [
        f"{name} has {count} image{'s' * (count != 1)}: at least 2 are needed to make a pair"
        for name, count in zip(names, counts, strict=True)
        if count < 2
    ]
    identity = np.repeat(np.arange(len(names)), counts)
    pixels = _allocate((len(files), *input_shape))

    def read(row: int) -> None:
        name, file = names[identity[row]], files[row]
        try:
            (seen,) = see([people[name] / file], input_shape, align)
            if not seen:
                raise ValueError(f"no face was found in {file}; remove it")
            pixels[row] = images.to_tensor(seen[0].crop)
        except ValueError as error:
            problems.append(f"{name}: {error}")

    bar = tqdm(desc="reading", total=len(files), unit=" images", delay=2, disable=not devices.first())
    with ThreadPoolExecutor() as readers, bar:
        for start in range(0, len(files), BATCH):
            for _ in readers.map(read, range(start, min(start + BATCH, len(files)))):
                bar.update()
    if problems:
        more = f"\n  … and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ValueError(
            f"{path} cannot be used as it is:\n  " + "\n  ".join(sorted(problems, key=_natural)[:20]) + more
        )
    return Gallery(pixels, identity, names, test_names)


def room(device: torch.device) -> int:
    """Return how many bytes of images may lie on a device: half of what is free there, or this process' share of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return psutil.virtual_memory().available // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _allocate(shape: tuple[int, ...]) -> Tensor:
    """Return a uint8 tensor of that shape, in memory where it fits, else in a file that is gone when the tensor is."""
    size, folder = math.prod(shape), cache_folder()
    if size <= room(torch.device("cpu")):
        return torch.empty(shape, dtype=torch.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    if size > 0.9 * (free := shutil.disk_usage(folder).free):
        raise OSError(
            f"the images take {size / 1e9:.1f} GB, which fit neither into memory nor into {folder}, where "
            f"{free / 1e9:.1f} GB are free: make room there, or name another folder in XDG_CACHE_HOME"
        )
    with tempfile.TemporaryFile(dir=folder) as file:  # its pages stay until the tensor is gone
        if hasattr(os, "posix_fallocate"):  # a disk that fills up meanwhile is told now
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))


def _people(root: Path | zipfile.Path) -> tuple[dict[str, Path | zipfile.Path], frozenset[str]]:
    folders = _folders(root)
    while len(folders) == 1 and _folders(next(iter(folders.values()))):
        folders = _folders(next(iter(folders.values())))
    if set(folders) != {"training", "testing"}:
        return folders, frozenset()
    training, testing = _folders(folders["training"]), _folders(folders["testing"])
    if both := training.keys() & testing.keys():
        raise ValueError(
            f"in both training and testing: {', '.join(sorted(both, key=_natural))}; a person may be in one"
        )
    people = {**training, **testing}
    return {name: people[name] for name in sorted(people, key=_natural)}, frozenset(testing)


def _folders(root: Path | zipfile.Path) -> dict[str, Path | zipfile.Path]:
    folders = {
        entry.name: entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))
    }
    return {name: folders[name] for name in sorted(folders, key=_natural)}


def _files(folder: Path | zipfile.Path) -> list[str]:
    files = [entry.name for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    return sorted(files, key=_natural)


def _natural(name: str) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
