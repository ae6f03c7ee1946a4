"""How many faces are found in photos without people, and whether two of them count as the same person.

    python benchmarks/no_people.py --data DIR --json benchmarks/results/no_people.json

DIR holds LFW, see `siamese.data.lfw.Lfw`, and two archives: grocery.zip with 3,232 photos of the Grocery Store Dataset
(github marcusklasson/GroceryStoreDataset; Klasson et al., WACV 2019), and omniglot.zip with drawings of Omniglot
(github brendenlake/omniglot; Lake et al., Science 2015). The photos that scikit-image and scikit-learn bring along are
used as well, if these packages are installed. Photos are searched as they are.

All pairs of false faces of different photos are compared, and each with the main faces of 500 people
of LFW. No pair may be "same".

With `--view 1` or `--view 2`, only every second photo is used, and the people are those of View 1, or those of View 2
that are not in View 1. So settings can be chosen with View 1. Takes an hour on two CPU cores.
"""

import importlib.util
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
from group_photos import photos_of_view
from tqdm import tqdm

import siamese
from siamese import images
from siamese.comparison import rows_to_compare
from siamese.data.lfw import Lfw
from siamese.model import Model

TRUE_FACES = 500
PHOTOS_AT_ONCE = 32
ARCHIVES = ("grocery", "omniglot")
BUNDLED = {"skimage": "data", "sklearn": "datasets/images"}  # package → folder of its photos
SHOW_PEOPLE = ("astronaut.png", "camera.png")  # of scikit-image


class FalseFaces(NamedTuple):
    """False faces that a comparison would use: embeddings (N, D), qualities (N,) and numbers of their photos (N,)."""

    z: np.ndarray
    quality: np.ndarray
    photo: np.ndarray


def photos_without_people(folder: Path) -> dict[str, list[images.ImageSource]]:
    """Return all photos by their source; a package that is not installed is left out, with a message."""
    photos: dict[str, list[images.ImageSource]] = {}
    for name in ARCHIVES:
        archive = zipfile.Path(folder / f"{name}.zip")
        files = sorted(file for file in archive.root.namelist() if file.endswith((".jpg", ".png")))
        photos[name] = [archive / file for file in files]
    for package, place in BUNDLED.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            print(f"{package} is not installed; its photos are left out")
            continue
        files = sorted((Path(spec.origin).parent / place).glob("*.[jp][pn]g"))
        photos[package] = [file for file in files if file.name not in SHOW_PEOPLE]
    return photos


def batches(photos: list[images.ImageSource], title: str) -> Iterator[list[images.ImageSource]]:
    for start in tqdm(range(0, len(photos), PHOTOS_AT_ONCE), desc=title):
        yield photos[start : start + PHOTOS_AT_ONCE]


def find_false_faces(model: Model, photos: dict[str, list[images.ImageSource]]) -> tuple[dict, FalseFaces]:
    """Return the counts for each source, and the false faces of all."""
    counts, kept, of_photo = {}, [], []
    number = 0
    for source, group in photos.items():
        detected, before = [], len(kept)
        for batch in batches(group, source):
            for faces in model.detect(batch):
                rows = rows_to_compare(faces, None, source)
                kept += [faces[row] for row in rows]
                of_photo += [number] * len(rows)
                detected.append(len(faces))
                number += 1
        counts[source] = {
            "photos": len(group),
            "with_face": sum(count > 0 for count in detected),
            "faces": sum(detected),
            "compared_faces": len(kept) - before,
        }
    z, faces = model.embed_faces(kept)
    return counts, FalseFaces(z, qualities(faces), np.array(of_photo, dtype=int))


def qualities(faces: list[siamese.Face]) -> np.ndarray:
    """Return the quality of each face, (N,); 1 if the network has no quality scores."""
    return np.array([1.0 if face.quality is None else face.quality for face in faces])


def compare_all(model: Model, a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the score of each face of one group with each of another, (N, M), from embeddings and qualities."""
    distance = np.linalg.norm(a[0][:, None] - b[0], axis=2)
    return model.calibration.score(distance, np.stack(np.broadcast_arrays(a[1][:, None], b[1]), axis=2))


def summarize(model: Model, scores: np.ndarray) -> dict:
    """Return the number of pairs, of those with the verdict "same", and the highest score."""
    same = int((scores >= model.calibration.needed()).sum())
    highest = float(scores.max()) if scores.size else None
    return {"pairs": scores.size, "same": same, "highest_score": highest}


def main() -> None:
    parser = common.parser(__doc__, data=True, view=0)
    parser.add_argument("--count", type=int, help="photos of each source, evenly spread, and of people (default: all)")
    args = parser.parse_args()
    model, lfw = siamese.load(), Lfw(args.data)
    photos = photos_without_people(args.data)
    if args.view:
        photos = {source: group[args.view - 1 :: 2] for source, group in photos.items()}
    if args.count:
        photos = {source: group[:: max(1, len(group) // args.count)] for source, group in photos.items()}
    counts, found = find_false_faces(model, photos)
    files = [group[0] for group in photos_of_view(lfw, args.view).values()][: args.count or TRUE_FACES]
    z, quality = model.embed_with_quality(content for _, content in lfw.read(files))
    is_found = ~np.isnan(z).any(axis=1)
    true_faces = z[is_found], np.nan_to_num(quality[is_found], nan=1.0)
    false_faces = found.z, found.quality
    scores = compare_all(model, false_faces, false_faces)
    once = np.triu(found.photo[:, None] != found.photo, 1)  # each pair of different photos
    result = {
        "view": args.view,
        "sources": counts,
        "all": {key: sum(row[key] for row in counts.values()) for key in next(iter(counts.values()))},
        "two_false_faces": summarize(model, scores[once]),
        "false_and_true_face": summarize(model, compare_all(model, false_faces, true_faces)),
        "true_faces": int(is_found.sum()),
    }
    promises = {
        "no two false faces are the same person": not result["two_false_faces"]["same"],
        "no false face is a person": not result["false_and_true_face"]["same"],
    }
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
