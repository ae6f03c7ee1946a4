"""Several processes that were launched to work together, for example by `accelerate launch`.

In a single process these functions do nothing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

T = TypeVar("T")


def is_main_process() -> bool:
    """Return whether this process writes files and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def broadcast_object(value: T) -> T:
    """Return the value of the main process, which must be picklable, with tensors on the CPU."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def run_on_main(function: Callable[[], T]) -> T:
    """Run a function on the main process. If it fails, the other processes exit silently.

    Returns:
        The function's value, which must be picklable, on all processes.

    Raises:
        ValueError, OSError: from `function`, on the main process.
        SystemExit: on the other processes, if `function` failed.
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


def join(device: str) -> str:
    """Join the other processes, if several were launched, for work that they do independently of each other.

    Returns:
        The device of this process, see `pick_device`.

    Raises:
        ValueError: if a device is named although there are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    if device not in ("auto", "cpu"):
        raise ValueError(f"with several processes each has its own device; remove --device {device}")
    dist.init_process_group("gloo", timeout=timedelta(days=30))  # one may wait long for another
    atexit.register(dist.destroy_process_group)
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "auto" and torch.cuda.is_available() else device
