"""Error rates among children, among adults, and between a child and an adult, on the data set LAG.

    python benchmarks/ages.py --data DIR --json benchmarks/results/ages.json

DIR holds the folders of the Large Age-Gap data set: the adults as PERSON/*.png and the same people as children or
young people as PERSON/y/*.png, 3,816 photos of 1,010 people. It may be used for academic and non-commercial purposes
only and must not be redistributed, so it is not part of this project. A copy is in the GitHub repository
loiswjj/Face_Recognition, in FaceDetection/FaceDetection/data/Pic. Nothing is trained or chosen on it.

All pairs of photos in which a face is found are compared. Embeddings are cached, so an interrupted run can continue.
Takes six minutes on one CPU core.

Bianco, "Large Age-Gap Face Verification by Feature Injection in Deep Networks", Pattern Recognition Letters, 2017.
"""

from pathlib import Path

import torch
from pair_rates import PairKind, embed, measure, numbers, run
from torch import Tensor

from siamese.model import Model

AGES = ("adult_adult", "child_adult", "child_child")  # by the number of children in the pair
KINDS = tuple(PairKind(ages, same) for same in (False, True) for ages in AGES)


def measure_ages(model: Model, folder: Path) -> dict:
    """Measure a model on LAG.

    Args:
        model: any model.
        folder: the folder of LAG.

    Returns:
        The counts of images, people and photos without a face, and the result of `measure`.
    """
    files = sorted(file for pattern in ("*/[!.]*.png", "*/y/[!.]*.png") for file in folder.glob(pattern))
    people = [file.relative_to(folder).parts[0] for file in files]
    faces = embed(model, files)
    person = numbers(people, faces.found)
    child = torch.tensor([file.parent.name == "y" for file in files])[torch.from_numpy(faces.found)].long()

    def kind_of(rows: slice, columns: slice) -> Tensor:
        same = person[rows, None] == person[columns]
        return len(AGES) * same + child[rows, None] + child[columns]

    counts = {"images": len(files), "people": len(set(people)), "without_face": int((~faces.found).sum())}
    return counts | measure(model.calibration, faces, KINDS, kind_of)


if __name__ == "__main__":
    run(__doc__, measure_ages)
