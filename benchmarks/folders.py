"""Measure how long `siamese embed` takes for a folder in which nothing changed, and how long opening its index takes.

    python benchmarks/folders.py --json benchmarks/results/folders.json

The folder has 100,000 files in 1,000 folders, and its index one face for each of them. Nothing is read from the files.
So the second run only lists them and compares their sizes and times, which is bounded by `stat`.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import common
import numpy as np

import siamese
from siamese.faces import Face
from siamese.faces.detection import Detection
from siamese.search.embedding import PhotoFaces
from siamese.search.index import Index, IndexWriter
from siamese.search.scan import scan
from siamese.search.update import update_index

T = TypeVar("T")

FILES, FOLDERS, BATCH = 100_000, 1000, 10_000


def make(folder: Path) -> None:
    """Write the files: empty, because they are not read."""
    for number in range(FOLDERS):
        (folder / f"{number:04}").mkdir(parents=True)
    for number in range(FILES):
        (folder / f"{number % FOLDERS:04}" / f"IMG_{number:06}.jpg").touch()


def fill(place: Path, folder: Path, model: siamese.Model) -> None:
    """Make the index of the files, with random embeddings."""
    face = Face(None, Detection((10.0, 10.0, 90.0, 120.0), tuple((50.0 + x, 60.0 + x) for x in range(5)), 0.99), 1.0)
    z = np.random.default_rng(0).standard_normal((FILES, model.network.embedding_dim), np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    photos = scan(folder).photos
    with IndexWriter(place, model, folder) as index:
        for start in range(0, FILES, BATCH):
            rows = range(start, start + BATCH)
            index.add([(photos[row], PhotoFaces((face,), z[row : row + 1])) for row in rows])


def stat_all(folder: Path) -> int:
    """Ask for the status of each file, in the simplest way."""
    return sum(
        os.stat(os.path.join(parent, name)).st_size == 0 for parent, _, names in os.walk(folder) for name in names
    )


def measure(do: Callable[..., T], *arguments: object) -> tuple[dict[str, float], T]:
    """Return the seconds that a call took, also of the processor alone, and what it returned."""
    cpu = time.process_time()
    seconds, returned = common.timed(do, *arguments)
    return {"seconds": round(seconds, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}, returned


def main() -> None:
    args = common.parser(__doc__).parse_args()
    model = siamese.load(device="cpu")
    model.fingerprint()
    with tempfile.TemporaryDirectory() as temporary:
        folder, place = Path(temporary, "photos").resolve(), Path(temporary, "index")
        make(folder)
        fill(place, folder, model)
        stats, _ = measure(stat_all, folder)
        unchanged, update = measure(update_index, model, folder, place)
        assert (update.photos, update.embedded, update.moved, update.forgotten) == (FILES, 0, 0, 0)
        opened, index = measure(Index, place, model)
        index.close()
    result = {"files": FILES, "unchanged": unchanged, "stat": stats, "open_index": opened}
    promises = {"a run over 100,000 unchanged files takes at most 10 s": unchanged["cpu_seconds"] <= 10}
    common.finish(result, args.json, promises | common.two_cores(args.json))


if __name__ == "__main__":
    main()
