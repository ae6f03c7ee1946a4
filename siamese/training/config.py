"""What a training run is asked to do, and the defaults of its settings. The command line imports no more than this."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The defaults that depend on the recipe, and those with --init. The keys are the names of the recipes.
RECIPE_DEFAULTS: dict[str, dict[str, Any]] = {
    "tutorial": {"epochs": 100, "lr": 5e-4, "margin": 2.0},
    "modern": {"epochs": 8, "lr": 2e-3, "margin": 1.3},
}
INIT_DEFAULTS: dict[str, Any] = {"epochs": 0, "lr": 1e-5, "margin": 0.6}
FINETUNE_DEFAULTS: dict[str, Any] = {"epochs": 8, "lr": 1e-3, "margin": 1.3}
FACES, IMAGES = "weights/faces", "weights/images"  # which most data sets start from
TIMM = "timm/"  # `siamese.network.TIMM`; importing that takes a second


def _setting(default: Any, help: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


def _recipe_setting(name: str, kind: type, help: str) -> Any:
    defaults = [f"{recipe} {values[name]}" for recipe, values in RECIPE_DEFAULTS.items()]
    defaults += [f"with --init {INIT_DEFAULTS[name]}", f"with --finetune {FINETUNE_DEFAULTS[name]}"]
    return _setting(None, f"{help} (default: {', '.join(defaults)})", type=kind)


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, where to write the result, and how to train, as the user asks for it.

    The fields are the options of `siamese train`, with these help texts. `start.decide` decides what is left open.
    """

    data: str
    out: Path
    recipe: str = _setting(
        "",
        "tutorial: random pairs, as in the tutorial; modern: all pairs of augmented images, harder pairs weighted more "
        "(default: tutorial for att, else modern)",
    )
    init: str = _setting(
        "",
        "weights to start from: a result folder, weights/faces, weights/images, or USER/NAME on the Hub (default: the "
        "images decide, unless there is a --recipe)",
    )
    backbone: str = _setting(
        "", "timm/NAME: start from a network of timm, with its pretrained weights from the Hub; needs the extra timm"
    )
    finetune: bool = _setting(
        False, "also train the layers of the pretrained network, not only the whitening layer; better, but slower"
    )
    align: str = _setting(
        "",
        "faces: detect, crop and rotate the face in each image; none: use whole images (default: as the weights of "
        "--init, else none)",
    )
    epochs: int | None = _recipe_setting(
        "epochs",
        int,
        "passes over the images; tutorial: over as many pairs; 0, with --init: only fit the whitening layer",
    )
    batch_size: int = _setting(64, "pairs per step; modern: images per step")
    lr: float | None = _recipe_setting("lr", float, "learning rate of Adam; modern: its peak")
    margin: float | None = _recipe_setting("margin", float, "impostor pairs further apart than this have zero loss")
    flip: bool = _setting(
        False, "modern only: treat an image and its mirror image as the same; right for faces, wrong for digits"
    )
    image_size: int | None = _setting(
        None,
        "height and width of the network's input (default: the network's own; with --finetune 128 on a CPU and 224 on "
        "a GPU)",
        type=int,
    )
    embedding_dim: int | None = _setting(
        None, "length of an embedding that is trained (default: modern 512, with --finetune 256)", type=int
    )
    seed: int = _setting(0, "seed for the held-out classes, the initial weights and the batches")
    folds: int = _setting(
        0, "cross-validation: train one more network per fold of classes, and calibrate on the classes it has not seen"
    )
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1, mps")
    tensorboard: bool = _setting(
        False,
        "write loss, learning rate, images per second and validation error of each epoch to tensorboard/ in the "
        "result folder",
    )
    resume: bool = _setting(False, "continue the unfinished run in the result folder")
    overwrite: bool = _setting(False, "start a new run, and replace the result in the result folder")

    def __post_init__(self) -> None:
        for name, choices in (("recipe", (*RECIPE_DEFAULTS, "")), ("align", ("faces", "none", ""))):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be {' or '.join(filter(None, choices))}, got {value!r}")
        for name in ("lr", "margin"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name in ("seed", "folds"):
            check_minimum(name, getattr(self, name), 0)
        if self.backbone and (self.init or not self.backbone.startswith(TIMM)):
            raise ValueError("--backbone must be timm/NAME, without --init")
        if self.finetune and self.recipe and not (self.init or self.backbone):
            raise ValueError(f"--recipe {self.recipe} trains from scratch; remove it or --finetune, or add --init")
        if self.folds == 1:
            raise ValueError("folds must be 0 (none) or at least 2, got 1")
        if self.resume and self.overwrite:
            raise ValueError("choose one of --resume and --overwrite")


def check_minimum(name: str, value: int, least: int) -> None:
    """Raise a ValueError if a setting is below `least`."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
