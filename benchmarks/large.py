"""Measure how the memory of a training run grows with the data: generated images, in memory and in a file.

    python benchmarks/large.py --json benchmarks/results/large.json

Each data set is trained on for one epoch with the modern recipe, in its own process, which reports its peak memory.
Cached pages of the file are not counted, because the system can free them at any time. It takes an hour on two CPU
cores.
"""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import common
import numpy as np
import psutil
from PIL import Image

RUNS = ((1_000, "memory"), (100_000, "memory"), (100_000, "file"), (1_000_000, "file"))
IMAGES_PER_CLASS = 20


def generate(folder: Path, count: int) -> None:
    """Write images of 16 × 16, `IMAGES_PER_CLASS` of each class: a pattern of the class, and noise."""
    rng = np.random.default_rng(0)
    for number in range(count // IMAGES_PER_CLASS):
        place = folder / str(number)
        place.mkdir()
        pattern = rng.integers(64, 192, (16, 16))
        for image, noise in enumerate(rng.integers(-64, 64, (IMAGES_PER_CLASS, 16, 16))):
            Image.fromarray((pattern + noise).astype(np.uint8)).save(place / f"{image}.png", compress_level=1)


def measure(folder: str, where: str) -> None:
    """Train, and print the peak memory of the process and its memory before any image, in megabytes."""
    from siamese.data import dataset
    from siamese.training.run import train

    own = psutil.Process()
    most = before = anonymous(own)
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.05):
            most = max(most, anonymous(own))

    threading.Thread(target=watch).start()
    if where == "file":
        dataset.free_bytes = lambda device: 0
    try:
        with tempfile.TemporaryDirectory() as out:
            settings = {"recipe": "modern", "epochs": 1, "device": "cpu"}
            seconds, _ = common.timed(lambda: train(folder, Path(out, "run"), **settings))
    finally:
        done.set()
    print(json.dumps({"before_mb": before, "most_mb": most, "seconds": round(seconds)}))


def anonymous(process: psutil.Process) -> int:
    """Return the memory of a process in megabytes, without cached files."""
    info = process.memory_info()
    return round((info.rss - info.shared) / 1e6)


def main() -> None:
    args = common.parser(__doc__).parse_args()
    runs = []
    for count, where in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), count)
            command = [sys.executable, "-c", f"import large; large.measure({folder!r}, {where!r})"]
            run = subprocess.run(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True)
        pixels = round(count * 3 * 48 * 48 / 1e6)
        runs.append({"images": count, "in": where, "pixels_mb": pixels, **json.loads(run.stdout)})
        print(json.dumps(runs[-1]), flush=True)
    small, held, filed, million = runs
    more = million["most_mb"] - filed["most_mb"]
    promises = {
        "one copy in memory, not two": held["most_mb"] - small["most_mb"] < 1.5 * held["pixels_mb"],
        "less memory with a file": filed["most_mb"] < held["most_mb"],
        "a million images in a file need hardly more memory": more < 0.05 * million["pixels_mb"],
    }
    common.finish({"runs": runs}, args.json, promises)


if __name__ == "__main__":
    main()
