"""Import a face network from an ONNX file: find out what it needs, calibrate it, and write a result folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from siamese import checkpoint, images
from siamese.data.lfw import Lfw, LfwPair, find_lfw
from siamese.evaluation import face_network, metrics
from siamese.evaluation.lfw import person
from siamese.evaluation.plots import plot_roc
from siamese.faces import detect
from siamese.faces.detection import Landmarks
from siamese.faces.face import TEMPLATE, check_template
from siamese.files import ONNX_FILE, new_folder
from siamese.hub.card import imported_card
from siamese.model import Model
from siamese.network import MAX_EMBEDDING_DIM, SiameseNetwork
from siamese.onnx_backbone import IMAGES_AT_ONCE, RGB, OnnxBackbone, OnnxInput, Signature, open_session, read_signature
from siamese.record import People, Source

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PROPOSAL_PAIRS = 100  # genuine pairs of View 1 whose photos decide between the candidates
IMPORT_STEP = 6  # every sixth genuine pair of View 1 is degraded; all would take hours
MAX_BATCH_DIFFERENCE = 1e-3  # of an output in a batch from the same alone, relative to its norm
# Mean and standard deviation of the red, green and blue channel, as published face networks use them.
SCALINGS: dict[str, tuple[RGB, RGB]] = {
    "x": ((0, 0, 0), (1, 1, 1)),
    "x / 255": ((0, 0, 0), (255, 255, 255)),
    "(x - 127.5) / 127.5": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "(x - 127.5) / 128": ((127.5, 127.5, 127.5), (128, 128, 128)),
    "ImageNet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "VGGFace2": ((131.0912, 103.8827, 91.4953), (1, 1, 1)),
}


def import_onnx(
    file: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    license: str = "",
    source: str = "",
    training_data: str = "",
    size: int | None = None,
    channels: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    template: str | Landmarks | None = None,
    output: str | None = None,
    unit: bool | None = None,
    mirror: bool = True,
    log: Callable[[str], object] = print,
) -> Model:
    """Import a face network from an ONNX file, calibrate it and test it on LFW, and write a result folder.

    The options are those of `siamese import`, with the same meaning. `channels`, `mean` and `std`, and `unit` are
    proposed if they are None, see `propose`; `log` gets lines about the progress.

    Raises:
        ValueError: if the file cannot be used, an option is invalid, or the result folder has other files.
        FileNotFoundError: if a file is missing.
        ImportError: if onnxruntime is not installed.
    """
    file, lfw = Path(file), find_lfw(data)
    if lfw is None:
        raise ValueError(f"{data} does not hold LFW: give a folder with it, or lfw for the folder in SIAMESE_DATA")
    if file.stat().st_size > (limit := checkpoint.NETWORK_FILE_BYTES[ONNX_FILE]):
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes; the limit is {limit:,}")
    with new_folder(Path(out)) as folder:
        session = open_session(file)
        signature, stated = read_signature(session), session.get_modelmeta().custom_metadata_map
        if not (size := size or signature.size):
            raise ValueError("the ONNX file takes images of any size; give its height and width with --size")
        if signature.dtype is np.uint8 and (mean is not None or std is not None):
            raise ValueError("the ONNX file takes the pixels as they are, uint8; omit --mean and --std")
        if stated.get("input_range") == "0 to 255":  # a file of `siamese export`
            channels = channels or stated.get("channels")
            mean, std = 0.0 if mean is None else mean, 1.0 if std is None else std
            template = template or json.loads(stated.get("template", "null"))
        if channels not in (None, "RGB", "BGR"):
            raise ValueError(f"channels must be RGB or BGR, got {channels!r}")
        places = read_template(template, size) if template else TEMPLATE
        given = _three(0.0 if mean is None else mean), _three(1.0 if std is None else std)
        scalings = SCALINGS if mean is None and std is None else {"as given": given}
        if signature.dtype is np.uint8:
            scalings = {"x": SCALINGS["x"]}
        backbone = open_backbone(file, session, signature, size, output)
        settings, unit = propose(backbone, lfw, places, [channels] if channels else ["RGB", "BGR"], scalings, unit, log)

        network = SiameseNetwork("onnx", backbone.embedding_dim, mirror=mirror, unit=unit, onnx=settings)
        network.backbone = backbone.with_input(**vars(settings))
        # The people that the network was trained on are not known by name.
        people = People([], [], pretraining=None)
        model, calibrations = face_network.fit(network, places, lfw, people, step=IMPORT_STEP)
        quality = "the length of the output" if model.network.reference_norm else "none, the length says too little"
        log(f"Quality scores: {quality}")
        origin = Source(source, file.name, settings.sha256, license, training_data)
        result = face_network.judge(model, lfw, calibrations, origin)
        plot_roc(result.scored.distance, result.scored.same, folder / "roc.png")
        weights = f"path/to/{Path(out).name}" if Path(out).is_absolute() else Path(out).as_posix()
        (folder / "README.md").write_text(imported_card(model, model.record, weights), "utf-8")
        checkpoint.save(folder, model.network, model.calibration, model.template, model.record)
    return checkpoint.load(Path(out))


def open_backbone(
    file: Path, session: InferenceSession, signature: Signature, size: int, output: str | None
) -> OnnxBackbone:
    """Find the output with the embeddings and the batch size by running the file on two random images.

    Returns:
        A backbone with unscaled RGB input.
    """
    shape = (size, size, 3) if signature.channels_last else (3, size, size)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(signature.dtype)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        values = session.run(None, {signature.name: batch})
        return {each.name: np.asarray(value) for each, value in zip(session.get_outputs(), values, strict=True)}

    count = signature.batch or 1
    try:
        alone = run(np.resize(images[:1], (count, *shape)))
    except Exception as error:  # onnxruntime's have no common base class
        problem = str(error).splitlines()[0]
        raise ValueError(f"{file} does not run on crops of {size} × {size} pixels ({problem}); check --size") from error
    candidates = [name for name, value in alone.items() if _is_embedding(value, count)]
    if (output and output not in candidates) or not candidates:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in alone.items())
        raise ValueError(f"{file} has no output {output or ''} with one embedding per face; it has: {shapes}")
    if not output and len(candidates) > 1:
        raise ValueError(f"{file} has several outputs: choose one of {', '.join(candidates)} with --output")
    name = output or candidates[0]
    if (dimension := alone[name].size // count) > MAX_EMBEDDING_DIM:
        raise ValueError(f"{file} has embeddings of {dimension:,} numbers; the limit is {MAX_EMBEDDING_DIM:,}")
    batch = signature.batch
    if batch is None:
        try:
            both = run(images)[name].reshape(2, dimension)[0]
            expected = alone[name].reshape(dimension)
            agree = np.linalg.norm(both - expected) <= MAX_BATCH_DIFFERENCE * np.linalg.norm(expected)
        except Exception:  # for example, a layer that was exported for one image
            agree = False
        batch = None if agree else 1
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    settings = OnnxInput(sha256, size, "RGB", *SCALINGS["x"], name, batch)
    return OnnxBackbone(dimension, settings).open(file)


def _is_embedding(value: np.ndarray, count: int) -> bool:
    """Return whether an output holds one vector for each of `count` images, (B, D) or with more sides of 1."""
    rows = count == 1 or value.shape[:1] == (count,)
    return rows and value.dtype.kind == "f" and sum(side > 1 for side in value.shape) == 1 + (count > 1)


def propose(
    backbone: OnnxBackbone,
    lfw: Lfw,
    template: Landmarks,
    orders: Sequence[str],
    scalings: dict[str, tuple[RGB, RGB]],
    unit: bool | None,
    log: Callable[[str], object],
) -> tuple[OnnxInput, bool]:
    """Choose the order of the color channels, the scaling of the pixels, and whether embeddings have length 1.

    The choice has the largest d': the difference of the mean distances of impostor and genuine pairs, by the root of
    the mean of their variances. It does not depend on the scale of the distances and, other than the AUC, also differs
    between candidates that make no error. The pairs are all pairs of some photos of View 1.
    """
    units = [True, False] if unit is None else [unit]
    crops, same = proposal_crops(lfw, backbone.input_shape, template)
    tried: list[tuple[float, str, OnnxInput, bool]] = []
    log("Channels, scaling and length, by d' on View 1 (higher is better), and AUC:")
    for order, (title, (mean, std)) in product(orders, scalings.items()):
        candidate = backbone.with_input(channels=order, mean=mean, std=std)
        z = torch.cat([candidate(batch / 255) for batch in crops.split(IMAGES_AT_ONCE)])
        for scaled in units:
            d_prime, auc = separation(F.normalize(z) if scaled else z, same)
            shown = f"{order}  {title:20} {'length 1' if scaled else 'any length':10}"
            log(f"  {shown}  {d_prime:6.3f}  {auc:.4f}")
            tried.append((d_prime, shown, candidate.settings, scaled))
    d_prime, shown, settings, scaled = max(tried, key=lambda row: row[0])
    if not np.isfinite(d_prime):
        raise ValueError("the network gives the same output for all faces, or none that is finite; check --size")
    log(f"Chosen: {shown.rstrip()}")
    return settings, scaled


def proposal_crops(lfw: Lfw, input_shape: tuple[int, int, int], template: Landmarks) -> tuple[Tensor, np.ndarray]:
    """Return the crops (N, 3, H, W) of photos of View 1, and whether two show the same person, (N, N)."""
    genuine = [pair for pair in lfw.view1() if pair.same]
    chosen: list[LfwPair] = genuine[:: max(1, len(genuine) // PROPOSAL_PAIRS)][:PROPOSAL_PAIRS]
    names, crops = [], []
    for file, content in lfw.read(face_network.files_of(chosen)):
        (faces,) = detect([images.read(content)], input_shape, template)
        if faces:
            names.append(person(file))
            crops.append(faces[0].pixels)
    people = np.array(names)
    return torch.stack(crops), people[:, None] == people


def separation(z: Tensor, same: np.ndarray) -> tuple[float, float]:
    """Return d' and AUC of all pairs of (N, D) embeddings; `same` is (N, N). A network that fails has a d' of -inf."""
    distances = torch.cdist(z.double(), z.double())[torch.ones(same.shape, dtype=torch.bool).triu(1)].numpy()
    genuine = same[np.triu(np.ones(same.shape, dtype=bool), 1)]
    if not np.isfinite(distances).all() or not np.ptp(distances):
        return -np.inf, 0.5
    parts = distances[genuine], distances[~genuine]
    spread = np.sqrt(np.mean([part.var() for part in parts]))
    return float((parts[1].mean() - parts[0].mean()) / spread), metrics.auc(distances, genuine)


def read_template(template: str | Landmarks, size: int) -> Landmarks:
    """Return five landmarks in sides of the crop, from a list, or a JSON file or text. Numbers over 2 are pixels."""
    try:
        if isinstance(template, str):
            template = json.loads(template if template.lstrip().startswith("[") else Path(template).read_text("utf-8"))
        places: Any = np.array(template, dtype=float)
        if places.shape != (5, 2) or not np.isfinite(places).all():
            raise ValueError("not five points")
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(
            "a template is a JSON list of five points [x, y]: left eye, right eye, nose, left and right corner of the "
            "mouth, in pixels or in sides of the crop"
        ) from error
    template = tuple(map(tuple, (places / size if places.max() > 2 else places).tolist()))
    check_template(template)
    return template


def _three(values: float | Sequence[float]) -> RGB:
    """Return the values of the three channels, given one or three."""
    if np.size(values) not in (1, 3):
        raise ValueError(f"--mean and --std have one or three numbers, got {np.size(values)}")
    red, green, blue = np.resize(values, 3).tolist()
    return red, green, blue
