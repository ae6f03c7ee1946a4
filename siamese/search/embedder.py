"""What a search needs of a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from siamese import images
from siamese.calibration import Calibration
from siamese.faces import Face
from siamese.faces.detection import Landmarks
from siamese.files import bundled_weights
from siamese.network import SiameseNetwork


class Embedder(Protocol):
    """A network that detects and embeds faces, such as `siamese.Model`."""

    network: SiameseNetwork
    calibration: Calibration
    template: Landmarks | None

    @property
    def id(self) -> str:
        """A name for people."""
        ...

    def detect(self, pictures: Sequence[images.ImageSource]) -> list[list[Face]]:
        """Return the faces in each picture, the main one first."""
        ...

    def embed_faces(self, faces: Sequence[Face]) -> tuple[np.ndarray, list[Face]]:
        """Return (N, D) float32 embeddings of N faces, and the faces with their quality."""
        ...


def digest(model: Embedder) -> hashlib._Hash:
    """Hash the weights and settings that an embedding depends on. Callers may add to the hash."""
    result = hashlib.sha256()
    net = model.network
    settings = type(net.backbone).__name__, net.mirror, net.unit, net.reference_norm, model.template
    result.update(json.dumps(settings).encode())
    for name, tensor in sorted(net.state_dict().items()):
        result.update(name.encode() + tensor.cpu().numpy().tobytes())
    if model.template is not None:
        result.update((bundled_weights("mtcnn") / "model.safetensors").read_bytes())
    return result
