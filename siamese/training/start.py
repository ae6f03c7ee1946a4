"""Decide what training starts from and all settings that the user has left open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import Path as ZipPath

import numpy as np
import torch

from siamese import checkpoint, images
from siamese.data.folders import list_people
from siamese.distributed import run_on_main
from siamese.faces.detection import find_faces
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.record import Settings
from siamese.training.config import INIT_DEFAULTS, RECIPE_DEFAULTS, TrainConfig, check_minimum
from siamese.training.output import unfinished_run
from siamese.training.recipes import IMAGES_PER_PERSON, make_recipe

FACES = "weights/faces"
SAMPLED_IMAGES = 32  # that are searched for a face
SAMPLED_SIDE = 320  # pixels; these images are shrunk to it
MIN_SAMPLED_SCORE = 0.95  # of the detector
MIN_FACE_SHARE = 0.5  # of these images, with a face


def decide(config: TrainConfig) -> tuple[Settings, Model | None]:
    """Decide all settings, and load the model to start from, on the CPU; None to start from random weights.

    Without `recipe`, `init` and `align`, the images decide: if most images of a sample show a face, training starts
    from `FACES`, as with `--init weights/faces`, else from random weights, with the modern recipe.
    """
    recipe, init = run_on_main(partial(choose_start, config))
    settings = Settings(
        recipe=recipe,
        init=init,
        batch_size=config.batch_size,
        seed=config.seed,
        flip=config.flip,
        **{
            name: default if getattr(config, name) is None else getattr(config, name)
            for name, default in (INIT_DEFAULTS if init else RECIPE_DEFAULTS[recipe]).items()
        },
    )
    _check(settings)
    source = checkpoint.load(init, device="cpu") if init else None
    align = config.align or (source.align if source else "none")
    return replace(settings, align="faces" if align == "faces" else "none"), source


def choose_start(config: TrainConfig) -> tuple[str, str]:
    """Return the recipe and the weights to start from. A resumed run starts as before."""
    # A relative path could mean a Hub id in another working directory.
    init = str(Path(config.init).resolve()) if config.init and Path(config.init).is_dir() else config.init
    if config.recipe or init:
        return config.recipe or "modern", init
    if config.data == "att":
        return "tutorial", ""
    if config.align == "none":
        return "modern", ""
    faces = bool(unfinished_run(config.out)["init"]) if config.resume else _most_show_a_face(Path(config.data))
    if not faces:
        return "modern", ""
    unused = [f"--{name}" for name in ("lr", "margin", "flip") if getattr(config, name)]
    if unused and not config.epochs:
        raise ValueError(
            f"the face network is adapted without gradient descent, so remove {' and '.join(unused)}, or set "
            "--epochs, or use --recipe modern to train from scratch"
        )
    return "modern", FACES


def _check(settings: Settings) -> None:
    """Check the settings whose range depends on others, and those that exclude each other."""
    modern = settings.recipe == "modern"
    check_minimum("epochs", settings.epochs, 0 if settings.init else 1)
    check_minimum("batch_size", settings.batch_size, 2 * IMAGES_PER_PERSON if modern else 1)
    for name in ("init", "flip"):
        if getattr(settings, name) and not modern:
            raise ValueError(f"--{name} is not supported by the {settings.recipe} recipe; use --recipe modern")
    if settings.flip and not settings.epochs:
        raise ValueError("--flip has no effect with 0 epochs; remove it or set --epochs")


def initial_network(settings: Settings, source: Model | None) -> SiameseNetwork:
    """Return the network that training starts from, on the CPU."""
    if not source:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            return make_recipe(settings).network()
    if source.network.onnx:
        raise ValueError(f"{settings.init} was imported from an ONNX file, which cannot be trained; use weights/faces")
    if not source.network.unit:
        raise ValueError(
            f"{settings.init} was trained by the tutorial recipe, which --init does not support; use weights/faces, or "
            "a network of the modern recipe"
        )
    arguments: Any = source.network._hub_mixin_config
    network = SiameseNetwork(**arguments | {"whiten": True})
    network.load_state_dict(source.network.state_dict(), strict=False)  # the whitening layer may be new
    return network


# --- do the images show faces?


def _most_show_a_face(source: Path) -> bool:
    """Look for faces in a sample of the images, and print what follows from it."""
    with_face, count = count_faces(source)
    found = f"{with_face} of {count} sampled images show a face"
    if count and with_face / count >= MIN_FACE_SHARE:
        print(
            f"{found}, so training starts from the face network ({FACES}) and adapts it to your people. To train from "
            "scratch instead, add --recipe modern.",
            flush=True,
        )
        return True
    if with_face:
        print(f"{found}, so training starts from scratch. To adapt the face network, add --init {FACES}.", flush=True)
    return False


def count_faces(source: Path) -> tuple[int, int]:
    """Return how many images of a data set show a face, and how many were searched, without unreadable ones.

    The images are a fixed random sample of at most `SAMPLED_IMAGES`, spread over the people.
    """
    people = list_people(source)
    counts = np.array(people.counts)
    rng = np.random.default_rng(0)
    drawn = np.resize(rng.permutation(np.flatnonzero(counts)), SAMPLED_IMAGES if counts.any() else 0)
    first = counts.cumsum() - counts
    rows = np.unique(first[drawn] + rng.integers(counts[drawn]))
    person = np.repeat(np.arange(len(counts)), counts)
    with ThreadPoolExecutor() as readers:
        shown = list(readers.map(_shows_face, [people.folders[person[row]] / people.files[row] for row in rows]))
    return shown.count(True), len(shown) - shown.count(None)


def _shows_face(file: Path | ZipPath) -> bool | None:
    """Return whether an image shows a face; None if it cannot be read."""
    try:
        photo, _ = images.read_reduced(file, SAMPLED_SIDE)
    except (ValueError, FileNotFoundError):
        return None
    photo.thumbnail((SAMPLED_SIDE, SAMPLED_SIDE))
    (faces,) = find_faces([photo])
    return any(face.score >= MIN_SAMPLED_SCORE for face in faces)
