"""The state of a training run, and its checkpoints."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamese.files import write_atomically
from siamese.processes import broadcast_object, is_main_process

PATIENCE = 5  # epochs without a lower validation error before training stops


@dataclass
class State:
    """The state of a training run besides weights and optimizer. A checkpoint holds all three.

    Attributes:
        epoch: number of completed epochs.
        losses: the loss of each batch.
        validation_eer: equal error rate on the validation people after each epoch; empty without them.
        best: state dict of the network after the epoch with the lowest validation error; None without validation.
        seconds: training time.
    """

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    validation_eer: list[float] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    seconds: float = 0.0

    @property
    def out_of_patience(self) -> bool:
        """Whether the lowest validation error was `PATIENCE` epochs ago."""
        errors = self.validation_eer
        return bool(errors) and errors[::-1].index(min(errors)) >= PATIENCE


def save_checkpoint(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Write a checkpoint. If that fails, the previous one stays intact.

    Raises:
        OSError: if the disk is full or the folder is not writable.
    """
    content = {"state": vars(state), "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    write_atomically(file, partial(torch.save, content))


def load_checkpoint(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load a checkpoint on all processes, if the main process has one.

    Args:
        file: the checkpoint; it may not exist.
        network: gets the weights.
        optimizer: gets its state.

    Returns:
        The state of the run; a new one if there is no checkpoint.

    Raises:
        ValueError: if the file is damaged.
    """
    content: dict[str, Any] | None = None
    if is_main_process() and file.exists():
        data = io.BytesIO(file.read_bytes())
        try:
            content = torch.load(data, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises many types of exceptions for damaged files
            message = f"{file} is damaged: delete it and use --resume to train this network from the start"
            raise ValueError(message) from error
    content = broadcast_object(content)
    if content is None:
        return State()
    network.load_state_dict(content["network"])
    optimizer.load_state_dict(content["optimizer"])
    return State(**content["state"])
