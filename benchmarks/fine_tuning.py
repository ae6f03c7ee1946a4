"""Does fine-tuning the face network on some people help with others? AT&T in five folds, and LFW as a folder.

    python benchmarks/fine_tuning.py --data DIR --json benchmarks/results/fine_tuning.json

It is `siamese train --init weights/faces --align faces`, on AT&T with `--folds 5`, and on a folder of those people of
LFW who have two photographs or more, a fifth of whom are held out. DIR holds LFW (see `Lfw`), packed.
Nine people go by two names there (`LFW_ALIASES`) and are left out. Twenty minutes on two CPU cores.
"""

import argparse
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

from siamese.data.sources import LFW_ALIASES, Lfw
from siamese.training.config import TrainConfig
from siamese.training.run import train

FACELESS = ("Marilyn_Monroe/Marilyn_Monroe_0001.jpg",)  # no face is found in it, so that training asks to remove it


def unpack(lfw: Lfw, folder: Path) -> Path:
    """Unpack LFW and leave the photographs of all people who have two or more, but for those of two names."""
    with tarfile.open(lfw.photographs) as archive:
        archive.extractall(folder, filter="data")
    (photos,) = folder.iterdir()
    for name in FACELESS:
        (photos / name).unlink()
    twice = LFW_ALIASES.keys() | set(LFW_ALIASES.values())
    for person in list(photos.iterdir()):
        if person.name in twice or len(list(person.iterdir())) < 2:
            shutil.rmtree(person)
    return photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos, out = unpack(Lfw(args.data), Path(folder, "photos")), Path(folder, "out")
        settings = {"init": "weights/faces", "align": "faces"}
        att = train(TrainConfig("att", out / "att", folds=5, **settings))
        lfw = train(TrainConfig(str(photos), out / "lfw", **settings))
    result = {
        "recipe": att["recipe"],
        "att": {"before": att["folds"]["before"], "after": att["folds"]["pooled"]},
        "lfw": {
            "people": {side: len(names) for side, names in lfw["people"].items()},
            "images": lfw["data"]["images"],
            "before": lfw["before"],
            "after": lfw["test"],
        },
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
