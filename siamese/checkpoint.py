"""A trained network as files: a result folder, which is just what a model repository on the Hub holds.

`config.json` holds what the network is and its calibration, `model.safetensors` its weights, `metrics.json` what it was
trained on and how well it does.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from siamese.calibration import Calibration
from siamese.hub.download import download, is_id
from siamese.model import Model
from siamese.network import SiameseNetwork, bundled_weights, pick_device

DEFAULT = bundled_weights("faces")


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
        weights: a result folder, or the id USER/NAME of one on the Hugging Face Hub, or USER/NAME@REVISION;
            "weights/faces" and "weights/att" are those that come with the project, from any folder. Default: the first.
        revision: of a Hub repository: a branch, tag or commit; None for the main branch.
        device: "auto" for the best there is, or any name that PyTorch knows.

    Raises:
        FileNotFoundError: where there is neither such a folder nor such a repository.
        ValueError: where it does not hold a whole, known network with its calibration. A file that is larger than it
            can be is not fetched.
        PermissionError: where the Hub refuses it.
        ConnectionError: where the Hub cannot be reached and no copy was kept here.
    """
    device = pick_device(device)
    name, folder, note = str(weights), find(weights), ""
    if folder.is_dir():
        if revision:
            raise ValueError(f"{name} is a folder, which has no revisions; got {revision!r}")
    else:
        name, _, at = name.partition("@")
        # Result folders are named like repositories: in the wrong place, they are not to be looked for on the Hub.
        if isinstance(weights, Path) or not is_id(name) or name.startswith(("runs/", "weights/")):
            raise FileNotFoundError(f"there is no folder {weights}, and a network on the Hub is named USER/NAME")
        if revision and at:
            raise ValueError(f"name one revision, got {at!r} and {revision!r}")
        folder, revision, note = download(name, revision or at or None)
    try:
        config, record = (_read(folder / file) for file in ("config.json", "metrics.json"))
        calibration = Calibration.from_dict(config["calibration"])
        if missing := {"people", "recipe", "test", "curves", "test_calibration", "folds"} - record.keys():
            raise KeyError(*missing)
        Calibration.from_dict(record["test_calibration"])
        people = record["people"]
        if not all(isinstance(people[side], list) for side in ("training", "test")):
            raise TypeError("people")
        if not isinstance(people.get("pretraining", []), list | None):
            raise TypeError("pretraining")
        if hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() != config["weights_sha256"]:
            raise ValueError(
                f"{name}: model.safetensors is damaged, or not the one that config.json belongs to"
                + (f"; delete {folder}, and it is fetched anew" if revision else "")
            )
        network = SiameseNetwork.from_pretrained(folder).to(device)
        return Model(network, calibration, record, name, config.get("align", "none"), revision, note)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name} holds no trained network: {error}") from error
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{name}: config.json or metrics.json lacks what `siamese train` writes ({error!r})"
        ) from error


def find(weights: str | Path) -> Path:
    """Return the folder that is meant: where there is none, "weights/faces" and "weights/att" are those that come with
    the project."""
    folder = Path(weights)
    if not folder.is_dir() and folder.parent == Path("weights") and bundled_weights(folder.name).is_dir():
        return bundled_weights(folder.name)
    return folder


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON that `siamese train` writes ({error})") from error
