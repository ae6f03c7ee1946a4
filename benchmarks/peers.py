"""Telling faces apart, side by side with what pip can install: LFW's 6,000 pairs, and the time of an answer.

    pip install dlib-bin 'setuptools<81' face-recognition-models && pip install --no-deps face-recognition
    python benchmarks/peers.py --data DIR --json benchmarks/results/peers.json

DIR holds LFW (see `Lfw`). face_recognition is asked with its defaults (HOG detector, Euclidean
distance), for the face nearest to the middle. "raw pixels" and the AT&T network see the head in the middle of the
photograph, in gray. All are judged by the standard protocol: each fold at the threshold that is best on the other nine;
a pair with a face not found counts as "different". Embeddings are kept, so that it can be stopped and started again;
face_recognition takes half an hour.

The time is that from two files of 250 × 250 to the answer, models loaded, the systems taking turns.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import face_recognition
import numpy as np
from PIL import Image

import siamese
from siamese import images
from siamese.data.sources import Lfw, cache_folder
from siamese.evaluation.evaluate import evaluate_lfw, judge_lfw
from siamese.model import Model
from siamese.network import bundled_weights

HEAD = (64, 50, 187, 200)  # of 250 × 250: about the framing, and the proportions, of the AT&T portraits
TURNS = 40


def embed_each(name: str, files: dict[str, bytes], embed: Callable[[bytes], np.ndarray]) -> dict[str, np.ndarray]:
    """Embed photographs one by one, keeping them every 100."""
    kept = cache_folder() / "peers" / f"{name}.npz"
    known = dict(np.load(kept)) if kept.exists() else {}
    for number, (file, content) in enumerate(files.items()):
        if file not in known:
            known[file] = embed(content)
        if number % 100 == 99 or number == len(files) - 1:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept.with_suffix(".part.npz"), **known)
            os.replace(kept.with_suffix(".part.npz"), kept)
    return {file: known[file] for file in files}


def pixels(content: bytes) -> np.ndarray:
    """Return 100 × 100 gray pixels, of mean 0 and length 1."""
    values = np.asarray(images.fit(images.read(content).crop(HEAD), (1, 100, 100)), dtype=np.float32).ravel()
    values = values - values.mean()
    return values / np.linalg.norm(values)


def dlib_embedding(photo: np.ndarray) -> np.ndarray:
    """Return face_recognition's encoding of the face nearest to the middle; NaN where it finds none."""
    height, width, _ = photo.shape
    found = face_recognition.face_locations(photo)  # top, right, bottom, left
    if not found:
        return np.full(128, np.nan, dtype=np.float32)
    middle = min(found, key=lambda box: math.hypot(box[0] + box[2] - height, box[1] + box[3] - width))
    return face_recognition.face_encodings(photo, [middle])[0].astype(np.float32)


def seconds(ask: Callable, pair: tuple[str, str]) -> float:
    began = time.perf_counter()
    ask(*pair)
    return time.perf_counter() - began


def speeds(model: Model, lfw: Lfw, folder: Path) -> dict[str, float]:
    """Return the median seconds of an answer, over pairs of LFW and over two photographs of 12 megapixels."""

    def theirs(first: str, second: str) -> float:
        a, b = (dlib_embedding(face_recognition.load_image_file(file)) for file in (first, second))
        return float(np.linalg.norm(a - b))

    pairs = lfw.folds()[0][:: 600 // TURNS]
    contents = dict(lfw.read({file for pair in pairs for file in pair[:2]}))
    for file, content in contents.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    paths = [(str(folder / pair.first), str(folder / pair.second)) for pair in pairs]
    large = tuple(str(folder / f"{number}.jpg") for number in (1, 2))
    for file, path in zip(large, paths[0], strict=True):
        Image.open(path).resize((4000, 3000), Image.Resampling.LANCZOS).save(file, quality=92)

    for ask in (model.compare, theirs):
        for pair in paths[:3]:
            ask(*pair)
    ours, other = zip(*((seconds(model.compare, pair), seconds(theirs, pair)) for pair in paths), strict=True)
    return {
        "ours": median(ours),
        "face_recognition": median(other),
        "times_faster": round(median(other) / median(ours), 1),
        "ours_12_megapixels": median(seconds(model.compare, large) for _ in range(10)),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lfw = Lfw(args.data)
    parts = lfw.folds()
    files = dict(lfw.read({file for part in parts for pair in part for file in pair[:2]}))
    faces, att = siamese.load(), siamese.load(bundled_weights("att"))

    with tempfile.TemporaryDirectory() as folder:
        timing = speeds(faces, lfw, Path(folder))
    heads = embed_each("att", files, lambda content: att.embed([images.read(content).crop(HEAD)])[0])
    embeddings = {
        "face_recognition": embed_each("dlib", files, lambda content: dlib_embedding(np.asarray(images.read(content)))),
        "AT&T network": heads,
        "raw pixels": embed_each("pixels", files, pixels),
    }
    systems = {"siamese": evaluate_lfw(faces, lfw).record["folds"]}
    systems |= {name: judge_lfw(z, parts)[0]["folds"] for name, z in embeddings.items()}
    result = {"speed": timing, "systems": {name: {**folds, "each": None} for name, folds in systems.items()}}

    print("| | accuracy on LFW | AUC | EER | TMR at FMR 1e-3 | calibration error | faces not found |")
    print("|---|---|---|---|---|---|---|")
    for name, folds in systems.items():
        pooled = folds["pooled"]
        print(
            f"| {name} | {folds['accuracy']:.2%} ± {folds['accuracy_std']:.2%} "
            f"| {pooled['auc']:.4f} | {pooled['eer']:.2%} "
            f"| {pooled['tmr_at_fmr_1e_3']:.1%} | {pooled['calibration_error']:.1%} | {folds['without_face']} |"
        )
    print(json.dumps(timing))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
