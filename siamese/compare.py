"""Two pictures → how unlike they are, what that means, and how sure it is."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
)
from PIL import Image

from siamese import images
from siamese.calibrate import Calibration
from siamese.network import SiameseNetwork, distance, pick_device

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "weights" / "att"
if not WEIGHTS.is_dir():  # installed: the weights are inside the package
    WEIGHTS = HERE / "weights" / "att"

# Beyond three to one either way the verdict is given; between, it is "unsure".
SURE = 0.75

Verdict = Literal["same", "unsure", "different"]


@dataclass(frozen=True)
class Face:
    """What the network saw of one picture.

    Attributes:
        crop: the image at the network's input size, "L" or "RGB".
        box, landmarks, angle: where in the picture it was found; None for plain images, which are taken whole.
    """

    crop: Image.Image
    box: tuple[float, float, float, float] | None = None
    landmarks: tuple[tuple[float, float], ...] | None = None
    angle: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The answer for two pictures.

    Attributes:
        dissimilarity: Euclidean distance of the two embeddings, ≥ 0; lower is more alike.
        threshold: the distance at which same and different are equally likely.
        probability: P(same) in [0, 1] if both were equally likely beforehand.
        verdict: "same" or "different" where the odds are at least three to one, else "unsure".
        faces: what the network saw of each.
        warnings: sentences for the person who asked; often none.
    """

    dissimilarity: float
    threshold: float
    probability: float
    verdict: Verdict
    faces: tuple[Face, Face]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """Return the answer as JSON holds it: all but the crops."""
        return {
            "dissimilarity": self.dissimilarity,
            "threshold": self.threshold,
            "probability": self.probability,
            "verdict": self.verdict,
            "faces": [{"box": f.box, "landmarks": f.landmarks, "angle": f.angle} for f in self.faces],
            "warnings": list(self.warnings),
        }


class Model:
    """A trained network with its calibration; made by `load`, safe to share between threads.

    Attributes:
        network: the network, in evaluation mode.
        calibration: distance → P(same).
        record: the contents of its metrics.json: what it was trained on and how well it does.
        name: the folder or Hub id that it came from.
    """

    def __init__(self, network: SiameseNetwork, calibration: Calibration, record: dict, name: str):
        self.network, self.calibration, self.record, self.name = network.eval(), calibration, record, name

    def embed(self, pictures: Iterable[images.ImageSource]) -> np.ndarray:
        """Turn pictures into embeddings; the Euclidean distance of two rows is the dissimilarity of the pictures.

        Args:
            pictures: N paths, PIL images or uint8 arrays, see `images.read`.

        Returns:
            (N, D) float32.

        Raises:
            FileNotFoundError, ValueError: for a picture that cannot be read.
        """
        return self._embed([self._look(picture) for picture in pictures]).numpy()

    def compare(self, a: images.ImageSource, b: images.ImageSource) -> Comparison:
        """Compare two pictures.

        Args:
            a: a path, PIL image or uint8 array, see `images.read`.
            b: the other; the order does not matter.

        Raises:
            FileNotFoundError, ValueError: for a picture that cannot be read; the sentence says what is wrong with it.
        """
        crops = self._look(a), self._look(b)
        dissimilarity = float(distance(*self._embed(crops)))
        probability = float(self.calibration.probability(dissimilarity))
        verdict = "same" if probability >= SURE else "different" if probability <= 1 - SURE else "unsure"
        warnings = ("Both pictures are the same image.",) if crops[0].tobytes() == crops[1].tobytes() else ()
        faces = tuple(Face(crop) for crop in crops)
        return Comparison(dissimilarity, self.calibration.threshold, probability, verdict, faces, warnings)

    def _look(self, picture: images.ImageSource) -> Image.Image:
        return images.fit(images.read(picture), self.network.input_shape)

    @torch.inference_mode()
    def _embed(self, crops) -> torch.Tensor:
        shape = (0, *self.network.input_shape)
        x = torch.stack([images.to_tensor(crop) for crop in crops]) if crops else torch.empty(shape, dtype=torch.uint8)
        return torch.cat([self.network.embed(part.to(self.network.device)).float().cpu() for part in x.split(256)])


def load(weights: str | Path = WEIGHTS, *, revision: str | None = None, device: str = "auto") -> Model:
    """Load a trained network.

    Args:
        weights: a result folder, or the id USER/NAME of one on the Hugging Face Hub; default: the repository's own.
        revision: of a Hub repository: a branch, tag or commit.
        device: "auto" for the best there is, or any name that PyTorch knows.

    Raises:
        FileNotFoundError: where there is neither such a folder nor such a repository.
        ValueError: where it does not hold a whole, known network with its calibration.
        ConnectionError: where the Hub cannot be reached and holds no copy here.
    """
    device = pick_device(device)
    name = str(weights)
    if not Path(weights).is_dir() and (isinstance(weights, Path) or name.count("/") != 1):
        raise FileNotFoundError(f"there is no folder {name}, and a model on the Hub is named USER/NAME")
    try:
        config, record = (
            json.loads(_file(name, file, revision).read_text()) for file in ("config.json", "metrics.json")
        )
        calibration = Calibration(**config["calibration"])
        if missing := {"people", "recipe", "test", "test_calibration", "folds"} - record.keys():
            raise KeyError(*missing)
        content = _file(name, "model.safetensors", revision).read_bytes()
        if hashlib.sha256(content).hexdigest() != config["weights_sha256"]:
            raise ValueError(f"{name}: model.safetensors is damaged, or not the one that config.json belongs to")
        network = SiameseNetwork.from_pretrained(name, revision=revision)
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{name} is not a folder here, and the Hub cannot be reached to look for it there"
        ) from error
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError, FileNotFoundError) as error:
        raise FileNotFoundError(f"{name} holds no trained network: {error}") from error
    except HTTPError as error:
        raise ConnectionError(f"the Hub broke off while {name} was fetched ({error}); try again") from error
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{name}: config.json or metrics.json lacks what `siamese train` writes ({error!r})"
        ) from error
    return Model(network.to(device), calibration, record, name)


def _file(name: str, file: str, revision: str | None) -> Path:
    return Path(name, file) if Path(name).is_dir() else Path(hf_hub_download(name, file, revision=revision))
