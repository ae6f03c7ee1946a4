"""Measure one-shot classification of characters: Omniglot, trained on "small 1" or "small 2".

    python benchmarks/omniglot.py --data DIR --json benchmarks/results/omniglot.json

DIR holds omniglot.zip: the folders `small1` and `small2` of https://github.com/brendenlake/omniglot at 057f034 with a
folder for each character, and `one-shot` with the 20 runs. It runs `siamese train --data FOLDER` with the default
settings. The error is that of the within-alphabet task of Lake et al. (Science 2015): each of the 20 test images of a
run gets the class of the nearest of its 20 training images. The runs judge; nothing was chosen on them.
"""

import tempfile
import time
import zipfile
from pathlib import Path

import common
import numpy as np
import torch

from siamese import Model
from siamese.training.run import train

SETS = ("small1", "small2")


def one_shot_error(model: Model, runs: Path) -> float:
    """Return the mean error over the runs, in [0, 1]."""
    errors = []
    for labels in sorted(runs.glob("run*/class_labels.txt")):
        pairs = [line.split() for line in labels.read_text().splitlines()]
        known = sorted({right for _, right in pairs})
        z = model.embed([runs / name for name in (*known, *(item for item, _ in pairs))])
        distance = np.linalg.norm(z[len(known) :, None] - z[: len(known)], axis=2)  # (20, 20)
        nearest = distance.argmin(1)
        errors.append(np.mean([known[row] != right for row, (_, right) in zip(nearest, pairs, strict=True)]))
    return float(np.mean(errors))


def main() -> None:
    parser = common.parser(__doc__, data=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    args = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(args.data / "omniglot.zip") as archive:
        archive.extractall(folder)
        root = Path(folder, "omniglot")
        for name in args.sets:
            began, cpu = time.perf_counter(), time.process_time()
            trained = train(root / name, Path(folder, f"out-{name}"))
            result[name] = {
                "one_shot_error": one_shot_error(trained.model, root / "one-shot"),
                "held_out_eer": trained.record.test.eer,
                "seconds": round(time.perf_counter() - began),
                "cpu_seconds": round(time.process_time() - cpu),
                "init": trained.record.settings.init,
            }
            print(name, result[name], flush=True)
    result["threads"] = torch.get_num_threads()
    promises = {
        f"a one-shot error of at most 12% after {name}": result[name]["one_shot_error"] <= 0.12 for name in args.sets
    }
    promises["training in 30 minutes of processor time"] = all(
        result[name]["cpu_seconds"] <= 1800 for name in args.sets
    )
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
