"""Load and save trained networks.

A result folder, and a model repository on the Hugging Face Hub, holds these files:

    config.json        architecture, alignment template and calibration, see `NetworkConfig`
    model.safetensors  weights
    metrics.json       what the network was trained on and how well it does, see `Record`
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from siamese.calibration import Calibration
from siamese.faces.detection import Landmarks
from siamese.model import Model
from siamese.network import SiameseNetwork, bundled_weights, pick_device
from siamese.record import Checked, Record, parse

DEFAULT = bundled_weights("faces")
T = TypeVar("T")


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """What config.json holds.

    Attributes:
        backbone, embedding_dim, mirror, unit, whiten: arguments of `SiameseNetwork`.
        calibration: maps a distance to P(same).
        weights_sha256: hash of model.safetensors. It detects files of two different runs.
        reference_norm, nuisance_dim: arguments of `SiameseNetwork`.
        template: see `Model`.
    """

    backbone: str
    embedding_dim: int
    mirror: bool
    unit: bool
    calibration: Calibration
    weights_sha256: str
    whiten: bool = False
    reference_norm: float | None = None
    nuisance_dim: int = 0
    template: Landmarks | None = None


def save(
    folder: Path, network: SiameseNetwork, calibration: Calibration, template: Landmarks | None, record: Record
) -> None:
    """Write config.json, model.safetensors and metrics.json.

    Args:
        folder: an existing folder. If it has no README.md, a stub is written as well.
        network: saved in the dtype of its weights.
        calibration: maps a distance of this network to P(same).
        template: see `Model`.
        record: content of metrics.json.
    """
    network.save_pretrained(folder)  # writes the weights, and the network's arguments to config.json
    (folder / "model.safetensors").chmod(0o644)  # safetensors creates files that only their owner can read
    config = json.loads((folder / "config.json").read_bytes()) | {
        "template": template,
        "calibration": asdict(calibration),
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / "metrics.json").write_text(record.to_json(), "utf-8")


def load(weights: str | Path = DEFAULT, *, revision: str | None = None, device: str = "auto") -> Model:
    """Load a trained network from a folder or from the Hugging Face Hub.

    Args:
        weights: a result folder, or USER/NAME or USER/NAME@REVISION on the Hub. "weights/faces" (the default) and
            "weights/att" come with this package and work in any directory.
        revision: branch, tag or commit of a repository on the Hub; None for the main branch.
        device: "auto" for the best available device, or a name that PyTorch knows.

    Raises:
        FileNotFoundError: if there is no such folder or repository, or it holds no trained network.
        ValueError: if a file is invalid or damaged. Files that are too large are not downloaded.
        PermissionError: if the Hub denies access.
        ConnectionError: if the Hub cannot be reached and there is no cached copy.
    """
    torch_device = pick_device(device)
    name, folder, commit, note = _locate(weights, revision)
    try:
        config = _read(NetworkConfig, folder / "config.json", name)
        record = _read(Record, folder / "metrics.json", name)
        sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name} holds no trained network: {error}") from error
    if sha256 != config.weights_sha256:
        hint = f"; delete {folder} to download it again" if commit else ""
        raise ValueError(f"{name}: model.safetensors is damaged or does not belong to config.json{hint}")
    network = SiameseNetwork.from_pretrained(folder).to(torch_device)
    return Model(network, config.calibration, record, name, config.template, commit, note)


def find_weights(weights: str | Path) -> Path:
    """Return the path of a result folder. Weights that come with the package are found in any directory."""
    folder = Path(weights)
    if not folder.is_dir() and folder.parent == Path("weights") and bundled_weights(folder.name).is_dir():
        return bundled_weights(folder.name)
    return folder


def _locate(weights: str | Path, revision: str | None) -> tuple[str, Path, str | None, str]:
    """Find or download weights. Returns their name, folder, commit (None if they are not from the Hub) and a note."""
    name, folder = str(weights), find_weights(weights)
    if folder.is_dir():
        if revision:
            raise ValueError(f"{name} is a folder and has no revisions; got revision {revision!r}")
        return name, folder, None, ""

    from siamese.hub.download import download, hub_id  # needed only here, and slow to import

    name, _, suffix = name.partition("@")
    if isinstance(weights, Path) or not hub_id(name):
        raise FileNotFoundError(f"there is no folder {weights}; networks on the Hub are named USER/NAME")
    if revision and suffix:
        raise ValueError(f"give one revision, got {suffix!r} and {revision!r}")
    found = download(name, revision or suffix or None)
    return name, found.folder, found.revision, found.note


def _read(kind: type[T], file: Path, name: str) -> T:
    try:
        return parse(kind, file.read_bytes())
    except ValueError as error:
        advice = "train again with this version, or use weights that it wrote"
        raise ValueError(f"{name}: {file.name}: {error}; {advice}") from error
