"""Compare the accuracy that `siamese train` states at its end with random halves of the held-out people or classes.

    python benchmarks/closing.py --data DIR --json benchmarks/results/closing.json

A calibration is fitted to one half and tested on the other, 20 times. DIR holds the archive of LFW (see `Lfw`), and
grocery.zip and omniglot.zip with a folder of images for each class: groceries of the Grocery Store Dataset (Klasson et
al., WACV 2019), and the characters of Omniglot's set "small 1" (Lake et al., Science 2015). Of LFW, 40 people with ten
photographs each are used. It takes 15 minutes on two CPU cores.
"""

import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import common
import numpy as np

from siamese.data.dataset import load_dataset
from siamese.data.lfw import Lfw
from siamese.evaluation import metrics
from siamese.evaluation.calibrate import fit_calibration
from siamese.evaluation.pairs import Scored, score_all_pairs
from siamese.training.run import train

HALVES = 20
LFW_PEOPLE, LFW_PHOTOS = 40, 10
RUNS = (("groceries", 0), ("groceries", 1), ("characters", 0), ("people of LFW", 0))


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for data, seed in RUNS:
            source = unpack(args.data, data, folder)
            trained = train(source, folder / "runs" / f"{data} {seed}", seed=seed)
            record, model = trained.record, trained.model
            people = load_dataset(source, model.network.input_shape, model.template).select(record.people.test)
            halves = by_halves(score_all_pairs(model.network, people))
            stated = record.test.balanced_accuracy
            rates = [point.fmr for point in model.calibration.operating_points]
            test = {"auc": record.test.auc, "eer": record.test.eer, "unchanged": record.unchanged, "rates": rates}
            runs.append(
                {"data": data, "seed": seed, "held_out": len(people.names), "stated": stated, "halves": halves, **test}
            )
    promises = {
        "at most 3 points from the mean of the halves": all(abs(run["stated"] - run["halves"]) < 0.03 for run in runs),
        "strict rates for the people of LFW": 1e-3 in runs[-1]["rates"],
    }
    common.finish({"runs": runs}, args.json, promises)


def unpack(source: Path, data: str, folder: Path) -> Path:
    """Unpack a data set, once, and return its folder."""
    place = folder / data
    if place.exists():
        return place
    if data == "people of LFW":
        with tarfile.open(Lfw(source).photos) as archive:
            archive.extractall(folder / "lfw", filter="data")
        (photos,) = (folder / "lfw").iterdir()
        many = [person for person in sorted(photos.iterdir()) if len(list(person.iterdir())) >= LFW_PHOTOS]
        for person in many[:LFW_PEOPLE]:
            for photo in sorted(person.iterdir())[:LFW_PHOTOS]:
                (place / person.name).mkdir(parents=True, exist_ok=True)
                shutil.move(photo, place / person.name / photo.name)
        return place
    file, inside = {"groceries": ("grocery.zip", "grocery"), "characters": ("omniglot.zip", "omniglot/small1")}[data]
    with zipfile.ZipFile(source / file) as archive:
        archive.extractall(folder / "zip", [name for name in archive.namelist() if name.startswith(f"{inside}/")])
    return Path(shutil.move(folder / "zip" / inside, place))


def by_halves(scored: Scored) -> float:
    """Return the mean balanced accuracy on one half of the people, with a calibration of the other."""
    rng, count = np.random.default_rng(0), scored.people.max() + 1
    accuracies = []
    for _ in range(HALVES):
        inside = np.isin(scored.people, rng.permutation(count)[: count // 2]).sum(axis=1)
        fitting, testing = scored.select(inside == 2), scored.select(inside == 0)
        probability = fit_calibration(fitting.distance, fitting.same).probability(testing.distance)
        accuracies.append(metrics.balanced_accuracy(probability, testing.same))
    return float(np.mean(accuracies))


if __name__ == "__main__":
    main()
