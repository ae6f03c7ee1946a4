"""The device to compute on, and several that train one network: `accelerate launch -m siamese train …`.

Each process takes its share of every batch. One alone passes through all of this unchanged.
"""

import atexit
import os
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from siamese.network import pick_device

T = TypeVar("T")


def join(device: str) -> torch.device:
    """Join the processes that were launched, if any, and return this one's device.

    Args:
        device: see `pick_device`; where several were launched, "cpu", or "auto" for a GPU each.

    Raises:
        ValueError: where this machine has no such device.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return pick_device(device)
    from accelerate import PartialState

    if device not in ("auto", "cpu"):
        raise ValueError(f"each of several processes takes a device of its own: leave --device out, got {device!r}")
    state = PartialState(cpu=device == "cpu")
    # Else a process that ends before the others may be aborted by the threads that it talked to them with.
    atexit.register(state.destroy_process_group)
    return state.device


def is_main_process() -> bool:
    """Whether this is the process that writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def broadcast_object(value: T) -> T:
    """Return what the first process has: anything that can be pickled, tensors on the CPU."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def run_on_main(do: Callable[[], None]) -> None:
    """Do something on the first process. Where it is refused there, the others end, too, and leave the word to it.

    Raises:
        ValueError, OSError: on the first process, what `do` raises.
    """
    refusal = None
    if is_main_process():
        try:
            do()
        except (ValueError, OSError) as error:
            refusal = error
    if broadcast_object(refusal is not None):
        raise refusal or SystemExit(2)


def local_slice(count: int) -> slice:
    """Return which of the images of a batch are this process' own."""
    if not dist.is_initialized():
        return slice(count)
    size = -(-count // dist.get_world_size())
    start = min(dist.get_rank() * size, count)
    return slice(start, min(start + size, count))


def all_gather(z: Tensor, count: int) -> Tensor:
    """Return the embeddings of a whole batch, of which a gradient flows back to one's own.

    Every process so computes the loss of all pairs, and the gradient of its share; `sum_gradients` adds the shares up.

    Args:
        z: (S, D), the embeddings of `local_slice(count)`.
        count: B.

    Returns:
        (B, D).
    """
    if not dist.is_initialized():
        return z
    own, size = local_slice(count), -(-count // dist.get_world_size())
    padded = F.pad(z.detach(), (0, 0, 0, size - len(z))).contiguous()
    every = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(every, padded)
    every = torch.cat(every)
    return torch.cat([every[: own.start], z, every[own.stop : count]])


def sum_gradients(network: nn.Module) -> None:
    """Replace every gradient by its sum over the processes."""
    if not dist.is_initialized():
        return
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
