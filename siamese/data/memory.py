"""Allocate large tensors, in memory or in a temporary file."""

import contextlib
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from siamese.files import cache_folder

PROCESSES = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # on this machine; each of them holds all images
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
MAX_DISK_SHARE = 0.9  # of the free disk space


def free_bytes(device: torch.device) -> int:
    """Return how many bytes of images this process may put on a device: half of its share of what is free there."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or no limit
        free = min(free, int(CGROUP_LIMIT.read_text()) - PROCESSES * psutil.Process().memory_info().rss)
    return free // 2 // PROCESSES


def allocate(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    """Return an uninitialised tensor on the CPU: in memory if it fits, else in a file in `cache_folder()`.

    The file is unlinked at once, so the system frees its disk space when the tensor is deleted or the process ends.

    Raises:
        OSError: if the tensor fits neither into memory nor onto the disk.
    """
    size, folder = math.prod(shape) * dtype.itemsize, cache_folder()
    if size <= free_bytes(torch.device("cpu")):
        return torch.empty(shape, dtype=dtype)
    folder.mkdir(parents=True, exist_ok=True)
    if size * PROCESSES > MAX_DISK_SHARE * (free := shutil.disk_usage(folder).free):
        raise OSError(
            f"the data need {size * PROCESSES / 1e9:.1f} GB, more than the free memory and the {free / 1e9:.1f} GB "
            f"free in {folder}; free some space, or set XDG_CACHE_HOME to another folder"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # reserve the space now: a full disk would kill the process at a later write
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=size)).view(dtype).view(shape)
