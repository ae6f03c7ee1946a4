"""Labelled images in memory, and their split by person."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from siamese.data.att import find_att
from siamese.data.folders import LabelledFiles, limit_list, list_people, natural_order, print_note
from siamese.distributed import is_main_process, progress_bar
from siamese.faces.detection import Landmarks
from siamese.faces.face import detect
from siamese.files import cache_folder

IMAGES_PER_BATCH = 256  # that `batches` yields
MAX_MEASURED_IMAGES = 20_000  # of a data set, see `subsample`
TEST_SHARE = 5  # one of five people is held out
MAX_PERSON_SHARE = 0.05  # of these images that one person contributes
MAX_LISTED_PROBLEMS = 20
MAX_LISTED_COPIES = 5
LOCAL_PROCESSES = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # on this machine; each of them holds all images
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
MAX_DISK_SHARE = 0.9  # of the free disk space


class IdentityDataset:
    """Images with the identity that each shows. Nothing changes a data set; a part of it is a new one.

    Args:
        pixels: (M, C, H, W) uint8, in memory or memory-mapped; may also hold images of other data sets.
        identity: (N,) int, an index into `names`.
        names: the people (or classes), in natural order (s2 before s10).
        test_names: the people that the data set reserves for testing.
        rows: (N,) int, ascending, the images' rows in `pixels`; by default all of them.
        files: (M,) the file names of `pixels`, if they are known.
        features: (M, D), those of a network that does not change, see `siamese.evaluation.pairs.features_of`.
    """

    def __init__(
        self,
        pixels: Tensor,
        identity: np.ndarray,
        names: tuple[str, ...],
        test_names: frozenset[str] = frozenset(),
        rows: np.ndarray | None = None,
        files: Sequence[str] = (),
        features: Tensor | None = None,
    ):
        self.pixels, self.identity, self.names, self.test_names = pixels, identity, names, test_names
        self.rows = np.arange(len(pixels)) if rows is None else rows
        self.files, self.features = files, features

    def __len__(self) -> int:
        return len(self.identity)

    def batches(self) -> Iterator[Tensor]:
        """Yield the images in order: (B, C, H, W) uint8 on the CPU, B ≤ `IMAGES_PER_BATCH`; (0, C, H, W) if empty."""
        for start in range(0, max(len(self), 1), IMAGES_PER_BATCH):
            yield self.pixels[self.rows[start : start + IMAGES_PER_BATCH]]

    def image(self, number: int) -> np.ndarray:
        """Return one image, (H, W) or (H, W, 3) uint8."""
        return self.pixels[self.rows[number]].permute(1, 2, 0).squeeze(-1).numpy()

    def path(self, number: int) -> str:
        """Return PERSON/FILE of one image of a data set whose files are known."""
        return f"{self.names[self.identity[number]]}/{self.files[self.rows[number]]}"

    def fingerprint(self) -> str:
        """Return the SHA-256 of names and pixels. It does not depend on the data's path or on `test_names`."""
        digest = hashlib.sha256("\n".join(self.names[i] for i in self.identity).encode())
        for x in self.batches():
            digest.update(x.numpy().tobytes())
        return digest.hexdigest()

    def select(self, names: Iterable[str]) -> IdentityDataset:
        """Return the images of these people. The pixels are shared, not copied."""
        names = set(names)
        kept = tuple(name for name in self.names if name in names)
        rows = np.flatnonzero(np.isin(self.identity, [i for i, name in enumerate(self.names) if name in names]))
        identity = np.unique(self.identity[rows], return_inverse=True)[1]
        return self._part(rows, identity, kept)

    def _part(self, rows: np.ndarray, identity: np.ndarray, names: tuple[str, ...]) -> IdentityDataset:
        """Return some of the images, without copying pixels or features."""
        test_names = self.test_names & set(names)
        return IdentityDataset(self.pixels, identity, names, test_names, self.rows[rows], self.files, self.features)

    def subsample(self, max_images: int = MAX_MEASURED_IMAGES) -> IdentityDataset:
        """Return the images of a fixed random choice of people: at most `max_images`, but always two people.

        A person contributes at most `MAX_PERSON_SHARE` of them, so that one with very many images does not displace all
        others.
        """
        if len(self) <= max_images:
            return self
        rng, max_each = np.random.default_rng(0), max(2, int(max_images * MAX_PERSON_SHARE))
        drawn = rng.permutation(len(self.names))
        total = np.bincount(self.identity).clip(max=max_each)[drawn].cumsum()
        count = max(2, int(np.searchsorted(total, max_images, "right")))
        kept = self.select(self.names[number] for number in drawn[:count])
        shuffled = rng.permutation(len(kept))
        by_person = shuffled[kept.identity[shuffled].argsort(kind="stable")]
        counts = np.bincount(kept.identity)
        place = np.arange(len(kept)) - np.repeat(counts.cumsum() - counts, counts)  # within the images of the person
        chosen = np.sort(by_person[place < max_each])
        return kept._part(chosen, kept.identity[chosen], kept.names)

    def split(self, seed: int = 0) -> tuple[IdentityDataset, IdentityDataset]:
        """Split by person into training and test: `test_names`, or a random fifth of the people, at least two."""
        test = self.test_names or draw_people(self.names, TEST_SHARE, seed)
        if len(test) < 2 or len(self.names) - len(test) < 2:
            raise ValueError(
                "the data needs at least 4 classes, 2 to train on and 2 others to test on; it has "
                f"{len(self.names) - len(test)} to train on and {len(test)} to test on"
            )
        return self.select(set(self.names) - test), self.select(test)

    def folds(self, count: int) -> list[tuple[IdentityDataset, IdentityDataset]]:
        """Split into pairs of training and test by person (number modulo `count`). Each person is tested once."""
        if not 2 <= count <= len(self.names) // 2:
            raise ValueError(
                f"{len(self.names)} classes can be split into 2 to {len(self.names) // 2} folds of at least two, "
                f"got {count}"
            )
        tests = [set(self.names[k::count]) for k in range(count)]
        return [(self.select(set(self.names) - test), self.select(test)) for test in tests]


def draw_people(names: Sequence[str], share: int, seed: int) -> frozenset[str]:
    """Draw one in `share` of these people at random, at least two."""
    count = max(2, round(len(names) / share))
    return frozenset(np.random.default_rng(seed).permutation(names)[:count].tolist())


def load_dataset(
    source: str | Path,
    input_shape: tuple[int, int, int],
    template: Landmarks | None = None,
    progress: bool = True,
    people: LabelledFiles | None = None,
) -> IdentityDataset:
    """Read "att", or a folder or zip archive with one folder of images per person, and decode each image once.

    If the same image is in the folders of different people, a note on stderr says so, unless only some of the people
    are read. With several processes, only the main one prints.

    Args:
        source: where the images are.
        input_shape: (C, H, W) of the network's input.
        template: of the crops, see `detect`; None takes images whole.
        progress: show a progress bar if reading takes longer than two seconds.
        people: what to read of it; None for everything.

    Raises:
        ValueError: if there are no people, a person has fewer than two images, or images cannot be read or show no
            face. The message names them.
    """
    path = find_att() if source == "att" else Path(source)
    whole, people = people is None, people or list_people(path)
    problems, count = people.problems, len(people.files)
    identity = np.repeat(np.arange(len(people.names)), people.counts)
    pixels = allocate((count, *input_shape))

    def read(row: int) -> None:
        person, file = identity[row], people.files[row]
        try:
            (faces,) = detect([people.folders[person] / file], input_shape, template)
            if not faces:
                raise ValueError(f"no face was found in {file}; remove it")
            pixels[row] = faces[0].pixels
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"{people.names[person]}: {error}")

    bar = progress_bar(desc="reading", total=count, unit=" images", delay=2, shown=progress)
    with ThreadPoolExecutor() as readers, bar:
        for start in range(0, count, IMAGES_PER_BATCH):  # a million tasks at once would take much memory
            for _ in readers.map(read, range(start, min(start + IMAGES_PER_BATCH, count))):
                bar.update()
    if problems:
        lines = limit_list(natural_order(problems), MAX_LISTED_PROBLEMS)
        raise ValueError(f"{path} cannot be used as it is:\n  " + "\n  ".join(lines))
    dataset = IdentityDataset(pixels, identity, people.names, people.test_names, files=people.files)
    if whole and is_main_process():
        copies = [", ".join(limit_list(group, MAX_LISTED_COPIES)) for group in find_copies(dataset)]
        message = "the same image is in the folders of different classes; remove it from the wrong ones"
        print_note(message, limit_list(copies, MAX_LISTED_COPIES))
    return dataset


def find_copies(dataset: IdentityDataset) -> list[list[str]]:
    """Return the paths of images with the same pixels that are in folders of different people."""
    hashes = np.fromiter((hash(image.numpy().tobytes()) for x in dataset.batches() for image in x), np.int64)
    _, content, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    groups = defaultdict(list)
    for number in np.flatnonzero(counts[content] > 1):
        groups[content[number]].append(number)
    return [
        [dataset.path(number) for number in group]
        for group in groups.values()
        if len(set(dataset.identity[group].tolist())) > 1
    ]


# --- memory


def free_bytes(device: torch.device) -> int:
    """Return how many bytes of images this process may put on a device: half of its share of what is free there."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or no limit
        free = min(free, int(CGROUP_LIMIT.read_text()) - LOCAL_PROCESSES * psutil.Process().memory_info().rss)
    return free // 2 // LOCAL_PROCESSES


def allocate(shape: tuple[int, ...]) -> Tensor:
    """Return an uninitialized uint8 tensor on the CPU: in memory if it fits, else in a file in `cache_folder()`.

    The file is unlinked at once, so the system frees its disk space when the tensor is deleted or the process ends.
    """
    size, folder = math.prod(shape), cache_folder()
    if size <= free_bytes(torch.device("cpu")):
        return torch.empty(shape, dtype=torch.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = size * LOCAL_PROCESSES, shutil.disk_usage(folder).free
    if needed > MAX_DISK_SHARE * free:
        raise OSError(
            f"the data need {needed / 1e9:.1f} GB, more than the free memory and the {free / 1e9:.1f} GB "
            f"free in {folder}; free some space, or set XDG_CACHE_HOME to another folder"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # reserve the space now: a full disk would kill the process at a later write
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))
