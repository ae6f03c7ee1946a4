"""Decide what training starts from and all settings that the user has left open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import Path as ZipPath

import numpy as np
import torch

from siamese import checkpoint, images
from siamese.checkpoint import pick_device
from siamese.data.att import find_att
from siamese.data.folders import list_people
from siamese.distributed import is_main_process, run_on_main
from siamese.faces.detection import find_faces
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.record import Settings
from siamese.training.candidates import measure
from siamese.training.config import (
    FACES,
    FINETUNE_DEFAULTS,
    IMAGES,
    INIT_DEFAULTS,
    RECIPE_DEFAULTS,
    TIMM,
    TrainConfig,
    check_minimum,
)
from siamese.training.output import unfinished_run
from siamese.training.recipes import IMAGES_PER_PERSON, make_recipe

SAMPLED_IMAGES = 32  # that are searched for a face
SAMPLED_SIDE = 320  # pixels; these images are shrunk to it
MIN_SAMPLED_SCORE = 0.95  # of the detector
MIN_FACE_SHARE = 0.5  # of these images, with a face
CLEARLY_BETTER = 0.8  # of the error of the image network: few classes measure it, and it is the safer start
TRAINED_ONLY = ("epochs", "lr", "margin", "flip", "embedding_dim")  # settings of gradient descent
FINETUNED_DIM = 256
FINETUNED_SIZES = {"cpu": 128, "cuda": 224, "mps": 224}


class Start(NamedTuple):
    """What training starts from."""

    recipe: str
    init: str  # weights, or a network of timm; empty for random weights
    turned: bool = False  # see `Settings`


def decide(config: TrainConfig, progress: bool = True) -> tuple[Settings, Model | None]:
    """Decide all settings, and load the model to start from, on the CPU; None for other networks.

    What the user leaves open, the images decide. If most images of a sample show a face, training starts from `FACES`,
    as with `--init weights/faces`. Otherwise two candidates are measured, see `candidates.measure`: `IMAGES` with a
    whitening layer, and a network that is trained from scratch.
    """
    # A relative path could mean a Hub id in another working directory.
    init = str(Path(config.init).resolve()) if config.init and Path(config.init).is_dir() else config.init
    init = init or config.backbone
    if init or config.recipe == "tutorial" or (config.data == "att" and not (config.recipe or config.finetune)):
        return _settings(config, Start(config.recipe or ("modern" if init else "tutorial"), init))
    if config.resume:
        return _settings(config, Start("modern", *unfinished_run(config.out)["start"]))
    # A turned face is no further person.
    faces = config.align != "none" and not (config.recipe and config.flip) and run_on_main(partial(show_faces, config))
    scratch = Start("modern", "", turned=not (faces or config.flip))
    if config.recipe:
        return _settings(config, scratch)
    if faces:
        unused = [f"--{name}" for name in ("lr", "margin", "flip") if getattr(config, name)]
        if unused and not (config.epochs or config.finetune):
            raise ValueError(
                f"the face network is adapted without gradient descent, so remove {' and '.join(unused)}, or set "
                "--epochs, or use --recipe modern to train from scratch"
            )
        return _settings(config, Start("modern", FACES))
    if config.finetune:
        return _settings(config, Start("modern", IMAGES))
    if any(getattr(config, name) not in (None, False) for name in TRAINED_ONLY):
        return _settings(config, scratch)
    return _settings(config, _better(config, scratch, progress))


def _better(config: TrainConfig, scratch: Start, progress: bool) -> Start:
    """Measure what to start from, and say it."""
    image = Start("modern", IMAGES)
    frozen, source = _settings(config, image)
    trained, _ = _settings(config, scratch)
    errors = measure(
        Path(config.data),
        (frozen, initial_network(frozen, source)),
        (trained, initial_network(trained, None)),
        pick_device(config.device),
        progress,
    )
    better = scratch if errors and errors[1] < CLEARLY_BETTER * errors[0] else image
    if is_main_process():
        what = f"starts from the image network ({IMAGES})" if better is image else "starts from scratch"
        measured = (
            "There are too few classes to measure what is better"
            if errors is None
            else (
                f"On {errors[2]} classes for validation, the image network has an equal error rate of {errors[0]:.1%}, "
                f"and a network that was trained from scratch for a short time {errors[1]:.1%}"
            )
        )
        print(
            f"{measured}, so training {what}. To decide yourself, add --init {IMAGES} or --recipe modern.", flush=True
        )
    return better


def _settings(config: TrainConfig, start: Start) -> tuple[Settings, Model | None]:
    """Return the settings of a start, and the model to start from."""
    timm = start.init.startswith(TIMM)
    source = checkpoint.load(start.init, device="cpu") if start.init and not timm else None
    align = config.align or (source.align if source else "none")
    tunes_images = bool(config.finetune and start.init and align == "none")
    defaults = FINETUNE_DEFAULTS if tunes_images else INIT_DEFAULTS if start.init else RECIPE_DEFAULTS[start.recipe]
    given = {name: getattr(config, name) for name in defaults}
    if config.finetune and not tunes_images:
        given["epochs"] = config.epochs or FINETUNE_DEFAULTS["epochs"]
    settings = Settings(
        recipe=start.recipe,
        init=start.init,
        batch_size=config.batch_size,
        seed=config.seed,
        flip=config.flip,
        align="faces" if align == "faces" else "none",
        turned=start.turned,
        image_size=config.image_size or (FINETUNED_SIZES[pick_device(config.device).type] if tunes_images else 0),
        embedding_dim=config.embedding_dim or (FINETUNED_DIM if tunes_images else 0),
        **{name: default if given[name] is None else given[name] for name, default in defaults.items()},
    )
    _check(settings)
    return settings, source


def _check(settings: Settings) -> None:
    """Check the settings whose range depends on others, and those that exclude each other."""
    modern = settings.recipe == "modern"
    check_minimum("epochs", settings.epochs, 0 if settings.init else 1)
    check_minimum("batch_size", settings.batch_size, 2 * IMAGES_PER_PERSON if modern else 1)
    for name in ("init", "flip", "image_size", "embedding_dim"):
        if getattr(settings, name) and not modern:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is not supported by the {settings.recipe} recipe; use --recipe modern")
    for name in ("flip", "embedding_dim"):
        if getattr(settings, name) and not settings.epochs:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} has no effect with 0 epochs; remove it, add --finetune or set --epochs")


def initial_network(settings: Settings, source: Model | None) -> SiameseNetwork:
    """Return the network that training starts from, on the CPU.

    The whitening layer of published weights was fitted to other data. It is left out, and so are layers of another
    shape, such as the last one if `embedding_dim` is set.
    """
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        if not settings.init:
            return make_recipe(settings).network()
        if not source:
            return _timm_network(settings)
        if source.network.onnx:
            raise ValueError(
                f"{settings.init} was imported from an ONNX file, which cannot be trained; use weights/faces"
            )
        if not source.network.unit:
            raise ValueError(
                f"{settings.init} was trained by the tutorial recipe, which --init does not support; use "
                "weights/faces, weights/images or a network of the modern recipe"
            )
        arguments: Any = source.network._hub_mixin_config
        arguments = arguments | {"whiten": True}
        arguments |= {name: size for name in ("image_size", "embedding_dim") if (size := getattr(settings, name))}
        network = SiameseNetwork(**arguments)
    published = source.record.settings is None
    shapes = {name: weight.shape for name, weight in network.state_dict().items()}
    kept = {
        name: weight
        for name, weight in source.network.state_dict().items()
        if weight.shape == shapes.get(name) and not (published and name.startswith("whitening."))
    }
    network.load_state_dict(kept, strict=False)
    return network


def starts_as(source: Model, network: SiameseNetwork, settings: Settings) -> bool:
    """Return whether a network that training starts from embeds images as the model that it comes from."""
    weights = network.state_dict()
    return (
        settings.align == source.align
        and network.input_shape == source.network.input_shape
        and all(torch.equal(weight, weights[name]) for name, weight in source.network.state_dict().items())
    )


def _timm_network(settings: Settings) -> SiameseNetwork:
    """Return a network of timm with its pretrained weights, in the precision that a result has."""
    from siamese.timm_backbone import TimmBackbone, number_of_features

    dim = settings.embedding_dim or number_of_features(settings.init)
    size = settings.image_size or None
    network = SiameseNetwork(settings.init, dim, unit=True, whiten=True, image_size=size)
    assert isinstance(network.backbone, TimmBackbone)
    network.backbone.load_pretrained()
    return network.half().float()


# --- do the images show faces?


def show_faces(config: TrainConfig) -> bool:
    """Return whether most images of a sample show a face, and print what follows from it."""
    with_face, count = count_faces(find_att() if config.data == "att" else Path(config.data))
    found = f"{with_face} of {count} sampled images show a face"
    faces = bool(count) and with_face / count >= MIN_FACE_SHARE
    if faces and not config.recipe:
        print(
            f"{found}, so training starts from the face network ({FACES}) and adapts it to your people. To train from "
            "scratch instead, add --recipe modern.",
            flush=True,
        )
    elif faces:
        print(f"{found}, so turned images are not used as further classes.", flush=True)
    elif with_face:
        print(f"{found}, which is too few to adapt the face network. To adapt it, add --init {FACES}.", flush=True)
    return faces


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
