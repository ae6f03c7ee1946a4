"""Load and save trained networks.

A result folder, and a model repository on the Hugging Face Hub, holds these files:

    config.json        architecture, alignment template and calibration, see `NetworkConfig`
    model.safetensors  weights
    model.onnx         the imported network; of this one, model.safetensors holds only what was fitted to it
    metrics.json       what the network was trained on and how well it does, see `Record`
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import TypeVar

import torch
from huggingface_hub import HfApi, constants, get_token, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from siamese.calibration import Calibration
from siamese.comparison import Comparison
from siamese.faces.detection import Landmarks
from siamese.faces.face import check_template
from siamese.files import LICENSE_FILE, ONNX_FILE, bundled_weights
from siamese.images import ImageSource
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.onnx_backbone import OnnxInput
from siamese.record import Checked, Record, parse

DEFAULT = bundled_weights("faces")
# The files of a network, in a folder or on the Hub. The limits are far above what the networks of this version need.
NETWORK_FILE_BYTES = {
    "model.safetensors": 512 << 20,  # of networks of timm; others are much smaller
    "metrics.json": 4 << 20,
    "config.json": 1 << 20,
    ONNX_FILE: 512 << 20,  # only of imported networks
    LICENSE_FILE: 1 << 20,  # if the weights have one of their own
}
OPTIONAL_FILES = (ONNX_FILE, LICENSE_FILE)
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, section 2.1
T = TypeVar("T")


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """What config.json holds: the arguments of `SiameseNetwork`, and what `Model` needs."""

    backbone: str
    embedding_dim: int
    mirror: bool
    unit: bool
    calibration: Calibration
    weights_sha256: str  # of model.safetensors: detects files of two different runs
    whiten: bool = False
    reference_norm: float | None = None
    nuisance_dim: int = 0
    template: Landmarks | None = None
    image_size: int | None = None
    onnx: OnnxInput | None = None  # of an imported network, with the hash of model.onnx

    def __post_init__(self) -> None:
        if self.template is not None:
            check_template(self.template)


def save(
    folder: Path, network: SiameseNetwork, calibration: Calibration, template: Landmarks | None, record: Record
) -> None:
    """Write the files of a network and, if there is none, a stub of README.md."""
    network.save_pretrained(folder)  # writes the weights, and the network's arguments to config.json
    with suppress(OSError):  # of drives without permissions
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
        weights: a result folder, or USER/NAME or USER/NAME@REVISION on the Hub. "weights/faces" (the default),
            "weights/images" and "weights/att" come with this package and work in any directory.
        revision: branch, tag or commit of a repository on the Hub; None for the main branch.
        device: "auto" for the best available device, or a name that PyTorch knows.

    Raises:
        FileNotFoundError: if there is no such folder or repository, or it holds no trained network.
        ValueError: if a file is invalid or damaged. Files that are too large are not downloaded.
        PermissionError: if the Hub denies access.
        ConnectionError: if the Hub cannot be reached and there is no cached copy.
        ImportError: if the network was imported from an ONNX file, and onnxruntime is not installed,
            or for a network of timm, timm.
    """
    torch_device = pick_device(device)
    name, folder, commit, note = _locate(weights, revision)
    config = _parse(NetworkConfig, folder / "config.json", name)
    record = _parse(Record, folder / "metrics.json", name)
    if hashlib.sha256(_read(folder / "model.safetensors", name)).hexdigest() != config.weights_sha256:
        hint = f"; delete {folder} to download it again" if commit else ""
        raise ValueError(f"{name}: model.safetensors is damaged or does not belong to config.json{hint}")
    if config.onnx:
        _check_file(folder / ONNX_FILE, name)
    license_text = ""
    try:
        if os.path.lexists(folder / LICENSE_FILE):
            license_text = _read(folder / LICENSE_FILE, name).decode()
        network = SiameseNetwork.from_pretrained(folder).to(torch_device)
    except ValueError as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from error
    return Model(network, config.calibration, record, name, config.template, commit, note, license_text)


@cache
def default_model() -> Model:
    """Return the default face network, loaded once."""
    return load()


def compare(
    a: ImageSource,
    b: ImageSource,
    *,
    model: Model | None = None,
    face: int | tuple[int | None, int | None] | None = None,
    fmr: float | None = None,
) -> Comparison:
    """Compare two photos with a network, by default the face network. See `Model.compare`."""
    return (model or default_model()).compare(a, b, face=face, fmr=fmr)


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

    name, _, suffix = name.partition("@")
    if isinstance(weights, Path) or not hub_id(name):
        raise FileNotFoundError(f"there is no folder {weights}; networks on the Hub are named USER/NAME")
    if revision and suffix:
        raise ValueError(f"give one revision, got {suffix!r} and {revision!r}")
    folder, note = _download(name, revision or suffix or None)
    return name, folder, folder.name, note


def _download(name: str, revision: str | None) -> tuple[Path, str]:
    """Download a network, or use the cached copy. Returns its folder, which is named by its commit, and a note."""
    check_token()
    try:
        return _fetch(name, revision), ""
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} has no branch, tag or commit {revision}") from error
    except GatedRepoError as error:
        raise PermissionError(f"{name} is gated: request access at {constants.ENDPOINT}/{name}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no repository {name} on the Hub; if it is private, run `hf auth login` or set HF_TOKEN"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status < 500 and status != 429:
            reason = "the token is not valid" if status == 401 else f"status {status}"
            raise PermissionError(f"the Hub denies access to {name}: {reason}") from error
        problem = f"the Hub answered with status {status}"
    except OfflineModeIsEnabled:
        problem = "HF_HUB_OFFLINE is set"
    except (HTTPError, LocalEntryNotFoundError):
        problem = "the Hub cannot be reached"
    except FileNotFoundError:  # the repository holds something else
        raise
    except (OSError, RuntimeError) as error:  # for example, of the Hub's transfer protocol for large files (Xet)
        problem = f"the download failed ({str(error).strip().splitlines()[0]})"
    try:
        files = list(NETWORK_FILE_BYTES)
        cached = snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"cannot load {name}: {problem}, and there is no cached copy") from error
    return Path(cached), f"Using the cached copy of {name}: {problem}."


def _fetch(name: str, revision: str | None) -> Path:
    """Download the files of a network, all of one commit, unless one is missing or too large."""
    found = HfApi().model_info(name, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size for file in found.siblings or ()}
    limits = {file: limit for file, limit in NETWORK_FILE_BYTES.items() if file not in OPTIONAL_FILES or file in sizes}
    for file, limit in limits.items():
        if file not in sizes:
            raise FileNotFoundError(f"{name} holds no trained network: {file} is missing")
        if (size := sizes[file]) is None or size > limit:
            raise ValueError(f"{name}: {file} has {size or 0:,} bytes, the limit is {limit:,}; not downloaded")
    # Not snapshot_download, which shows a progress bar even if all files are cached.
    files = [hf_hub_download(name, file, revision=found.sha) for file in limits]
    # This call points the cached branch at the commit. It comes last, so that the branch never points at a commit that
    # is only partly cached.
    hf_hub_download(name, "config.json", revision=revision)
    return Path(files[0]).parent


def is_repo_id(name: str) -> bool:
    """Return whether `name` is a valid repository id on the Hub, USER/NAME."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def hub_id(weights: str) -> str | None:
    """Return the repository id of weights named USER/NAME or USER/NAME@REVISION; None for a folder."""
    name = weights.partition("@")[0]
    # A mistyped result folder looks like USER/NAME.
    return name if is_repo_id(name) and not name.startswith(("runs/", "weights/")) else None


def public_name(weights: str) -> str:
    """Return what a card may call weights: a name that `load` accepts on any machine, or the name of the folder."""
    folder = find_weights(weights)
    if folder.is_dir() and folder.resolve().parent == bundled_weights("faces").resolve().parent:
        return f"weights/{folder.name}"
    return weights if hub_id(weights) and not folder.is_dir() else PurePath(weights).name


def check_token() -> str | None:
    """Return the Hub's token of this user; None if there is none. A malformed one raises a ValueError that hides it."""
    token = get_token()
    if token and not TOKEN.fullmatch(token):
        raise ValueError(
            "the Hugging Face token has characters that do not belong to it, such as quotes or spaces; set HF_TOKEN "
            "again without them, or run `hf auth login`"
        )
    return token


def pick_device(name: str = "auto") -> torch.device:
    """Return a device of PyTorch; "auto" is CUDA if available, else Apple's MPS, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"this machine has no device {name!r}; use cpu or auto") from error
    return device


def _check_file(file: Path, name: str) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{name} holds no trained network: {file.name} is missing, or is no regular file")
    if (size := file.stat().st_size) > (limit := NETWORK_FILE_BYTES[file.name]):
        raise ValueError(f"{name}: {file.name} has {size:,} bytes, the limit is {limit:,}")


def _read(file: Path, name: str) -> bytes:
    _check_file(file, name)
    return file.read_bytes()


def _parse(kind: type[T], file: Path, name: str) -> T:
    content = _read(file, name)
    try:
        return parse(kind, _upgrade(content))
    except ValueError as error:
        advice = "train again with this version, or use weights that it wrote"
        raise ValueError(f"{name}: {file.name}: {error}; {advice}") from error


def _upgrade(content: bytes) -> bytes:
    """Turn thresholds of the distance, which earlier versions wrote, into thresholds of the score."""
    try:
        values = json.loads(content)
        values.pop("degraded", None)  # results that are no longer part of metrics.json
        for key in ("calibration", "test_calibration"):
            if "min_quality" not in (fitted := values.get(key, {})):
                continue
            del fitted["min_quality"]
            for point in fitted["operating_points"]:
                point["score"] = fitted["intercept"] - fitted["slope"] * point.pop("distance")
        return json.dumps(values).encode()
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return content  # for `parse`, which says what is wrong
