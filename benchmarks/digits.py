"""Measure small images: scikit-learn's handwritten digits, with three seeds.

    python benchmarks/digits.py --json benchmarks/results/digits.json

It runs `siamese train --data FOLDER --seed SEED` on these 1,797 images of 8 × 8 pixels: trained on 0 to 6 and tested on
7 to 9, and tested on 4 and 6 and trained on the others.
"""

import tempfile
import time
from pathlib import Path
from statistics import mean

import common
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from siamese.data.pairs import all_pairs
from siamese.training.run import train

HELD_OUT = {"7 to 9": (7, 8, 9), "4 and 6": (4, 6)}


def write_digits(folder: Path, held_out: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Write the digits as a data set. Returns the images (N, 64) of those that are held out, and their labels (N,)."""
    images, labels = load_digits(return_X_y=True)
    unseen = np.isin(labels, held_out)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = Path(folder, "testing" if unseen[number] else "training", str(label), f"{number}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).reshape(8, 8).astype("uint8")).save(place)
    return images[unseen], labels[unseen]


def measure(held_out: tuple[int, ...], seeds: list[int]) -> dict:
    """Return the AUC of each seed, and of raw pixels, on pairs of the digits that are held out."""
    with tempfile.TemporaryDirectory() as folder:
        images, labels = write_digits(Path(folder, "digits"), held_out)
        cpu = time.process_time()
        records = [train(Path(folder, "digits"), Path(folder, f"seed-{seed}"), seed=seed).record for seed in seeds]
    first, second, same = all_pairs(labels)
    raw = np.linalg.norm(images[first] - images[second], axis=1)
    return {
        "auc": [record.test.auc for record in records],
        "mean_auc": mean(record.test.auc for record in records),
        "raw_pixels_auc": roc_auc_score(same, -raw),
        "init": [record.settings.init for record in records],
        "cpu_seconds_each": round((time.process_time() - cpu) / len(seeds), 1),
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--held-out", nargs="+", choices=HELD_OUT, default=list(HELD_OUT))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    result = {name: measure(HELD_OUT[name], args.seeds) for name in args.held_out}
    better = all(run["mean_auc"] > run["raw_pixels_auc"] for run in result.values())
    common.finish({**result, "threads": torch.get_num_threads()}, args.json, {"a higher AUC than raw pixels": better})


if __name__ == "__main__":
    main()
