"""Measure images other than faces: scikit-learn's handwritten digits, trained on 0 to 6, tested on 7 to 9.

    python benchmarks/digits.py --json benchmarks/results/digits.json

It runs `siamese train --data FOLDER` with the modern recipe and three seeds on these 1,797 images of 8 × 8.
"""

import tempfile
from pathlib import Path
from statistics import mean

import common
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from siamese.data.pairs import all_pairs
from siamese.training.run import train


def main() -> None:
    args = common.parser(__doc__).parse_args()
    images, labels = load_digits(return_X_y=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = Path(folder, "digits", "training" if label < 7 else "testing", str(label), f"{number}.png")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15.9).reshape(8, 8).astype("uint8")).save(place)
        data = str(Path(folder, "digits"))
        runs = [
            common.timed(lambda seed=seed: train(data, Path(folder, f"seed-{seed}"), recipe="modern", seed=seed))
            for seed in range(3)
        ]
        seconds, records = [seconds for seconds, _ in runs], [result.record for _, result in runs]
    unseen = labels >= 7
    first, second, same = all_pairs(labels[unseen])
    raw = np.linalg.norm(images[unseen][first] - images[unseen][second], axis=1)
    result = {
        "auc": [record.test.auc for record in records],
        "mean_auc": mean(record.test.auc for record in records),
        "raw_pixels_auc": roc_auc_score(same, -raw),
        "seconds_each": round(mean(seconds), 1),
    }
    better = result["mean_auc"] > result["raw_pixels_auc"] + 0.05
    common.finish(result, args.json, {"an AUC above that of raw pixels by 0.05": better})


if __name__ == "__main__":
    main()
