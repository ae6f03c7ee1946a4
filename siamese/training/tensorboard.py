"""Logging for TensorBoard."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardLog:
    """A log for `fit`: one TensorBoard run (a folder) per network, and one step per epoch.

    Args:
        folder: the folder of all runs; created with the first metrics.

    Raises:
        ImportError: if TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an optional dependency

        self._folder, self._new_writer = folder, SummaryWriter
        self._writers: dict[str, SummaryWriter] = {}

    def __call__(self, title: str, epoch: int, metrics: dict[str, float]) -> None:
        """Write the metrics of one epoch of a network."""
        if title not in self._writers:
            # A killed run can have logged epochs after its last checkpoint. `purge_step` makes TensorBoard ignore them.
            self._writers[title] = self._new_writer(self._folder / title, purge_step=epoch)
        for name, value in metrics.items():
            self._writers[title].add_scalar(name, value, epoch)
        self._writers[title].flush()

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()


def clear_tensorboard(folder: Path) -> None:
    """Delete the files of `TensorBoardLog`, and the folders that are empty then."""
    for file in folder.glob("*/events.out.tfevents.*"):
        file.unlink()
    for directory in (*folder.glob("*"), folder):
        with contextlib.suppress(OSError):
            directory.rmdir()
