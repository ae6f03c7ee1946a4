"""Does fine-tuning the face network on some people help with others? Ten folds of LFW's View 2, five of AT&T.

    python benchmarks/fine_tuning.py --data DIR --json benchmarks/results/fine_tuning.json

DIR holds LFW (see `siamese.datasets.Lfw`). For each fold the network is trained, by the defaults of `siamese train
--init`, on the people of the other nine folds that have two photographs or more, and judged on the pairs of the fold;
no name is in both. Nine people go by two names (`siamese.datasets.LFW_ALIASES`) and are taken for two each. The
accuracy of a fold is at the threshold that is best on the other nine.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import siamese
from siamese import faces, images, metrics
from siamese.data import Gallery, load
from siamese.datasets import Lfw
from siamese.loop import fit
from siamese.network import SiameseNetwork, distance
from siamese.pairs import score_all_pairs
from siamese.recipe import TrainConfig


def crops(lfw: Lfw, files: list[str]) -> dict[str, torch.Tensor]:
    """Return each photograph's face, (3, 150, 150) uint8; a photograph without one is left out."""
    result = {}
    for name, content in tqdm(lfw.read(files), total=len(files), unit=" images", desc="finding faces"):
        photo = images.read(content)
        if found := faces.find([photo])[0]:
            result[name] = images.to_tensor(faces.align(photo, found[0], 150))
    return result


def gallery_of(pixels: dict[str, torch.Tensor], without: set[str]) -> Gallery:
    """Return the photographs of all people but those in `without` who have at least two."""
    people: dict[str, list[str]] = {}
    for file in pixels:
        people.setdefault(file.partition("/")[0], []).append(file)
    kept = {name: files for name, files in people.items() if name not in without and len(files) > 1}
    identity = np.repeat(np.arange(len(kept)), [len(files) for files in kept.values()])
    return Gallery(torch.stack([pixels[file] for files in kept.values() for file in files]), identity, tuple(kept))


@torch.inference_mode()
def distances(network: SiameseNetwork, pixels: dict[str, torch.Tensor], pairs) -> np.ndarray:
    files = sorted({file for pair in pairs for file in pair[:2]} & pixels.keys())
    z = torch.cat(
        [network.eval().embed(torch.stack([pixels[f] for f in files[k : k + 64]])) for k in range(0, len(files), 64)]
    )
    row = {file: z[k] for k, file in enumerate(files)}
    return np.array([float(distance(row[a], row[b])) if {a, b} <= row.keys() else 2.0 for a, b, _ in pairs])


def judge(parts: list[np.ndarray], same: list[np.ndarray]) -> dict:
    accuracy = []
    for k in range(len(parts)):
        rest = [np.concatenate(column[:k] + column[k + 1 :]) for column in (parts, same)]
        accuracy.append(((parts[k] <= metrics.best_threshold(*rest)) == same[k]).mean())
    pooled = np.concatenate(parts), np.concatenate(same)
    return {
        "accuracy": float(np.mean(accuracy)),
        "accuracy_std": float(np.std(accuracy)),
        "auc": metrics.auc(*pooled),
        "eer": metrics.eer(*pooled),
        "tar_at_far_1e-3": metrics.tar_at_far(*pooled, 1e-3),
    }


def att(start: SiameseNetwork) -> dict:
    """Return the figures over all pairs of AT&T's five folds of people, before and after."""
    before, after, same = [], [], []
    for training, test in load("att", start.input_shape, "faces").folds(5):
        scored = score_all_pairs(start, test)
        before.append(scored.distance)
        after.append(score_all_pairs(tune(start, training), test).distance)
        same.append(scored.same)
    return {"before": judge(before, same), "after": judge(after, same)}


def tune(start: SiameseNetwork, gallery: Gallery) -> SiameseNetwork:
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(data="…", out=Path(folder), init="weights/faces")
        return fit(start, gallery, config, torch.device("cpu"), Path(folder, "fold.pt"), "fold").network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lfw, start = Lfw(args.data), siamese.load(device="cpu").network
    parts = lfw.folds()
    pixels = crops(lfw, sorted({file for part in parts for pair in part for file in pair[:2]}))
    before, after, same = [], [], []
    for part in parts:
        people = {file.partition("/")[0] for pair in part for file in pair[:2]}
        tuned = tune(start, gallery_of(pixels, people))
        before.append(distances(start, pixels, part))
        after.append(distances(tuned, pixels, part))
        same.append(np.array([pair.same for pair in part]))
    recipe = TrainConfig(data="…", out=Path(), init="weights/faces").recipe()
    lfw_figures = {"before": judge(before, same), "after": judge(after, same)}
    result = {"recipe": recipe, "att": att(start), "lfw": lfw_figures}
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
