"""Folders of people → pixels, and people split so that nobody is on both sides."""

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from siamese import images
from siamese.data.folders import list_people, natural
from siamese.data.sources import cache_folder, find_att
from siamese.faces.face import see
from siamese.training import distributed as devices

BATCH = 256
MOST = 20_000  # images that are measured …
OF_ONE = 20  # … at most this share of them, one in so many, of one person
PROCESSES = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # on this machine; each holds all images
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class IdentityDataset:
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
        """Return a sha256 over names and pixels: equal for equal data, wherever it lies, whoever is to test on."""
        digest = hashlib.sha256("\n".join(self.names[i] for i in self.identity).encode())
        for x in self.batches():
            digest.update(x.numpy())
        return digest.hexdigest()

    def select(self, names: Iterable[str]) -> "IdentityDataset":
        """Return the images of these people alone; no pixel is copied."""
        names = set(names)
        kept = tuple(name for name in self.names if name in names)
        rows = np.flatnonzero(np.isin(self.identity, [i for i, name in enumerate(self.names) if name in names]))
        identity = np.unique(self.identity[rows], return_inverse=True)[1]
        return IdentityDataset(self.pixels, identity, kept, self.test_names & names, self.rows[rows])

    def split(self, seed: int = 0) -> tuple["IdentityDataset", "IdentityDataset"]:
        """Split by person into training and test.

        Args:
            seed: draws the test people, where the data set does not name them itself: a fifth of all, at least two.

        Returns:
            The two datasets, with no person in both.

        Raises:
            ValueError: where fewer than 2 people would be left on a side.
        """
        test = self.test_names or self.draw_people(5, seed)
        if len(test) < 2 or len(self.names) - len(test) < 2:
            raise ValueError(
                f"{len(self.names)} people are too few to hold some out for testing: at least 2 are needed to train "
                "on and 2 others to test on"
            )
        return self.select(set(self.names) - test), self.select(test)

    def draw_people(self, share: int, seed: int) -> frozenset[str]:
        """Draw one in `share` of the people, at least two, by the seed."""
        count = max(2, round(len(self.names) / share))
        return frozenset(np.random.default_rng(seed).permutation(self.names)[:count].tolist())

    def subsample(self, most: int = MOST) -> "IdentityDataset":
        """Return images of people drawn at random, always the same ones, at most so many images or else two people; all
        where there are no more. Of a person with very many it takes some, so that others are measured too."""
        if len(self) <= most:
            return self
        rng, of_one = np.random.default_rng(0), max(2, most // OF_ONE)
        drawn = rng.permutation(len(self.names))
        images = np.bincount(self.identity).clip(max=of_one)[drawn].cumsum()
        kept = self.select(self.names[number] for number in drawn[: max(2, np.searchsorted(images, most, "right"))])
        shuffled = rng.permutation(len(kept))
        by_person = shuffled[kept.identity[shuffled].argsort(kind="stable")]
        counts = np.bincount(kept.identity)
        place = np.arange(len(kept)) - np.repeat(counts.cumsum() - counts, counts)  # of an image among its person's
        some = np.sort(by_person[place < of_one])
        return replace(kept, identity=kept.identity[some], rows=kept.rows[some])

    def folds(self, count: int) -> list[tuple["IdentityDataset", "IdentityDataset"]]:
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
        return [(self.select(set(self.names) - test), self.select(test)) for test in tests]


def load(source: str | Path, input_shape: tuple[int, int, int], align: str = "none") -> IdentityDataset:
    """Read a data set, see `folders.list_people`, and decode each image once.

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
    people = list_people(path)
    problems, count = people.problems, len(people.files)
    identity = np.repeat(np.arange(len(people.names)), people.counts)
    pixels = allocate((count, *input_shape))

    def read(row: int) -> None:
        person, file = identity[row], people.files[row]
        try:
            (seen,) = see([people.folders[person] / file], input_shape, align)
            if not seen:
                raise ValueError(f"no face was found in {file}; remove it")
            pixels[row] = images.to_tensor(seen[0].crop)
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"{people.names[person]}: {error}")

    bar = tqdm(desc="reading", total=count, unit=" images", delay=2, disable=not devices.is_main_process())
    with ThreadPoolExecutor() as readers, bar:
        for start in range(0, count, BATCH):
            for _ in readers.map(read, range(start, min(start + BATCH, count))):
                bar.update()
    if problems:
        more = f"\n  … and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ValueError(f"{path} cannot be used as it is:\n  " + "\n  ".join(natural(problems)[:20]) + more)
    return IdentityDataset(pixels, identity, people.names, people.testing)


def room(device: torch.device) -> int:
    """Return how many bytes of images may lie on a device: half of what is free there, or this process' share of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # a container may have less than its machine
        free = min(free, int(MEMORY_LIMIT.read_text()) - PROCESSES * psutil.Process().memory_info().rss)
    return free // 2 // PROCESSES


def allocate(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    """Return a tensor of that shape, in memory where it fits, else in a file that is gone when the tensor is.

    Raises:
        OSError: where neither the memory nor the disk has room.
    """
    size, folder = math.prod(shape) * dtype.itemsize, cache_folder()
    if size <= room(torch.device("cpu")):
        return torch.empty(shape, dtype=dtype)
    folder.mkdir(parents=True, exist_ok=True)
    if size * PROCESSES > 0.9 * (free := shutil.disk_usage(folder).free):
        raise OSError(
            f"the data take {size * PROCESSES / 1e9:.1f} GB, which fit neither into memory nor into {folder}, where "
            f"{free / 1e9:.1f} GB are free: make room there, or name another folder in XDG_CACHE_HOME"
        )
    with tempfile.TemporaryFile(dir=folder) as file:  # its pages stay until the tensor is gone
        if hasattr(os, "posix_fallocate"):  # a disk that fills up meanwhile is told now
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=size)).view(dtype).view(shape)
