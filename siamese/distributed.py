"""Several processes that work together, for example those of `accelerate launch` or `torchrun`.

In a single process these functions do nothing.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from siamese.checkpoint import pick_device

T = TypeVar("T")
LOG_INTERVAL = 30  # seconds between two lines of a progress bar that is not on a terminal


def join(device: str) -> torch.device:
    """Join the other processes, if several were launched, and return the device of this process."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return pick_device(device)
    if device not in ("auto", "cpu"):
        raise ValueError(f"with several processes each has its own device; remove --device {device}")
    own, backend = torch.device("cpu"), "gloo"
    if device == "auto" and torch.cuda.is_available():
        own, backend = torch.device("cuda", int(os.environ["LOCAL_RANK"])), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(own)
    if not dist.is_initialized():  # as by an earlier training
        dist.init_process_group(backend, timeout=timedelta(days=30))  # one may wait long for another
        # Without this, a process that exits before the others can be aborted by its communication threads.
        atexit.register(dist.destroy_process_group)
    return own


def is_main_process() -> bool:
    """Return whether this process writes files and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def progress_bar(*args: Any, shown: bool = True, **options: Any) -> tqdm:
    """Return a progress bar on stderr, if it is `shown` and this is the main process. See `tqdm` for the options."""
    if not sys.stderr.isatty():
        options |= {"mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL}
    return tqdm(*args, disable=not (shown and is_main_process()), **options)


def broadcast_object(value: T) -> T:
    """Return the value of the main process, which must be picklable, with tensors on the CPU."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def run_on_main(function: Callable[[], T]) -> T:
    """Run a function on the main process, and return its value, which must be picklable, on all processes.

    If it fails with a ValueError or an OSError, the main process raises it, and the other processes exit silently.
    """
    value, failure = None, None
    if is_main_process():
        try:
            value = function()
        except (ValueError, OSError) as error:
            failure = error
    value, failed = broadcast_object((value, failure is not None))
    if failed:
        raise failure or SystemExit(2)
    return cast(T, value)


# --- training: each process embeds its share of every batch


def share_batches(network: nn.Module, device: torch.device) -> bool:
    """Prepare a network for processes that each embed a share of every batch, and return whether they do.

    Batch normalization needs the statistics of the whole batch, and PyTorch synchronizes them on GPUs only. A network
    that has such layers is not shared on CPUs: each process embeds whole batches, so that the result is the same.
    """
    if not dist.is_initialized():
        return False
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return True
    return not any(isinstance(layer, _BatchNorm) for layer in network.modules())


def local_slice(count: int) -> slice:
    """Return which images of a shared batch of `count` this process embeds."""
    size = -(-count // dist.get_world_size())
    start = min(dist.get_rank() * size, count)
    return slice(start, min(start + size, count))


def all_gather(z: Tensor, count: int) -> Tensor:
    """Return the embeddings (B, D) of the whole batch, given (S, D) of `local_slice(count)`, B = `count`.

    Gradients flow only to the embeddings of this process. Every process then computes the loss of all pairs, and the
    gradient of its own embeddings; `sum_gradients` adds the gradients of all processes. The gather of PyTorch needs
    equal shares, and its gradient would count every process.
    """
    own = local_slice(count)
    whole = z.new_zeros(count, z.shape[1])
    whole[own] = z.detach()
    dist.all_reduce(whole)
    return torch.cat([whole[: own.start], z, whole[own.stop :]])


def sum_gradients(network: nn.Module) -> None:
    """Replace each gradient by its sum over all processes."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
