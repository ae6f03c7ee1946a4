"""The Siamese network: it embeds both images with the same weights; the distance of the embeddings is the answer."""

from __future__ import annotations

import math
import shutil
import textwrap
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from siamese.backbones import BACKBONES, FIXED_SIZE
from siamese.files import ONNX_FILE
from siamese.onnx_backbone import OnnxBackbone, OnnxInput

# Faces below a quality of `POOR_QUALITY` are poor, about one in fifteen of LFW's. Up to `PROJECTED_QUALITY`, nuisances
# are removed from them completely, see `SiameseNetwork.head`. Both were chosen on LFW's View 1.
PROJECTED_QUALITY, POOR_QUALITY = 0.6, 0.8
MAX_EMBEDDING_DIM = 4096
MAX_IMAGE_SIZE = 1024
TIMM = "timm/"  # the names of timm's networks start with it, as on the Hub


def distance(z1: Tensor, z2: Tensor) -> Tensor:
    """Compute the Euclidean distance of each pair of embeddings, (..., D) float: (...) float, ≥ 0.

    It is exactly 0 if the two embeddings are equal. The gradient is finite everywhere: it is 0 at distance 0.
    """
    return torch.linalg.vector_norm(z1 - z2, dim=-1)


class SiameseNetwork(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="siamese",
    pipeline_tag="image-feature-extraction",
    tags=["siamese-network", "contrastive-loss", "image-similarity"],
):
    """Two branches with shared weights (Bromley et al., NIPS 1993) that output one embedding per image.

    `save_pretrained`, `from_pretrained` and `push_to_hub` come from the mixin of the Hugging Face Hub. Loading is
    strict, and reads safetensors files in a folder only; use `siamese.load` for a network on the Hub.

    Args:
        backbone: a key of `BACKBONES`, timm/NAME for a network of timm, or "onnx".
        embedding_dim: D, the length of an embedding, 1 to `MAX_EMBEDDING_DIM`.
        mirror: in evaluation mode, average the backbone's output over each image and its mirror image.
        unit: scale embeddings to length 1, so that distances are in [0, 2].
        whiten: add a linear layer before the scaling. It is the identity until
            `siamese.training.whitening.fit_whitening` sets it.
        reference_norm: the norm of the features of an image of quality 1, above 0, see `quality`; None if it is not
            known.
        nuisance_dim: number of rows of `nuisance`, 0 to D. They are 0 until they are set.
        onnx: the input of the ONNX file that the backbone "onnx" runs; else None.
        image_size: height and width of the input, up to `MAX_IMAGE_SIZE`, for backbones with a choice; None for the
            backbone's own.

    Attributes:
        nuisance: (nuisance_dim, D), orthonormal directions in which degradations such as blur move the features. They
            are removed from poor images, see `head`. None if nuisance_dim is 0.

    Raises:
        ValueError: if the backbone is unknown or a number is out of range.
    """

    nuisance: Tensor | None

    def __init__(
        self,
        backbone: str = "tutorial",
        embedding_dim: int = 2,
        mirror: bool = False,
        unit: bool = False,
        whiten: bool = False,
        reference_norm: float | None = None,
        nuisance_dim: int = 0,
        onnx: OnnxInput | dict[str, Any] | None = None,
        image_size: int | None = None,
    ):
        super().__init__()
        known = backbone in (*BACKBONES, "onnx") or backbone.startswith(TIMM)
        if not known or (backbone == "onnx") != bool(onnx):
            raise ValueError(
                f"unknown backbone {backbone!r}; this version knows: {', '.join(BACKBONES)}, timm/NAME, and onnx with "
                "its input"
            )
        for name, value, least, most in (
            ("embedding_dim", embedding_dim, 1, MAX_EMBEDDING_DIM),
            ("nuisance_dim", nuisance_dim, 0, embedding_dim),
            ("image_size", 1 if image_size is None else image_size, 1, MAX_IMAGE_SIZE),
        ):
            if not (isinstance(value, int) and least <= value <= most):
                raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
        if reference_norm is not None and not 0 < reference_norm < math.inf:
            raise ValueError(f"reference_norm must be above 0, got {reference_norm}")
        self.onnx = OnnxInput(**onnx) if isinstance(onnx, dict) else onnx
        size = {} if image_size is None else {"image_size": image_size}
        if self.onnx:
            self.backbone = OnnxBackbone(embedding_dim, self.onnx)
        elif backbone.startswith(TIMM):
            from siamese.timm_backbone import TimmBackbone  # an optional dependency

            self.backbone = TimmBackbone(backbone.removeprefix(TIMM), embedding_dim, **size)
        elif size and backbone in FIXED_SIZE:
            raise ValueError(f"the image size of the backbone {backbone!r} cannot be changed")
        else:
            self.backbone = BACKBONES[backbone](embedding_dim, **size)
        self.backbone.to(memory_format=torch.channels_last)
        self.input_shape, self.embedding_dim = self.backbone.input_shape, embedding_dim
        self.mirror, self.unit, self.reference_norm = mirror, unit, reference_norm
        self.whitening = nn.Linear(embedding_dim, embedding_dim) if whiten else nn.Identity()
        self.register_buffer("nuisance", torch.zeros(nuisance_dim, embedding_dim) if nuisance_dim else None)
        if isinstance(self.whitening, nn.Linear):
            nn.init.eye_(self.whitening.weight)
            nn.init.zeros_(self.whitening.bias)
            self.whitening.requires_grad_(False)

    @property
    def uses_timm(self) -> bool:
        """Whether the package timm is needed."""
        return type(self.backbone).__name__ == "TimmBackbone"

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._weight.device

    @property
    def _weight(self) -> Tensor:
        """Any of the weights; an imported network may have only buffers."""
        return next(chain(self.parameters(), self.buffers()))

    def embed(self, x: Tensor) -> Tensor:
        """Turn images into embeddings.

        Args:
            x: (B, C, H, W) with (C, H, W) = `input_shape`; uint8 in [0, 255], or floating point in [0, 1].

        Returns:
            (B, D) in the dtype of the weights.

        Raises:
            ValueError: if the images have another shape.
        """
        return self.head(self.features(x))

    def features(self, x: Tensor, mirrored: bool = True) -> Tensor:
        """Return the unscaled embeddings of images, (B, D), from which `head` computes the embeddings.

        They are less exact, and faster, without the mirror images.
        """
        outputs = self.backbone(self.prepare(x, mirrored))
        return self.average(outputs) if mirrored else outputs

    def prepare(self, x: Tensor, mirrored: bool = True) -> Tensor:
        """Turn images into the input of the backbone, in [0, 1], followed by their mirror images for `average`."""
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise ValueError(f"expected images of shape (B, {expected}), got {tuple(x.shape)}")
        dtype = self._weight.dtype
        x = x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)
        if mirrored and self.mirror and not self.training:
            x = torch.cat([x, x.flip(3)])
        return x.contiguous(memory_format=torch.channels_last)

    def average(self, outputs: Tensor) -> Tensor:
        """Average the outputs of the backbone over each image and its mirror image, if there is one: (B, D)."""
        if self.mirror and not self.training:
            return torch.stack(outputs.tensor_split(2)).mean(0)
        return outputs

    def head(self, features: Tensor) -> Tensor:
        """Turn unscaled embeddings, (B, D), into embeddings, (B, D): remove nuisances, whiten, scale to length 1.

        Two different people look more alike if both photos are blurred, because blur moves all embeddings in the same
        direction. Nuisance attribute projection (Solomonoff, Campbell and Boardman, ICASSP 2005) removes such
        directions. As they also tell people apart in good photos, they are removed completely only up to a quality of
        `PROJECTED_QUALITY`, and not at all from `POOR_QUALITY` on.
        """
        quality = self.quality(features)
        if quality is not None:
            share = (POOR_QUALITY - quality) / (POOR_QUALITY - PROJECTED_QUALITY)
            features = features.lerp(self._without_nuisance(features), share.clamp(0, 1)[:, None])
        z = self.whitening(features)
        return F.normalize(z) if self.unit else z

    def quality(self, features: Tensor) -> Tensor | None:
        """Estimate how well faces can be recognized, (B,) in [0, 1], from the norm of their features without nuisances.

        Training with a softmax loss on embeddings of length 1 does not set the norm. It grows with the evidence for the
        features that the network has learned, and is small for blurred, covered or small faces. Compare Meng et al.,
        "MagFace", CVPR 2021, where the norm is trained as a quality score. 1 stands for a norm of at least
        `reference_norm`; without it, the result is None.
        """
        if self.reference_norm is None:
            return None
        norm = torch.linalg.vector_norm(self._without_nuisance(features), dim=1)
        return (norm / self.reference_norm).clamp_max(1)

    def _without_nuisance(self, features: Tensor) -> Tensor:
        """Project (B, D) features onto the complement of the span of `nuisance`."""
        return features if self.nuisance is None else features - features @ self.nuisance.T @ self.nuisance

    def forward(self, *x: Tensor) -> tuple[Tensor, ...]:
        """Embed one batch per branch with the same weights, in one pass.

        ``z1, z2 = network(x1, x2)`` embeds pairs for `distance`; a triplet loss needs three branches. Training uses
        one, with each image of a batch once, because an image has the same embedding in each of its pairs.

        Args:
            x: one or more batches of images (B, C, H, W), see `embed`.

        Returns:
            As many batches of embeddings (B, D).
        """
        return self.embed(torch.cat(x)).split([len(part) for part in x])

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        if isinstance(self.backbone, OnnxBackbone):
            assert self.backbone.file, "it was opened"
            shutil.copyfile(self.backbone.file, save_directory / ONNX_FILE)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **options: Any
    ) -> SiameseNetwork:
        # The mixin's version ignores missing keys, falls back to a pickle file and prints to stdout.
        if not Path(model_id).is_dir():
            raise FileNotFoundError(f"there is no folder {model_id}; to load a network from the Hub, use siamese.load")
        for name in ("revision", "cache_dir", "force_download", "local_files_only", "token"):
            options.pop(name)
        file = Path(model_id, "model.safetensors")
        with torch.device("meta"):  # without memory
            described = sum(weight.nbytes for weight in cls(**options).state_dict().values())
        # The weights are in half to double precision, after a header.
        if file.is_file() and not described / 2 <= (size := file.stat().st_size) <= 2 * described + (1 << 20):
            raise ValueError(f"{file} does not hold the weights that its config.json describes: it has {size:,} bytes")
        network = cls(**options)
        try:
            network.load_state_dict(load_file(file, device=map_location), strict=True)
        except (RuntimeError, SafetensorError) as error:
            reason = textwrap.shorten(str(error), 300)
            raise ValueError(f"{file} does not hold the weights that its config.json describes: {reason}") from error
        if not all(weight.isfinite().all() for weight in network.state_dict().values()):
            raise ValueError(f"{file} holds weights that are infinite or not a number; use another file")
        if isinstance(network.backbone, OnnxBackbone):
            network.backbone.open(Path(model_id, ONNX_FILE))
        return network.to(map_location).eval()


def resize_to_input(image: Image.Image, input_shape: tuple[int, int, int]) -> Image.Image:
    """Resize an image to (C, H, W), gray if C is 1, with an antialiased bilinear filter. Proportions are not kept."""
    channels, height, width = input_shape
    return image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image of mode "L" or "RGB" as a (C, H, W) uint8 tensor."""
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()
