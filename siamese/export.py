"""Export a trained network to an ONNX file, which runs without PyTorch and without this package."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from siamese.files import write_atomically
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.onnx_backbone import import_onnxruntime

OPSET_VERSION = 20  # supported by onnxruntime 1.17 and later
MAX_DIFFERENCE = 1e-4


class Embedding(nn.Module):
    """A module whose `forward` returns embeddings and, if the network has them, qualities, as torch.onnx requires."""

    def __init__(self, network: SiameseNetwork):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.network.features(images)
        z, quality = self.network.head(features), self.network.quality(features)
        return (z,) if quality is None else (z, quality)


def to_onnx(model: Model, file: Path) -> float:
    """Write a network's `embed` as an ONNX file, after checking that onnxruntime and PyTorch agree.

    The inputs, outputs and metadata are described in docs/api.md. Returns the largest absolute difference between the
    outputs of onnxruntime and PyTorch on random images; nothing is written if it is above `MAX_DIFFERENCE`.
    """
    if model.network.onnx:
        raise ValueError(f"{model.name} was imported from an ONNX file: copy the model.onnx in it")
    import_onnxruntime()  # fail before the slow export
    import onnxscript  # noqa: F401 (torch.onnx needs it)

    network = deepcopy(model.network).cpu()
    images = np.random.default_rng(0).integers(0, 256, (3, *network.input_shape), dtype=np.uint8)
    content = _export(network, images, _metadata(model))
    difference = _largest_difference(network, content, images)
    if not difference <= MAX_DIFFERENCE:
        raise RuntimeError(
            f"the embeddings of onnxruntime and PyTorch differ by {difference:.1e}, the limit is {MAX_DIFFERENCE:g}; "
            "nothing was written. Try other versions of torch and onnxruntime"
        )
    write_atomically(file, lambda part: part.write_bytes(content))
    return difference


def _metadata(model: Model) -> dict[str, str]:
    fitted = model.calibration
    metadata = {
        "threshold": str(fitted.threshold),
        "slope": str(fitted.slope),
        "intercept": str(fitted.intercept),
        "align": model.align,
        "input_range": "0 to 255",
        "channels": "RGB" if model.network.input_shape[0] == 3 else "gray",
    }
    if source := model.record.source:
        stated = {name: getattr(source, name) for name in ("license", "credit", "training_data", "limitations")}
        metadata |= {name: text for name, text in stated.items() if text}
    if model.license_text:
        metadata["license_text"] = model.license_text
    if model.template:
        metadata["template"] = json.dumps(model.template)
    if fitted.poor_slope:
        metadata["lowest_quality"] = str(fitted.lowest_quality)
        metadata |= {name: json.dumps(getattr(fitted, name)) for name in ("poor_slope", "poor_intercept")}
    return metadata


def _export(network: SiameseNetwork, images: np.ndarray, metadata: dict[str, str]) -> bytes:
    """Return the content of the ONNX file."""
    program = torch.onnx.export(
        Embedding(network).eval(),
        (torch.from_numpy(images),),
        input_names=["images"],
        output_names=["embeddings", "quality"][: 1 if network.reference_norm is None else 2],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET_VERSION,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # always with dynamo=True
    proto = program.model_proto
    # Remove what the exporter adds to each node: the line of source code, with a local path.
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        part.ClearField("metadata_props")
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


def _largest_difference(network: SiameseNetwork, content: bytes, images: np.ndarray) -> float:
    """Return the largest absolute difference between the outputs of onnxruntime and PyTorch."""
    session = import_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = 0.0
    for batch in (images, images[:1]):  # two batch sizes
        with torch.inference_mode():
            features = network.features(torch.from_numpy(batch))
            expected = network.head(features), network.quality(features)
        for ours, theirs in zip(expected, session.run(None, {"images": batch}), strict=False):  # quality may be None
            difference = max(difference, float(np.abs(theirs - np.asarray(ours)).max()))
    return difference
