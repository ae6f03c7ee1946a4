"""Siamese networks: do two photos show the same person?"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from siamese.calibration import Calibration as Calibration
    from siamese.checkpoint import compare as compare
    from siamese.checkpoint import load as load
    from siamese.comparison import Comparison as Comparison
    from siamese.evaluation.import_onnx import import_onnx as import_onnx
    from siamese.faces import Face as Face
    from siamese.loss import contrastive_loss as contrastive_loss
    from siamese.model import Model as Model
    from siamese.network import SiameseNetwork as SiameseNetwork
    from siamese.network import distance as distance
    from siamese.search.find import find as find
    from siamese.search.people import group as group
    from siamese.training.run import train as train

# Imported on first use, so that `siamese --help` does not import PyTorch.
_MODULES = {
    "Calibration": "calibration",
    "Comparison": "comparison",
    "Face": "faces",
    "Model": "model",
    "SiameseNetwork": "network",
    "compare": "checkpoint",
    "contrastive_loss": "loss",
    "distance": "network",
    "find": "search.find",
    "group": "search.people",
    "import_onnx": "evaluation.import_onnx",
    "load": "checkpoint",
    "train": "training.run",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
