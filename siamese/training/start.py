"""Choose what training starts from: the face network if the images show faces, else random weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from zipfile import Path as ZipPath

import numpy as np

from siamese import images
from siamese.data.folders import list_people
from siamese.faces.detection import find_faces
from siamese.training.config import TrainConfig
from siamese.training.output import unfinished_run

FACES = "weights/faces"
SAMPLE = 32  # images that are searched for a face
SAMPLE_SIDE = 320  # pixels; they are shrunk to it
MIN_SCORE = 0.95  # of the detector
MIN_SHARE = 0.5  # of the images of the sample, with a face


def choose_start(config: TrainConfig) -> TrainConfig:
    """Decide undecided settings by the images, and say how.

    If most images of a sample show a face, training starts from `FACES`, as with `--init weights/faces`. Else it starts
    from random weights, with the modern recipe. A resumed run starts as before.

    Args:
        config: inside `hold_output`.

    Raises:
        FileNotFoundError, ValueError: if the data cannot be listed, see `list_people`, or the settings do not fit.
    """
    if not config.undecided:
        return config
    if config.resume:
        return _start(config, faces=bool(unfinished_run(config.out)["init"]))
    with_face, count = count_faces(Path(config.data))
    faces = count > 0 and with_face / count >= MIN_SHARE
    found = f"{with_face} of {count} sampled images show a face"
    if faces:
        print(
            f"{found}, so training starts from the face network ({FACES}) and adapts it to your people. To train from "
            "scratch instead, add --recipe modern.",
            flush=True,
        )
    elif with_face:
        print(f"{found}, so training starts from scratch. To adapt the face network, add --init {FACES}.", flush=True)
    return _start(config, faces)


def count_faces(source: Path) -> tuple[int, int]:
    """Look for faces in a fixed random sample of a data set, spread over its people.

    Args:
        source: a folder or zip archive, see `list_people`.

    Returns:
        How many images show a face with a score of at least `MIN_SCORE`, and how many were searched: at most `SAMPLE`.
        Images that cannot be read are left out.
    """
    people = list_people(source)
    counts = np.array(people.counts)
    rng = np.random.default_rng(0)
    drawn = np.resize(rng.permutation(np.flatnonzero(counts)), SAMPLE if counts.any() else 0)
    first = counts.cumsum() - counts
    rows = np.unique(first[drawn] + rng.integers(counts[drawn]))
    person = np.repeat(np.arange(len(counts)), counts)
    with ThreadPoolExecutor() as readers:
        shown = list(readers.map(_shows_face, [people.folders[person[row]] / people.files[row] for row in rows]))
    return shown.count(True), len(shown) - shown.count(None)


def _shows_face(file: Path | ZipPath) -> bool | None:
    """Return whether an image shows a face; None if it cannot be read."""
    try:
        photo, _ = images.read_reduced(file, SAMPLE_SIDE)
    except (ValueError, FileNotFoundError):
        return None
    photo.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
    (faces,) = find_faces([photo])
    return any(face.score >= MIN_SCORE for face in faces)


def _start(config: TrainConfig, faces: bool) -> TrainConfig:
    if not faces:
        return replace(config, recipe="modern")
    unused = [f"--{name}" for name in ("lr", "margin", "flip") if getattr(config, name)]
    if unused and not config.epochs:
        raise ValueError(
            f"the face network is adapted without gradient descent, so remove {' and '.join(unused)}, or set "
            "--epochs, or use --recipe modern to train from scratch"
        )
    return replace(config, init=FACES)
