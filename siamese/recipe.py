"""The settings of a training run; the defaults are the seed's."""

from dataclasses import dataclass, field
from pathlib import Path


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
    epochs: int = field(default=100, metadata={"help": "passes; each draws as many pairs as there are images"})
    batch_size: int = field(default=64, metadata={"help": "pairs a step"})
    lr: float = field(default=5e-4, metadata={"help": "Adam's learning rate"})
    margin: float = field(default=2.0, metadata={"help": "impostors further apart than this cost nothing"})
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
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("folds", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("lr", "margin"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.folds == 1:
            raise ValueError("folds must be 0 (none) or at least 2, got 1")
        if self.resume and self.overwrite:
            raise ValueError("choose one of resume and overwrite")

    def recipe(self) -> dict:
        """Return the settings that decide the result, without where and on what it is computed."""
        return {name: getattr(self, name) for name in ("epochs", "batch_size", "lr", "margin", "seed")}
