"""A trained network as files: a result folder, which is just what a model repository on the Hub holds.

`config.json` holds what the network is and its calibration, `model.safetensors` its weights, `metrics.json` what it was
trained on and how well it does.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
)

from siamese.calibrate import Calibration
from siamese.compare import Model
from siamese.devices import pick_device
from siamese.network import SiameseNetwork, shipped

DEFAULT = shipped("faces")


def save(folder: Path, network: SiameseNetwork, calibration: Calibration, align: str, record: dict) -> None:
    """Write config.json, model.safetensors and metrics.json, for `load`.

    Args:
        folder: an existing one. Where it has no README.md, the Hub's mixin writes a stub of one.
        network: saved in the dtype of its weights.
        calibration: distance → P(same), of these weights.
        align: how pictures come to the network, see `Model`.
        record: what metrics.json is to hold.
    """
    network.save_pretrained(folder)
    # The hash ties the calibration to its weights: of two runs' files that got mixed, none is loaded.
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    config = {**network._hub_mixin_config, "align": align, "calibration": asdict(calibration), "weights_sha256": sha256}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "metrics.json").write_text(json.dumps(record, indent=1) + "\n")


def load(weights: str | Path = DEFAULT, *, revision: str | None = None, device: str = "auto") -> Model:
    """Load a trained network.

    Args:
        weights: a result folder, or the id USER/NAME of one on the Hugging Face Hub; default: the face network that
            comes with the project.
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
        calibration = Calibration.from_dict(config["calibration"])
        if missing := {"people", "recipe", "test", "curves", "test_calibration", "folds"} - record.keys():
            raise KeyError(*missing)
        Calibration.from_dict(record["test_calibration"])
        if not all(isinstance(record["people"][side], list) for side in ("training", "test")):
            raise TypeError("people")
        content = _file(name, "model.safetensors", revision).read_bytes()
        if hashlib.sha256(content).hexdigest() != config["weights_sha256"]:
            raise ValueError(f"{name}: model.safetensors is damaged, or not the one that config.json belongs to")
        network = SiameseNetwork.from_pretrained(name, revision=revision)
        return Model(network.to(device), calibration, record, name, config.get("align", "none"))
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{name} is not a folder here, and the Hub cannot be reached to look for it there"
        ) from error
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError, FileNotFoundError) as error:
        raise FileNotFoundError(f"{name} holds no trained network: {error}") from error
    except HTTPError as error:
        raise ConnectionError(f"the Hub broke off while {name} was fetched ({error}); try again") from error
    except (AttributeError, KeyError, TypeError, OverflowError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{name}: config.json or metrics.json lacks what `siamese train` writes ({error!r})"
        ) from error


def _file(name: str, file: str, revision: str | None) -> Path:
    return Path(name, file) if Path(name).is_dir() else Path(hf_hub_download(name, file, revision=revision))
