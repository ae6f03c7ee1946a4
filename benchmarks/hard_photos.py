"""Accuracy on tight crops and rotated photographs, on one fold of LFW.

    python benchmarks/hard_photos.py --data DIR --json benchmarks/results/hard_photos.json

DIR holds LFW, see `siamese.data.lfw.Lfw`. Takes two minutes on two CPU cores. Measured are:

    whole   the photographs as they are
    tight   each photograph cropped to the box of its face
    turned  each photograph rotated by 90, 180 or 270 degrees; "right" is the share that matches the unrotated
            photograph at a false-match rate of 1 in 1,000

Accuracies are at the threshold that is published with the weights.
"""

import common
import numpy as np
from PIL import Image

import siamese
from siamese import images
from siamese.data.lfw import Lfw
from siamese.evaluation.lfw import judge_lfw
from siamese.faces.detection import find_faces


def crop_to_box(photo: Image.Image) -> Image.Image:
    """Crop a photograph to the box of its main face."""
    (faces,) = find_faces([photo])
    left, top, right, bottom = faces[0].box
    return photo.crop((max(0, left), max(0, top), min(photo.width, right), min(photo.height, bottom)))


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    lfw, model = Lfw(args.data), siamese.load()
    fold = lfw.folds()[0]
    files = lfw.read({file for pair in fold for file in (pair.first, pair.second)})
    photos = {name: images.read(content) for name, content in files}

    whole = model.embed(photos.values())  # (N, D)
    tight = model.embed([crop_to_box(photo) for photo in photos.values()])
    turned = model.embed([photo.rotate(90 * (1 + k % 3), expand=True) for k, photo in enumerate(photos.values())])

    result = {}
    for title, z in (("whole", whole), ("tight", tight)):
        protocol = judge_lfw(dict(zip(photos, z, strict=True)), [fold], [model.calibration]).protocol
        result[title] = {
            "accuracy": protocol.accuracy,
            "images": protocol.images,
            "without_face": protocol.without_face,
        }
    # NaN, for a face that was not found, does not match.
    needed = model.calibration.needed(1e-3)
    matches = model.calibration.score(np.linalg.norm(turned - whole, axis=1)) >= needed
    result["turned"] = {"right": float(matches.mean()), "images": len(photos)}
    promises = {
        "tight crops lose at most 0.7% of accuracy": result["whole"]["accuracy"] - result["tight"]["accuracy"] <= 0.007,
        "95% of the rotated photos match": result["turned"]["right"] >= 0.95,
    }
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
