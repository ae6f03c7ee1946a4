"""Measure whether the parts that saliency maps mark matter: hide them, and measure the distance again.

    python benchmarks/saliency.py --data DIR --json benchmarks/results/saliency.json

DIR is the folder of LFW (see `Lfw`). It uses the first 100 genuine and 100 impostor pairs of View 2; the method was
chosen on pairs of View 1. A tenth of one face is replaced by its blurred version or by its mean color: the tenth with
the largest absolute values ("hottest"), the tenth that makes the distance smaller ("together") or larger ("apart"), and
random patches of the same size, three times.
"""

from statistics import median

import common
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

import siamese
from siamese import Face
from siamese.data.lfw import Lfw
from siamese.saliency import saliency_maps

PAIRS = 100


def tenth(values: np.ndarray) -> np.ndarray:
    """Return a mask of the tenth of the pixels with the highest values."""
    return values >= np.quantile(values, 0.9)


def patches(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return noise that is as smooth as a saliency map."""
    noise = torch.from_numpy(rng.normal(size=(1, 1, 35, 35))).float()
    noise = F.avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False)
    return F.interpolate(noise, shape, mode="bicubic")[0, 0].numpy()


def hide(crop: Image.Image, mask: np.ndarray, fill: str) -> Image.Image:
    """Replace a part of a face by its blurred version or its mean color."""
    pixels = np.asarray(crop)
    cover = (
        np.asarray(crop.filter(ImageFilter.GaussianBlur(crop.height / 10)))
        if fill == "blurred"
        else pixels.mean((0, 1))
    )
    return Image.fromarray(np.where(mask[..., None], cover, pixels).astype(np.uint8))


def promises(change: dict[str, dict[str, dict[str, float]]]) -> dict[str, bool]:
    """Check that blurring what the maps mark changes the distance."""
    genuine, impostor = change["genuine"], change["impostor"]
    return {
        "blurring what brings faces together makes them differ": all(
            parts["together"]["mean"] > max(0.02, 3 * parts["random"]["mean"]) for parts in change.values()
        ),
        "the marked tenth changes the distance twice as much as a random tenth": all(
            parts["hottest"]["size"] > 2 * parts["random"]["size"] for parts in change.values()
        ),
        "blurring what pushes photos of one person apart does not bring them closer": genuine["apart"]["mean"] > 0,
        "blurring what pushes two people apart brings them closer": impostor["apart"]["mean"]
        < -3 * impostor["random"]["size"],
    }


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    model, lfw, rng = siamese.load(), Lfw(args.data), np.random.default_rng(0)
    fold = lfw.folds()[0]
    pairs = [pair for same in (True, False) for pair in [pair for pair in fold if pair.same == same][:PAIRS]]
    photos = dict(lfw.read({file for pair in pairs for file in pair[:2]}))
    changes: dict[tuple[str, str, str], list[float]] = {}
    embedding, explaining = [], []
    for pair in pairs:
        answer = model.compare(photos[pair[0]], photos[pair[1]])
        seconds, (z, _) = common.timed(model.embed_faces, answer.faces)
        embedding.append(seconds)
        seconds, maps = common.timed(saliency_maps, model, answer)
        explaining.append(seconds)
        for side, (face, values) in enumerate(zip(answer.faces, maps, strict=True)):
            masks = {"hottest": tenth(abs(values)), "together": tenth(values), "apart": tenth(-values)}
            masks |= {f"random {k}": tenth(patches(values.shape, rng)) for k in range(3)}
            for fill in ("blurred", "mean"):
                hidden = [Face(hide(face.crop, mask, fill)) for mask in masks.values()]
                distances = np.linalg.norm(model.embed_faces(hidden)[0] - z[1 - side], axis=1)
                for name, value in zip(masks, distances - answer.dissimilarity, strict=True):
                    kind = "genuine" if pair.same else "impostor"
                    changes.setdefault((fill, kind, name.split()[0]), []).append(float(value))
    result = {"pairs": len(pairs), "time_to_embedding": round(median(explaining) / median(embedding), 1), "change": {}}
    for (fill, kind, name), values in changes.items():
        row = {"mean": round(float(np.mean(values)), 4), "size": round(float(np.abs(values).mean()), 4)}
        result["change"].setdefault(fill, {}).setdefault(kind, {})[name] = row
    common.finish(result, args.json, promises(result["change"]["blurred"]))


if __name__ == "__main__":
    main()
