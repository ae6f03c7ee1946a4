"""Train one network with several processes: `accelerate launch -m siamese train ...`.

Each process embeds its share of every batch. In a single process these functions do nothing.
"""

from __future__ import annotations

import atexit
import os
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from siamese.checkpoint import pick_device


def join(device: str) -> torch.device:
    """Join the process group, if several processes were launched, and return the device of this process.

    Args:
        device: see `pick_device`; with several processes "cpu", or "auto" for one GPU each.

    Raises:
        ValueError: if this machine does not have the device, or it is named although there are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return pick_device(device)
    from accelerate import PartialState

    if device not in ("auto", "cpu"):
        raise ValueError(f"with several processes each has its own device; remove --device {device}")
    state = PartialState(cpu=device == "cpu")
    # Without this, a process that exits before the others can be aborted by its communication threads.
    atexit.register(state.destroy_process_group)
    return torch.device(state.device or "cpu")


def local_slice(count: int) -> slice:
    """Return which images of a batch of `count` this process embeds."""
    if not dist.is_initialized():
        return slice(count)
    size = -(-count // dist.get_world_size())
    start = min(dist.get_rank() * size, count)
    return slice(start, min(start + size, count))


def all_gather(z: Tensor, count: int) -> Tensor:
    """Return the embeddings of the whole batch. Gradients flow only to those of this process.

    Every process then computes the loss of all pairs, and the gradient of its own embeddings; `sum_gradients` adds the
    gradients of all processes. The gather of PyTorch needs equal shares, and its gradient would count every process.

    Args:
        z: (S, D), the embeddings of `local_slice(count)`.
        count: B, the size of the whole batch.

    Returns:
        (B, D).
    """
    if not dist.is_initialized():
        return z
    own = local_slice(count)
    whole = z.new_zeros(count, z.shape[1])
    whole[own] = z.detach()
    dist.all_reduce(whole)
    return torch.cat([whole[: own.start], z, whole[own.stop :]])


def sum_gradients(network: nn.Module) -> None:
    """Replace each gradient by its sum over all processes."""
    if not dist.is_initialized():
        return
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def convert_sync_batchnorm(network: nn.Module) -> None:
    """Replace each `BatchNorm2d` in a network by one that uses the statistics of the whole batch.

    The keys of the state dict stay the same. In a single process the network is not changed.
    """
    if not dist.is_initialized():
        return
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            synchronized = SyncBatchNorm2d(child.num_features).to(child.weight)
            synchronized.load_state_dict(child.state_dict())
            setattr(network, name, synchronized)
        else:
            convert_sync_batchnorm(child)


class _AllReduce(torch.autograd.Function):
    """The sum over all processes; its gradient is also summed. `torch.distributed.nn.functional` is deprecated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _AllReduce.forward(ctx, *gradients)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the mean and variance of the whole batch, of which each process has a share.

    PyTorch's own SyncBatchNorm supports GPUs only.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) features, and update the running statistics in training mode."""
        x, statistics = input, cast(Any, self)  # PyTorch allows None for them
        if not self.training:
            return super().forward(x)
        count = torch.full_like(statistics.running_mean, x.numel() / x.shape[1])  # (C,)
        sums = torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count])  # (3, C)
        total, squares, count = _AllReduce.apply(sums)
        mean = total / count
        variance = squares / count - mean.square()
        with torch.no_grad():
            statistics.running_mean.lerp_(mean, self.momentum)
            statistics.running_var.lerp_(variance * count / (count - 1), self.momentum)
            statistics.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
