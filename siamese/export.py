"""A trained network → one ONNX file, which runs without PyTorch and without this package."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from siamese.files import write_atomically
from siamese.model import Model

OPSET = 20  # of 2023; onnxruntime reads it from 1.17 on
TOLERANCE = 1e-4


class Embedding(nn.Module):
    """`SiameseNetwork.embed` as a module's `forward`, which is what exporters trace."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.embed(images)


def to_onnx(model: Model, file: Path) -> float:
    """Write a network's `embed` as an ONNX file, once onnxruntime has answered as PyTorch does.

    The graph's input `images` is (B, C, H, W) uint8 in [0, 255], for any B: bytes as decoders give them, so that no
    user has to know a range, and onnxruntime refuses any other type. Its output `embeddings` is (B, D) float32, with
    the mirror images averaged, whitened and of length 1 where the network does that: the Euclidean distance of two
    rows is the dissimilarity.

    What else a decision needs is in the file's metadata, as strings: `threshold`, `slope` and `intercept` of the
    calibration (P(same) = 1 / (1 + exp(slope · distance − intercept)), see `Calibration`), `align` ("faces": images
    are faces cut out upright, see `faces`; "none": whole ones), `input_range` and `channels` ("RGB" or "gray").

    Args:
        model: on any device.
        file: where to write it, whole or not at all.

    Returns:
        The largest difference, in any of their numbers, of the two's embeddings of random images.

    Raises:
        FileNotFoundError: where `file` is a folder, or is to lie in one that is not there.
        ImportError: where onnxscript or onnxruntime is not installed.
        RuntimeError: where the two differ by more than 1e-4; nothing is written then.
    """
    import onnxruntime
    import onnxscript  # noqa: F401 (torch.onnx needs it, and would say so at greater length)

    if file.is_dir() or not file.parent.is_dir():
        raise FileNotFoundError(f"{file} cannot be written: name a file, in a folder that exists")
    network = deepcopy(model.network).cpu()
    images = np.random.default_rng(0).integers(0, 256, (3, *network.input_shape), dtype=np.uint8)
    program = torch.onnx.export(
        Embedding(network).eval(),
        (torch.from_numpy(images),),
        input_names=["images"],
        output_names=["embeddings"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    # The exporter notes for each node the line that it came from, with its path on this machine.
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        part.ClearField("metadata_props")
    calibration = model.calibration
    for key, value in {
        "threshold": calibration.threshold,
        "slope": calibration.slope,
        "intercept": calibration.intercept,
        "align": model.align,
        "input_range": "0 to 255",
        "channels": "RGB" if network.input_shape[0] == 3 else "gray",
    }.items():
        proto.metadata_props.add(key=key, value=str(value))
    content = proto.SerializeToString()

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = 0.0
    for batch in (images, images[:1]):
        with torch.inference_mode():
            expected = network.embed(torch.from_numpy(batch)).numpy()
        (answer,) = session.run(None, {"images": batch})
        difference = max(difference, float(np.abs(answer - expected).max()))
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"onnxruntime's embeddings differ from PyTorch's by {difference:.1e}, more than {TOLERANCE:g}: nothing was "
            "written; try other versions of torch and onnxruntime"
        )
    write_atomically(file, lambda part: part.write_bytes(content))
    return difference
