"""The settings of a training run; the defaults are the seed's, or with `init` those that fine-tune a face network."""

from dataclasses import dataclass, field
from pathlib import Path

FROM_SCRATCH = {"epochs": 100, "lr": 5e-4, "margin": 2.0, "freeze": 0}
FINE_TUNING = {"epochs": 10, "lr": 1e-5, "margin": 0.6, "freeze": 5}


def _either(name: str, text: str):
    """A setting whose default depends on whether training starts from weights."""
    text += f" (default: {FROM_SCRATCH[name]}; with --init {FINE_TUNING[name]})"
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
    init: str = field(default="", metadata={"help": "weights to start from: a result folder, or USER/NAME on the Hub"})
    align: str = field(
        default="",
        metadata={"help": "faces: find the face in each image and cut it out upright; none: take images whole; with "
                  "--init as those weights take them, else none"},
    )  # fmt: skip
    freeze: int = _either("freeze", "how many stages of the network, from the first, stay as they are")
    epochs: int = _either("epochs", "passes; each draws as many pairs as there are images")
    batch_size: int = field(default=64, metadata={"help": "pairs a step"})
    lr: float = _either("lr", "Adam's learning rate")
    margin: float = _either("margin", "impostors further apart than this cost nothing")
    seed: int = field(default=0, metadata={"help": "of the first weights and of the pairs"})
    folds: int = field(
        default=0,
        metadata={"help": "also train this many networks, each tested on a share of the people that it has not seen, "
                  "and calibrate on those"},
    )  # fmt: skip
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps …"})
    resume: bool = field(default=False, metadata={"help": "go on with the unfinished run in the result folder"})
    overwrite: bool = field(default=False, metadata={"help": "start anew, replacing what the result folder holds"})

    def __post_init__(self):
        for name, default in (FINE_TUNING if self.init else FROM_SCRATCH).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("folds", 0), ("freeze", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("lr", "margin"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.folds == 1:
            raise ValueError("folds must be 0 (none) or at least 2, got 1")
        if self.align not in ("faces", "none", ""):
            raise ValueError(f"align must be faces or none, got {self.align!r}")
        if self.freeze and not self.init:
            raise ValueError("freeze keeps stages of trained weights as they are: name the weights with init")
        if self.resume and self.overwrite:
            raise ValueError("choose one of resume and overwrite")

    def recipe(self) -> dict:
        """Return the settings that decide the result, without where and on what it is computed."""
        names = ("epochs", "batch_size", "lr", "margin", "seed")
        if self.init:
            names += ("init", "freeze")
        if self.align and (self.init or self.align != "none"):
            names += ("align",)
        return {name: getattr(self, name) for name in names}
