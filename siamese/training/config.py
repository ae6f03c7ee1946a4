"""The settings of a training run, with defaults for each recipe, and for one that starts from trained weights."""

from dataclasses import dataclass, field
from pathlib import Path

DEFAULTS = {
    "tutorial": {"epochs": 100, "lr": 5e-4, "margin": 2.0, "freeze": 0},
    "modern": {"epochs": 8, "lr": 2e-3, "margin": 1.3, "freeze": 0},
    "init": {"epochs": 0, "lr": 1e-5, "margin": 0.6, "freeze": 5},
}


def _by_recipe(name: str, text: str):
    """A setting whose default depends on the recipe, and on whether training starts from weights."""
    text += " (default: seed {}, strong {}, with --init {})".format(*(of[name] for of in DEFAULTS.values()))
    return field(default=None, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, where to write, and how.

    Attributes:
        data: "att", or a folder or zip with one folder of images per person, see `data.load`.
        out: the result folder.
        others: see the help beside each; the command line takes its flags from here.

    Raises:
        ValueError: for a setting out of range, before anything is read or written.
    """

    data: str
    out: Path
    recipe: str = field(
        default="",
        metadata={"help": "seed: random pairs, as in the tutorial; strong: all pairs of varied images, the hard ones "
                  "weighing most (default: seed for att, else strong)"},
    )  # fmt: skip
    init: str = field(
        default="",
        metadata={"help": "weights to start from: what `siamese train` wrote, weights/faces, or USER/NAME on the Hub"},
    )
    align: str = field(
        default="",
        metadata={"help": "faces: find the face in each image and cut it out upright; none: take images whole; with "
                  "--init as those weights take them, else none"},
    )  # fmt: skip
    freeze: int = _by_recipe("freeze", "how many stages of the network, from the first, stay as they are")
    epochs: int = _by_recipe(
        "epochs", "passes over the images, or over as many pairs; 0, with --init, only fits a last layer to the people"
    )
    batch_size: int = field(default=64, metadata={"help": "pairs a step; strong: images"})
    lr: float = _by_recipe("lr", "Adam's learning rate; strong: its peak")
    margin: float = _by_recipe("margin", "impostors further apart than this cost nothing")
    flip: bool = field(
        default=False,
        metadata={"help": "strong only: a thing and its mirror image are the same, as faces are and digits are not"},
    )
    seed: int = field(default=0, metadata={"help": "decides who is held out, the first weights and the batches"})
    folds: int = field(
        default=0,
        metadata={"help": "also train this many networks, each tested on a share of the people that it has not seen, "
                  "and calibrate on those"},
    )  # fmt: skip
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps …"})
    tensorboard: bool = field(
        default=False,
        metadata={"help": "write loss, learning rate, images per second and validation error of each epoch to "
                  "tensorboard/ in the result folder, a run for each network"},
    )  # fmt: skip
    resume: bool = field(default=False, metadata={"help": "go on with the unfinished run in the result folder"})
    overwrite: bool = field(default=False, metadata={"help": "start anew, replacing what the result folder holds"})

    def __post_init__(self):
        if not self.recipe:
            object.__setattr__(self, "recipe", "tutorial" if self.data == "att" and not self.init else "modern")
        if self.recipe not in ("tutorial", "modern"):
            raise ValueError(f"recipe must be seed or strong, got {self.recipe!r}")
        if self.flip and self.recipe != "modern":
            raise ValueError("the seed's recipe varies no image: leave out flip, or take the strong recipe")
        if self.init and self.recipe != "modern":
            raise ValueError("the seed's recipe begins from nothing: leave out init, or take the strong recipe")
        if self.init and Path(self.init).is_dir():  # else it could be taken for an id on the Hub, seen from elsewhere
            object.__setattr__(self, "init", str(Path(self.init).resolve()))
        for name, default in DEFAULTS["init" if self.init else self.recipe].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        least = {"epochs": 0 if self.init else 1, "batch_size": 1, "seed": 0, "folds": 0, "freeze": 0}
        if self.recipe == "modern":
            least["batch_size"] = 8  # two people
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}, got {getattr(self, name)}")
        for name in ("lr", "margin"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.folds == 1:
            raise ValueError("folds must be 0 (none) or at least 2, got 1")
        if self.align not in ("faces", "none", ""):
            raise ValueError(f"align must be faces or none, got {self.align!r}")
        if self.flip and self.init and (self.freeze or not self.epochs):
            raise ValueError(
                "with init and frozen stages no image is varied: leave out flip, or set epochs and freeze 0"
            )
        if self.freeze and not self.init:
            raise ValueError("freeze keeps stages of trained weights as they are: name the weights with init")
        if self.resume and self.overwrite:
            raise ValueError("choose one of resume and overwrite")

    def settings(self) -> dict:
        """Return the settings that decide the result, without where and on what it is computed."""
        names = ("recipe", "epochs", "batch_size", "lr", "margin", "seed")
        if self.recipe == "modern":
            names += ("flip",)
        if self.init:
            names += ("init", "freeze")
        if self.align and (self.init or self.align != "none"):
            names += ("align",)
        return {name: getattr(self, name) for name in names}
