"""The Siamese network: one set of weights looks at both images, and the distance of the two vectors is the answer."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

HERE = Path(__file__).parent


class _Sum(torch.autograd.Function):
    """The sum over the processes, as is that of the gradients that come back."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    backward = forward


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the mean and variance of the whole batch, of which each process sees a share.

    PyTorch's own SyncBatchNorm does the same on GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        count = torch.full_like(self.running_mean, x.numel() / x.shape[1])
        total, squares, count = _Sum.apply(torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count]))
        mean = total / count
        variance = squares / count - mean.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class TutorialBackbone(nn.Sequential):
    """The convolutional network of the DataHacker tutorial; 38 M multiply-adds an image."""

    input_shape = (1, 100, 100)

    def __init__(self, embedding_dim: int):
        # fmt: off
        super().__init__(                                                              # (B,   1, 100, 100)
            nn.Conv2d(1, 96, kernel_size=11, stride=4), nn.ReLU(), nn.MaxPool2d(3, 2), # (B,  96,  11,  11)
            nn.Conv2d(96, 256, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2, 2),          # (B, 256,   3,   3)
            nn.Conv2d(256, 384, kernel_size=3), nn.ReLU(), nn.Flatten(),               # (B, 384)
            nn.Linear(384, 1024), nn.ReLU(),
            nn.Linear(1024, 256), nn.ReLU(),
            nn.Linear(256, embedding_dim),
        )
        # fmt: on


class Residual(nn.Module):
    """Two convolutions whose result is added to their input (He et al., CVPR 2016); `halving` halves height and width.

    Halving strides are unpadded, as in dlib: where the two sides of the addition then differ in size or channels, the
    smaller is filled up with zeros.
    """

    def __init__(self, inputs: int, outputs: int, halving: bool = False):
        super().__init__()
        self.halving = halving
        stride, padding = (2, 0) if halving else (1, 1)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.halving:
            x = F.avg_pool2d(x, 2)
            (channels, height, width), (c, h, w) = x.shape[1:], y.shape[1:]
            x = F.pad(x, (0, max(w - width, 0), 0, max(h - height, 0), 0, c - channels))
            y = F.pad(y, (0, max(width - w, 0), 0, max(height - h, 0)))
        return F.relu(x + y)


class ResNet29(nn.Sequential):
    """Davis King's face network of dlib: 29 convolutions, 5.6 M parameters; its batch norms are folded into them."""

    input_shape = (3, 150, 150)

    def __init__(self, embedding_dim: int):
        # fmt: off
        super().__init__(                                                                # (B,   3, 150, 150)
            nn.Sequential(nn.Conv2d(3, 32, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2)), # (B,  32,  35,  35)
            nn.Sequential(*(Residual(32, 32) for _ in range(3))),
            nn.Sequential(Residual(32, 64, halving=True), *(Residual(64, 64) for _ in range(3))),      # 17 × 17
            nn.Sequential(Residual(64, 128, halving=True), *(Residual(128, 128) for _ in range(2))),   #  8 ×  8
            nn.Sequential(Residual(128, 256, halving=True), *(Residual(256, 256) for _ in range(2))),  #  4 ×  4
            nn.Sequential(Residual(256, 256, halving=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()),    # (B, 256)
            nn.Linear(256, embedding_dim, bias=False),
        )
        # fmt: on


class LocalContrast(nn.Module):
    """Subtract from each pixel the mean of the window around it and divide by the window's standard deviation, so that
    light and its gradients do not matter (Jarrett et al., ICCV 2009).

    Args:
        side: height and width of the images.
        window: height and width of the window, odd; at the border it is cut off.
    """

    def __init__(self, side: int, window: int):
        super().__init__()
        place = torch.arange(side)
        near = ((place[:, None] - place).abs() <= window // 2).float()
        self.register_buffer("mean", near / near.sum(1, keepdim=True), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.local_mean(x)
        return x / (self.local_mean(x.square()).sqrt() + 0.03)  # 0.03 of the range: flat regions stay flat

    def local_mean(self, x: Tensor) -> Tensor:
        return self.mean @ x.mean(1, keepdim=True) @ self.mean.T


class SmallBackbone(nn.Sequential):
    """A small network to train from scratch on few images; it keeps where in the picture each feature was seen."""

    input_shape = (3, 48, 48)

    def __init__(self, embedding_dim: int):
        def block(inputs: int, outputs: int, kernel_size: int, stride: int) -> tuple[nn.Module, ...]:
            convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
            return convolution, BatchNorm(outputs), nn.ReLU()

        # fmt: off
        super().__init__(                                                              # (B,  3, 48, 48)
            LocalContrast(48, window=13),
            *block(3, 32, kernel_size=5, stride=2),                                    # (B, 32, 24, 24)
            *block(32, 64, kernel_size=3, stride=1), nn.MaxPool2d(2),                  # (B, 64, 12, 12)
            *block(64, 128, kernel_size=3, stride=1), nn.AvgPool2d(2), nn.Flatten(),   # (B, 128 × 6 × 6)
            nn.Linear(128 * 6 * 6, embedding_dim),
        )
        # fmt: on


BACKBONES = {"tutorial": TutorialBackbone, "resnet29": ResNet29, "small": SmallBackbone}


def distance(z1: Tensor, z2: Tensor) -> Tensor:
    """Return the Euclidean distance of each pair of embeddings: the one distance of training, evaluation and demo.

    Args:
        z1: (..., D) float embeddings.
        z2: (..., D) float embeddings of the other images.

    Returns:
        (...) float, ≥ 0 and 0 exactly where the two are equal. Its gradient is finite everywhere: 0 at distance 0.
    """
    return torch.linalg.vector_norm(z1 - z2, dim=-1)


class SiameseNetwork(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="siamese",
    tags=["siamese-network", "contrastive-loss", "image-similarity"],
):
    """Two branches that share every weight (Bromley et al., NIPS 1993), ending in one embedding an image.

    `save_pretrained`, `from_pretrained` and `push_to_hub` come from the Hub's mixin; loading is strict and reads
    safetensors only.

    Args:
        backbone: the name of the layers, a key of `BACKBONES`.
        embedding_dim: D, the length of an embedding, 1 to 1024.
        mirror: in use, though not in training, embed an image as the mean over itself and its mirror image.
        unit: scale embeddings to length 1, so that distances lie in [0, 2].
        whiten: before that, pass them through one more linear layer, which `strong.fit_whitening` sets; at first it changes
            nothing.

    Raises:
        ValueError: for an unknown backbone or a length out of range, before anything is allocated.
    """

    def __init__(
        self,
        backbone: str = "tutorial",
        embedding_dim: int = 2,
        mirror: bool = False,
        unit: bool = False,
        whiten: bool = False,
    ):
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}; this version knows: {', '.join(BACKBONES)}")
        if not (isinstance(embedding_dim, int) and 1 <= embedding_dim <= 1024):
            raise ValueError(f"embedding_dim must be a whole number from 1 to 1024, got {embedding_dim!r}")
        self.backbone = BACKBONES[backbone](embedding_dim).to(memory_format=torch.channels_last)
        self.input_shape = self.backbone.input_shape
        self.mirror, self.unit = mirror, unit
        self.whitening = nn.Linear(embedding_dim, embedding_dim) if whiten else nn.Identity()
        if whiten:
            nn.init.eye_(self.whitening.weight)
            nn.init.zeros_(self.whitening.bias)
            self.whitening.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def embed(self, x: Tensor) -> Tensor:
        """Turn images into embeddings.

        Args:
            x: (B, C, H, W) with (C, H, W) = `input_shape`; uint8 in [0, 255], or floating point in [0, 1].

        Returns:
            (B, D) in the dtype of the weights.

        Raises:
            ValueError: where the images have another shape.
        """
        return self.finish(self.begin(x, 0), 0)

    def begin(self, x: Tensor, stages: int) -> Tensor:
        """Run the first stages of the backbone on images (see `embed`) and, where they count, on their mirror images,
        which follow: what training need compute once if these stages are frozen."""
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                f"expected images of shape (B, {', '.join(map(str, self.input_shape))}), got {tuple(x.shape)}"
            )
        dtype = next(self.parameters()).dtype
        x = x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)
        if self.mirror and not self.training:
            x = torch.cat([x, x.flip(3)])
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in list(self.backbone)[:stages]:
            x = stage(x)
        return x

    def finish(self, features: Tensor, stages: int) -> Tensor:
        """Run the other stages on what `begin` returned, to (B, D) embeddings."""
        z = features
        for stage in list(self.backbone)[stages:]:
            z = stage(z)
        if self.mirror and not self.training:
            z = torch.stack(z.tensor_split(2)).mean(0)
        z = self.whitening(z)
        return F.normalize(z) if self.unit else z

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both sides of each pair in one pass.

        Args:
            x1: (B, C, H, W), see `embed`.
            x2: (B, C, H, W), see `embed`.

        Returns:
            Two (B, D) tensors, z1 and z2, for `distance`.
        """
        return self.embed(torch.cat([x1, x2])).tensor_split(2)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **options):
        # The mixin's own loads missing keys in silence, falls back to a pickle and prints to stdout.
        hub = {k: options.pop(k) for k in ("revision", "cache_dir", "force_download", "local_files_only", "token")}
        network = cls(**options)
        if Path(model_id).is_dir():
            file = Path(model_id, "model.safetensors")
        else:
            file = hf_hub_download(model_id, "model.safetensors", **hub)
        most = 2 * sum(weight.nbytes for weight in network.state_dict().values()) + (1 << 20)  # in double, and a header
        if Path(file).is_file() and Path(file).stat().st_size > most:
            raise ValueError(
                f"{file} is larger than the network that its config.json describes: at most {most:,} bytes"
            )
        try:
            network.load_state_dict(load_file(file, device=map_location), strict=True)
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"{file} does not hold the weights that its config.json describes: {error}") from error
        return network.to(map_location).eval()


def bundled_weights(name: str) -> Path:
    """Return the folder of weights that come with the project: `faces`, `att` or `mtcnn`."""
    repository, package = (folder / "weights" / name for folder in (HERE.parent, HERE))
    return repository if repository.is_dir() else package


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: where PyTorch knows no such device or this machine has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"this machine has no device {name!r}; use cpu, or auto for the best there is") from error
    return device
