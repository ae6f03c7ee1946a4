"""The settings of a training run, and their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siamese.record import Settings

DEFAULTS: dict[str, dict[str, Any]] = {
    "tutorial": {"epochs": 100, "lr": 5e-4, "margin": 2.0},
    "modern": {"epochs": 8, "lr": 2e-3, "margin": 1.3},
    "init": {"epochs": 0, "lr": 1e-5, "margin": 0.6},  # with --init
}


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


def _recipe_setting(name: str, help: str) -> Any:
    tutorial, modern, init = (defaults[name] for defaults in DEFAULTS.values())
    return _setting(None, f"{help} (default: tutorial {tutorial}, modern {modern}, with --init {init})")


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, where to write the result, and how to train.

    The command line generates its flags from the fields of this class. The help text of each field describes it.
    Without `recipe` and `init`, some data must be looked at to choose them; until then the settings are undecided.

    Attributes:
        data: "att", or a folder or zip with one folder of images per person, see `load_dataset`.
        out: the result folder.

    Raises:
        ValueError: if a setting is out of range, or does not fit the others.
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
        "weights to start from: a result folder, weights/faces, or USER/NAME on the Hub (default: weights/faces if "
        "most images show a face and there is no --recipe, else none)",
    )
    align: str = _setting(
        "",
        "faces: detect, crop and rotate the face in each image; none: use whole images (default: as the weights of "
        "--init, else none)",
    )
    epochs: int = _recipe_setting(
        "epochs", "passes over the images; tutorial: over as many pairs; 0, with --init: only fit the whitening layer"
    )
    batch_size: int = _setting(64, "pairs per step; modern: images per step")
    lr: float = _recipe_setting("lr", "learning rate of Adam; modern: its peak")
    margin: float = _recipe_setting("margin", "impostor pairs further apart than this have zero loss")
    flip: bool = _setting(
        False, "modern only: treat an image and its mirror image as the same; right for faces, wrong for digits"
    )
    seed: int = _setting(0, "seed for the held-out people, the initial weights and the batches")
    folds: int = _setting(
        0, "cross-validation: train one more network per fold of people, and calibrate on the people it has not seen"
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
        if not self.recipe and (self.init or self.data == "att" or self.align == "none"):
            self._set("recipe", "tutorial" if self.data == "att" and not self.init else "modern")
        self._check_choices()
        if self.undecided:
            return
        for name, default in DEFAULTS["init" if self.init else self.recipe].items():
            if getattr(self, name) is None:
                self._set(name, default)
        if self.init and Path(self.init).is_dir():  # a relative path could mean a Hub id in another working directory
            self._set("init", str(Path(self.init).resolve()))
        self._check_ranges()
        self._check_combinations()

    @property
    def undecided(self) -> bool:
        """Whether the images decide what to start from, see `choose_start`. The other defaults are not set yet."""
        return not self.recipe

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen

    def _check_choices(self) -> None:
        """Check the settings that do not depend on what training starts from."""
        for name, choices in (("recipe", ("", "tutorial", "modern")), ("align", ("", "faces", "none"))):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be {' or '.join(filter(None, choices))}, got {value!r}")
        if self.resume and self.overwrite:
            raise ValueError("choose one of --resume and --overwrite")

    def _check_ranges(self) -> None:
        """Check the numbers."""
        minimum = {
            "epochs": 0 if self.init else 1,
            "batch_size": 8 if self.recipe == "modern" else 1,  # two people of four images
            "seed": 0,
            "folds": 0,
        }
        for name, least in minimum.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("lr", "margin"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.folds == 1:
            raise ValueError("folds must be 0 (none) or at least 2, got 1")

    def _check_combinations(self) -> None:
        """Check the settings that exclude each other."""
        if self.recipe == "tutorial":
            for name in ("init", "flip"):
                if getattr(self, name):
                    raise ValueError(f"--{name} is not supported by the tutorial recipe; use --recipe modern")
        if self.flip and not self.epochs:
            raise ValueError("--flip has no effect with 0 epochs; remove it or set --epochs")

    def settings(self) -> Settings:
        """Return the settings that decide the result: all but where and on which device to compute it."""
        from siamese.record import Settings  # imports pydantic

        return Settings(
            recipe=self.recipe,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            margin=self.margin,
            seed=self.seed,
            flip=self.flip,
            init=self.init,
            align="faces" if self.align == "faces" else "none",
        )
