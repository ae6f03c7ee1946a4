"""Labelled images in memory, and their split by person."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from siamese.data.att import find_att
from siamese.data.folders import limit_list, list_people, natural_order
from siamese.data.memory import allocate
from siamese.faces.detection import Landmarks
from siamese.faces.face import detect
from siamese.network import to_tensor

BATCH_SIZE = 256  # images that `batches` yields at a time
MAX_MEASURED_IMAGES = 20_000  # of a data set, see `subsample`
MAX_PERSON_SHARE = 0.05  # of these images that one person contributes
MAX_LISTED_PROBLEMS = 20
MAX_LISTED_COPIES = 5
COPIES_NOTE = "the same image is in the folders of different people; remove it from the wrong ones"


@dataclass(frozen=True)
class IdentityDataset:
    """Images with the identity that each shows.

    Attributes:
        pixels: (M, C, H, W) uint8, in memory or memory-mapped; may also hold images of other data sets.
        identity: (N,) int, an index into `names`.
        names: the people (or classes), in natural order (s2 before s10).
        test_names: the people that the data set reserves for testing; empty if it does not.
        rows: (N,) int, the images' rows in `pixels`; by default all of them.
        files: (M,) the file names of `pixels`; empty if they are not known.
    """

    pixels: Tensor
    identity: np.ndarray
    names: tuple[str, ...]
    test_names: frozenset[str] = frozenset()
    rows: np.ndarray = None  # type: ignore[assignment]  # set below
    files: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(len(self.pixels)))

    def __len__(self) -> int:
        return len(self.identity)

    def batches(self) -> Iterator[Tensor]:
        """Yield the images in order, as (B, C, H, W) uint8 on the CPU with B ≤ `BATCH_SIZE`; (0, C, H, W) if empty."""
        for start in range(0, max(len(self), 1), BATCH_SIZE):
            yield self.pixels[self.rows[start : start + BATCH_SIZE]]

    def picture(self, number: int) -> np.ndarray:
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
        return IdentityDataset(self.pixels, identity, kept, self.test_names & names, self.rows[rows], self.files)

    def subsample(self, max_images: int = MAX_MEASURED_IMAGES) -> IdentityDataset:
        """Return the images of a fixed random choice of people.

        Args:
            max_images: return at most this many images, but always two people. A person contributes at most
                `MAX_PERSON_SHARE` of them, so that a person with very many images does not displace all others.

        Returns:
            The data set itself if it has no more than `max_images`.
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
        return replace(kept, identity=kept.identity[chosen], rows=kept.rows[chosen])

    def draw_people(self, share: int, seed: int) -> frozenset[str]:
        """Draw one in `share` people at random, at least two."""
        count = max(2, round(len(self.names) / share))
        return frozenset(np.random.default_rng(seed).permutation(self.names)[:count].tolist())

    def split(self, seed: int = 0) -> tuple[IdentityDataset, IdentityDataset]:
        """Split by person into training and test.

        Args:
            seed: of the random choice of a fifth of the people, at least two, if the data set has no `test_names`.

        Returns:
            The training set and the test set, with no person in both.

        Raises:
            ValueError: if either would have fewer than 2 people.
        """
        test = self.test_names or self.draw_people(5, seed)
        if len(test) < 2 or len(self.names) - len(test) < 2:
            raise ValueError(
                "the data needs at least 4 people, 2 to train on and 2 others to test on; it has "
                f"{len(self.names) - len(test)} to train on and {len(test)} to test on"
            )
        return self.select(set(self.names) - test), self.select(test)

    def folds(self, count: int) -> list[tuple[IdentityDataset, IdentityDataset]]:
        """Split into folds by person (person number modulo `count`). Each fold is the test set once.

        Args:
            count: the number of folds, at least 2, with at least 2 people in each.

        Returns:
            `count` pairs of training set and test set.

        Raises:
            ValueError: if there are too few people for `count` folds.
        """
        if not 2 <= count <= len(self.names) // 2:
            raise ValueError(
                f"{len(self.names)} people can be split into 2 to {len(self.names) // 2} folds of at least two, "
                f"got {count}"
            )
        tests = [set(self.names[k::count]) for k in range(count)]
        return [(self.select(set(self.names) - test), self.select(test)) for test in tests]


def load_dataset(
    source: str | Path, input_shape: tuple[int, int, int], template: Landmarks | None = None, progress: bool = True
) -> IdentityDataset:
    """Read a data set and decode each image once.

    Args:
        source: "att" for the AT&T faces, or a folder or zip archive, see `folders.list_people`.
        input_shape: (C, H, W) of the network's input.
        template: see `detect`; None takes images whole.
        progress: show a progress bar if reading takes longer than two seconds, and print a note on stderr if the same
            image is in the folders of different people.

    Returns:
        All people, each with at least two images.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if there are no people, a person has fewer than two images, or images cannot be read or show no
            face. The message names them.
        ConnectionError: if AT&T has to be downloaded and the download fails.
        OSError: if the images fit neither into memory nor onto the disk.
    """
    path = find_att() if source == "att" else Path(source)
    people = list_people(path)
    problems, count = people.problems, len(people.files)
    identity = np.repeat(np.arange(len(people.names)), people.counts)
    pixels = allocate((count, *input_shape))

    def read(row: int) -> None:
        person, file = identity[row], people.files[row]
        try:
            (faces,) = detect([people.folders[person] / file], input_shape, template)
            if not faces:
                raise ValueError(f"no face was found in {file}; remove it")
            pixels[row] = to_tensor(faces[0].crop)
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"{people.names[person]}: {error}")

    bar = tqdm(desc="reading", total=count, unit=" images", delay=2, disable=not progress)
    with ThreadPoolExecutor() as readers, bar:
        for start in range(0, count, BATCH_SIZE):  # a million tasks at once would take much memory
            for _ in readers.map(read, range(start, min(start + BATCH_SIZE, count))):
                bar.update()
    if problems:
        lines = limit_list(natural_order(problems), MAX_LISTED_PROBLEMS)
        raise ValueError(f"{path} cannot be used as it is:\n  " + "\n  ".join(lines))
    dataset = IdentityDataset(pixels, identity, people.names, people.test_names, files=people.files)
    if progress and (lines := [", ".join(limit_list(group, MAX_LISTED_COPIES)) for group in find_copies(dataset)]):
        print(f"note: {COPIES_NOTE}:", *limit_list(lines, MAX_LISTED_COPIES), sep="\n  ", file=sys.stderr)
    return dataset


def find_copies(dataset: IdentityDataset) -> list[list[str]]:
    """Return the images with the same pixels that are in folders of different people, see `IdentityDataset.path`."""
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
