"""Error rates within families, among strangers, and for photos of one person, on the data set FIW.

    python benchmarks/relatives.py --data DIR --json benchmarks/results/relatives.json

DIR holds the folders of Families in the Wild: one folder per family, and in it one per member, as F0001/MID1/*.jpg. It
is for research only, so it is not part of this project. A copy is in the GitHub repository
samirmehd1yev/kinship_detection, in data/raw/fiw/train/train-faces. Nothing is trained or chosen on it.

All pairs of photos in which a face is found are compared, of a random sample of 220 families that is always the same.
A family includes married couples. The data set has label errors, children, and old and small photos. Embeddings are
cached, so an interrupted run can continue. Takes ten minutes on one CPU core.

Robinson, Shao, Wu and Fu, "Families in the Wild (FIW): Large-Scale Kinship Image Database and Benchmarks", ACM
Multimedia, 2016.
"""

import random
from pathlib import Path

from pair_rates import PairKind, embed, measure, numbers, run
from torch import Tensor

from siamese.model import Model

FAMILIES = 220
KINDS = (PairKind("strangers", False), PairKind("one_family", False), PairKind("one_person", True))


def measure_relatives(model: Model, folder: Path) -> dict:
    """Measure a model on FIW.

    Args:
        model: any model.
        folder: the folder of FIW.

    Returns:
        The counts of families, people, images and photos without a face, and the result of `measure`.
    """
    photos = sorted(folder.glob("F*/MID*/[!.]*.jpg"))
    every_family = sorted({file.parts[-3] for file in photos})
    families = set(random.Random(0).sample(every_family, min(FAMILIES, len(every_family))))
    files = [file for file in photos if file.parts[-3] in families]
    people = [str(file.parent) for file in files]
    faces = embed(model, files)
    person, family = numbers(people, faces.found), numbers([file.parts[-3] for file in files], faces.found)

    def kind_of(rows: slice, columns: slice) -> Tensor:
        one_family, one_person = (label[rows, None] == label[columns] for label in (family, person))
        return one_family.long() + one_person

    counts = {"families": len(families), "people": len(set(people)), "images": len(files)}
    counts["without_face"] = int((~faces.found).sum())
    return counts | measure(model.calibration, faces, KINDS, kind_of)


if __name__ == "__main__":
    run(__doc__, measure_relatives)
