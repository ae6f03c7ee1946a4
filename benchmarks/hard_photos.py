"""Photographs as people have them: cut to the face, on their side, and large. One fold of LFW, two CPU cores.

    python benchmarks/hard_photos.py --data DIR --json benchmarks/results/hard_photos.json

DIR holds LFW (see `Lfw`). "tight": every photograph cut to the box of its face. "turned": every
photograph turned by a quarter to the left or right, or by a half; right is a crop whose embedding is nearer than the
threshold of one false match in 1,000 to that of the photograph itself. Accuracies are at the threshold that ships.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

import siamese
from siamese import images
from siamese.data.sources import Lfw
from siamese.evaluation.evaluate import judge_lfw
from siamese.faces import detection as faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lfw, model = Lfw(args.data), siamese.load()
    fold = lfw.folds()[:1]
    files = lfw.read({file for pair in fold[0] for file in pair[:2]})
    photos = {file: images.read(content) for file, content in files}
    names = list(photos)

    def embed(changed: list[Image.Image]) -> dict[str, np.ndarray]:
        return dict(zip(names, model.embed(changed), strict=True))

    def cut(photo: Image.Image) -> Image.Image:
        (found,) = faces.find([photo])
        left, top, right, bottom = found[0].box
        return photo.crop((max(0, left), max(0, top), min(photo.width, right), min(photo.height, bottom)))

    whole = embed(list(photos.values()))
    tight = embed([cut(photo) for photo in photos.values()])
    turned = embed([photo.rotate(90 * (1 + row % 3), expand=True) for row, photo in enumerate(photos.values())])
    near = model.calibration.operating_points[1].distance
    right = [bool(np.linalg.norm(turned[name] - whole[name]) < near) for name in names]
    results = {
        name: judge_lfw(z, fold, model.calibration)[0]["folds"] for name, z in (("whole", whole), ("tight", tight))
    }
    result = {
        name: {key: folds[key] for key in ("accuracy", "images", "without_face")} for name, folds in results.items()
    }
    result["turned"] = {"right": float(np.mean(right)), "images": len(right)}
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
