"""Detection and accuracy on tight crops, frontal and in profile, on the data set CFP.

    python benchmarks/tight_crops.py --data DIR --json benchmarks/results/tight_crops.json

DIR holds the folders Data and Protocol of Celebrities in Frontal-Profile: 10 frontal photos and 4 profiles of each of
500 people, cut out close to the face. The photos are for research and are not part of this project. A copy is in the
GitHub repository zhangjunh/DR-GAN-by-pytorch, in cfp-dataset. Its Data/Images has the folders train and test above
those of the people; both layouts are read.

Measured are the photos in which no face is found, and the accuracy of the protocol Frontal-Profile: ten folds of 700
pairs, each judged with the threshold that is best on the others. A pair without a face counts as "different". With
`--view 1` or `--view 2`, only the first or the last five folds and their people are used, so that settings can be
chosen with View 1. Takes ten minutes on two CPU cores.

Sengupta et al., "Frontal to Profile Face Verification in the Wild", WACV 2016.
"""

from pathlib import Path

import common
import numpy as np

import siamese
from siamese.data.lfw import LfwPair
from siamese.evaluation.lfw import embed_main_faces, judge_lfw
from siamese.model import Model

FOLDS = range(1, 11)


def photos_by_name(folder: Path) -> dict[str, Path]:
    """Return the file of each photo by PERSON/frontal/NUMBER.jpg or PERSON/profile/NUMBER.jpg."""
    files = sorted((folder / "Data" / "Images").rglob("*.jpg"))
    photos = {"/".join(file.parts[-3:]): file for file in files if file.parent.name in ("frontal", "profile")}
    if not photos:
        raise ValueError("--data holds no photos in the layout that --help describes")
    return photos


def read_folds(folder: Path) -> list[list[LfwPair]]:
    """Return the pairs of each fold of the protocol: a frontal photo and a profile."""
    lists = []
    for name in ("Pair_list_F.txt", "Pair_list_P.txt"):
        lines = (folder / "Protocol" / name).read_text().splitlines()
        lists.append({number: "/".join(path.split("/")[-3:]) for number, path in map(str.split, lines)})
    frontal, profile = lists
    folds = []
    for number in FOLDS:
        fold = []
        for same, name in ((True, "same.txt"), (False, "diff.txt")):
            lines = (folder / "Protocol" / "Split" / "FP" / f"{number:02d}" / name).read_text().split()
            pairs = (line.split(",") for line in lines)
            fold += [LfwPair(frontal[first], profile[second], same) for first, second in pairs]
        folds.append(fold)
    return folds


def measure_crops(model: Model, photos: dict[str, Path], folds: list[list[LfwPair]]) -> dict:
    """Return the number of photos without a face, of each kind, and the result of the protocol."""
    files = ((name, file.read_bytes()) for name, file in photos.items())
    z, quality = embed_main_faces(model, files, len(photos))
    known = None if model.network.reference_norm is None else quality
    judged = judge_lfw(z, folds, [model.calibration] * len(folds), known)
    kinds = {}
    for kind in ("frontal", "profile"):
        rows = [row for name, row in z.items() if name.split("/")[1] == kind]
        kinds[kind] = {"photos": len(rows), "without_face": sum(bool(np.isnan(row).any()) for row in rows)}
    return {
        "people": len({name.partition("/")[0] for name in photos}),
        **kinds,
        "frontal_profile": {
            "folds": len(folds),
            "pairs": sum(map(len, folds)),
            "accuracy": judged.protocol.accuracy,
            "accuracy_std": judged.protocol.accuracy_std,
            "eer": judged.test.eer,
            "default_fnmr": judged.protocol.default_fnmr,
        },
    }


def main() -> None:
    parser = common.parser(__doc__, data=True, view=0)
    parser.add_argument("--count", type=int, help="pairs of each fold, and only their photos (default: all)")
    args = parser.parse_args()
    photos, folds = photos_by_name(args.data), read_folds(args.data)
    if args.view:
        folds = folds[:5] if args.view == 1 else folds[5:]
    if args.count:
        folds = [fold[:: max(1, len(fold) // args.count)] for fold in folds]
        used = {file for fold in folds for pair in fold for file in (pair.first, pair.second)}
        photos = {name: file for name, file in photos.items() if name in used}
    elif args.view:
        people = {file.partition("/")[0] for fold in folds for pair in fold for file in (pair.first, pair.second)}
        photos = {name: file for name, file in photos.items() if name.partition("/")[0] in people}
    result = {"view": args.view, **measure_crops(siamese.load(), photos, folds)}
    common.finish(result, args.json, {})


if __name__ == "__main__":
    main()
