"""Networks of timm (Wightman, "PyTorch Image Models", 2019) as backbones. Requires the extra `timm`."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from siamese.network import TIMM

MAX_PARAMETERS = 256 << 20  # a file of 512 MB


class Normalize(nn.Module):
    """Subtract a mean from each channel, and divide by a standard deviation: those of a network's training images."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class TimmBackbone(nn.Sequential):
    """A network of timm without its classifier, and a linear layer if `embedding_dim` is not what it outputs.

    Mean, standard deviation and size of the input are timm's. A result folder holds everything but timm's code, so it
    is loaded without the Hub. The statistics of batch normalization stay as they are, also in training.

    Raises:
        ValueError: if timm has no network of this name, or it is too large.
    """

    def __init__(self, name: str, embedding_dim: int, image_size: int | None = None):
        features = number_of_features(name)
        model: Any = timm.create_model(name, num_classes=0)
        config = resolve_model_data_config(model)
        if image_size and image_size != config["input_size"][1] and model.pretrained_cfg.get("fixed_input_size"):
            raise ValueError(f"{TIMM}{name} needs images of {config['input_size'][1]} pixels, got {image_size}")
        last = nn.Linear(features, embedding_dim) if embedding_dim != features else nn.Identity()
        super().__init__(Normalize(config["mean"], config["std"]), model, last)
        self.name = name
        self.input_shape = (3, image_size, image_size) if image_size else config["input_size"]

    def train(self, mode: bool = True) -> TimmBackbone:
        """Set the mode of all layers, except those whose statistics stay as they are."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def load_pretrained(self) -> None:
        """Load the pretrained weights from the Hub.

        Raises:
            ConnectionError: if they cannot be downloaded.
        """
        try:
            pretrained = timm.create_model(self.name, pretrained=True, num_classes=0)
        except (OSError, RuntimeError) as error:
            problem = str(error).strip().splitlines()[0]
            raise ConnectionError(f"cannot load the weights of {TIMM}{self.name} from the Hub: {problem}") from error
        self[1].load_state_dict(pretrained.state_dict())


def number_of_features(name: str) -> int:
    """Return how many numbers a network of timm, `name` or timm/`name`, outputs without its classifier."""
    name = name.removeprefix(TIMM)
    if ":" in name or not timm.is_model(name):  # a colon would load code or settings from elsewhere
        raise ValueError(f"timm has no network {name!r}; timm.list_models() names all that it has")
    with torch.device("meta"):  # without memory
        model: Any = timm.create_model(name, num_classes=0)
    if (count := sum(parameter.numel() for parameter in model.parameters())) > MAX_PARAMETERS:
        raise ValueError(f"{TIMM}{name} has {count:,} parameters, the limit is {MAX_PARAMETERS:,}")
    return model.head_hidden_size if hasattr(model, "head_hidden_size") else model.num_features
