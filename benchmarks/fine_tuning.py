"""Measure whether fitting the face network to some people helps with others: AT&T in five folds, and LFW.

    python benchmarks/fine_tuning.py --data DIR --json benchmarks/results/fine_tuning.json

It runs `siamese train --init weights/faces --align faces` on AT&T with `--folds 5`, and on the people of LFW with at
least two photographs, a fifth of them held out. DIR is the folder of LFW, with the archive (see `Lfw`). People
with two names there (`LFW_ALIASES`) are left out. It takes twenty minutes on two CPU cores.
"""

import shutil
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path

import common

from siamese.data.lfw import LFW_ALIASES, Lfw
from siamese.training.run import train


def unpack(lfw: Lfw, folder: Path) -> Path:
    """Unpack LFW, and keep the people with at least two photographs and one name."""
    with tarfile.open(lfw.photos) as archive:
        archive.extractall(folder, filter="data")
    (photos,) = folder.iterdir()
    twice = LFW_ALIASES.keys() | set(LFW_ALIASES.values())
    for person in list(photos.iterdir()):
        if person.name in twice or len(list(person.iterdir())) < 2:
            shutil.rmtree(person)
    return photos


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos, out = unpack(Lfw(args.data), Path(folder, "photos")), Path(folder, "out")
        settings = {"init": "weights/faces", "align": "faces"}
        att = train("att", out / "att", folds=5, **settings).record
        lfw = train(photos, out / "lfw", **settings).record
    result = {
        "settings": asdict(att.settings) | {"init": settings["init"]},
        "att": {"before": asdict(att.folds.before), "after": asdict(att.folds.pooled)},
        "lfw": {
            "people": {"training": len(lfw.people.training), "test": len(lfw.people.test)},
            "images": lfw.data.images,
            "before": asdict(lfw.before),
            "after": asdict(lfw.test),
        },
    }
    promises = {
        "an EER of at most 0.5% on AT&T": att.folds.pooled.eer <= 0.005,
        "no higher EER than before": all(
            after.eer <= 1.01 * before.eer
            for after, before in ((att.folds.pooled, att.folds.before), (lfw.test, lfw.before))
        ),
    }
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
