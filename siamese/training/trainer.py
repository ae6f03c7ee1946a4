"""The training loop, and its checkpoints."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from siamese.data.dataset import IdentityDataset, free_bytes
from siamese.distributed import (
    all_gather,
    broadcast_object,
    is_main_process,
    local_slice,
    progress_bar,
    share_batches,
    sum_gradients,
)
from siamese.evaluation import metrics
from siamese.evaluation.pairs import score_all_pairs
from siamese.files import write_atomically
from siamese.network import SiameseNetwork
from siamese.record import Settings
from siamese.training.recipes import Batch, make_recipe

PATIENCE = 5  # epochs without a lower validation error before training stops

Log = Callable[[str, int, dict[str, float]], object]  # gets title, epoch (from 1) and metrics


@dataclass(frozen=True)
class Job:
    """What all networks of a run have in common.

    Each training starts from a copy of `start`, which is on the CPU. `folder` is for checkpoints. Each of `logs` gets
    the metrics of each epoch before its checkpoint is written, so after a kill the last epoch can be logged twice.
    """

    start: SiameseNetwork
    settings: Settings
    device: torch.device
    folder: Path
    logs: Sequence[Log] = ()
    progress: bool = True  # show progress bars
    shrinkage: float | None = None  # of the whitening layer, see `Recipe.finish`


@dataclass
class State:
    """The state of a training besides weights and optimizer. A checkpoint holds all three."""

    epoch: int = 0  # number of completed epochs
    losses: list[float] = field(default_factory=list)  # of each batch
    validation_eer: list[float] = field(default_factory=list)  # after each epoch; empty without validation people
    best: dict[str, Tensor] | None = None  # weights after the epoch with the lowest validation error
    seconds: float = 0.0
    shrinkage: float | None = None  # that was used

    @property
    def out_of_patience(self) -> bool:
        """Whether the lowest validation error was `PATIENCE` epochs ago."""
        errors = self.validation_eer
        return bool(errors) and errors[::-1].index(min(errors)) >= PATIENCE


class Trainer:
    """Trains one network, and continues from its checkpoint if there is one.

    All random numbers of an epoch come from generators that are seeded with (seed, epoch). So on one CPU, with the same
    number of threads, a resumed run ends in exactly the same weights as an uninterrupted one.

    The recipe may use some of the people to validate. The title names the network in the progress bar, the log and its
    checkpoint. If several processes were launched, each builds a trainer with the same arguments.
    """

    def __init__(self, job: Job, dataset: IdentityDataset, title: str):
        self.job, self.dataset, self.title = job, dataset, title
        self.recipe = make_recipe(job.settings)
        self.training, self.validation = self.recipe.split(dataset)
        self.network = deepcopy(job.start)
        self.shared = share_batches(self.network, job.device)
        self.network.to(job.device).train()
        groups = [
            {"params": parameters, "factor": factor}
            for parameters, factor in self.recipe.parameter_groups(self.network)
        ]
        self.optimizer = torch.optim.Adam(groups, lr=job.settings.lr, fused=True)
        # The scratch networks stay in single precision: they are small, and their results are measured in it.
        self.mixed = job.device.type == "cuda" and bool(job.settings.init)
        self.checkpoint = job.folder / f"{title.replace(' ', '-')}.pt"
        self.state = self._load_checkpoint()
        self.pixels = self.training.pixels  # (M, C, H, W) uint8
        if job.settings.epochs and self.pixels.nbytes < free_bytes(job.device):
            self.pixels = self.pixels.to(job.device)

    def train(self) -> tuple[SiameseNetwork, State]:
        """Train the network. Returns it, on the job's device, with weights rounded to half precision; and the state.

        If the recipe has validation people, the result is the network of the epoch with the lowest error on them, and
        training stops `PATIENCE` epochs after it.
        """
        state = self.state
        with self._progress_bar() as bar:
            while state.epoch < self.job.settings.epochs and not state.out_of_patience:
                # --- one epoch
                started = time.perf_counter()
                epoch_metrics = self._train_epoch(bar)
                if self.validation:
                    epoch_metrics["validation_eer"] = self._validate(self.validation)
                state.epoch += 1
                state.seconds += time.perf_counter() - started
                if is_main_process():
                    for log in self.job.logs:
                        log(self.title, state.epoch, dict(epoch_metrics))
                    self._save_checkpoint()

        # --- finish
        if state.best:
            self.network.load_state_dict(state.best)
        started = time.perf_counter()
        state.shrinkage = self.recipe.finish(self.network.eval(), self.dataset, self.job.shrinkage)
        state.seconds += time.perf_counter() - started
        # Weights are stored in half precision. Round them now, so that all measurements are of the stored weights.
        self.network.half().float()
        return self.network, state

    def _train_epoch(self, bar: tqdm) -> dict[str, float]:
        """Train for one epoch, and return its metrics for the log."""
        network, recipe, settings, device = self.network.train(), self.recipe, self.job.settings, self.job.device
        epoch, started = self.state.epoch, time.perf_counter()
        batches = recipe.epoch_batches(self.training.identity, epoch)
        random = torch.Generator(device).manual_seed(1_000_003 * settings.seed + epoch)
        losses, images = [], 0
        for number, (x, labels, count) in enumerate(self._prefetch(batches), 1):
            # x: (S, C, H, W) uint8, the share of this process of a batch of `count` images
            progress = (epoch + number / len(batches)) / settings.epochs
            rate = settings.lr * recipe.lr_scale(progress)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            share = self._share(count)
            draws = torch.rand((recipe.draws, count), generator=random, device=device)[:, share]

            # forward
            with torch.autocast(device.type, torch.bfloat16, enabled=self.mixed):
                (z,) = network(recipe.augment(x, draws, *(label[share] for label in labels)))  # (S, D)
            z = z.float()
            if self.shared:
                z = all_gather(z, count)  # (B, D)
            loss = recipe.loss(z, *labels)

            # backward
            self.optimizer.zero_grad()
            loss.backward()
            if self.shared:
                sum_gradients(network)
            self.optimizer.step()

            losses.append(loss.detach())
            images += count
            bar.update()

        values = torch.stack(losses).tolist()  # the only point of an epoch that waits for the device
        speed = images / (time.perf_counter() - started)
        for step, value in enumerate(values, epoch * len(batches)):
            if not np.isfinite(value):
                raise RuntimeError(f"the loss is {value} at step {step} (epoch {epoch + 1}): {self._too_high()}")
        self.state.losses += values
        bar.set_postfix_str(f"epoch {epoch + 1}, loss {values[-1]:.3f}, {speed:.0f} images/s", refresh=False)
        rate = settings.lr * recipe.lr_scale((epoch + 1) / settings.epochs)
        return {"loss": float(np.mean(values)), "learning_rate": rate, "images_per_second": speed}

    def _share(self, count: int) -> slice:
        return local_slice(count) if self.shared else slice(count)

    def _prefetch(self, batches: list[Batch]) -> Iterator[tuple[Tensor, list[Tensor], int]]:
        """Copy batches to the device, the next one while the current one is used.

        Yields the images of this process, the labels of all images, and the number of all images of the batch.
        """
        device = self.job.device

        def copy(rows: np.ndarray, *labels: np.ndarray) -> tuple[Tensor, list[Tensor], int]:
            own = torch.from_numpy(self.training.rows[rows[self._share(len(rows))]]).to(self.pixels.device)
            return self.pixels[own].to(device), [torch.from_numpy(label).to(device) for label in labels], len(rows)

        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(copy, *batches[0])
            for batch in batches[1:]:
                current, following = following, reader.submit(copy, *batch)
                yield current.result()
            yield following.result()

    def _validate(self, people: IdentityDataset) -> float:
        """Keep the best weights. Returns the equal error rate on the validation people, equal on all processes."""
        state = self.state
        try:
            scored = score_all_pairs(self.network, people)
        except ValueError as error:
            message = f"distances are not finite after epoch {state.epoch + 1}: {self._too_high()}"
            raise RuntimeError(message) from error
        state.validation_eer.append(broadcast_object(metrics.eer(scored.distance, scored.same)))
        if state.validation_eer[-1] == min(state.validation_eer):
            state.best = deepcopy(self.network.state_dict())
        return state.validation_eer[-1]

    def _too_high(self) -> str:
        rate = f"{self.job.settings.lr:g}"
        return f"the learning rate {rate} is probably too high; start a new run with a lower --lr"

    def _progress_bar(self) -> tqdm:
        epochs = self.job.settings.epochs
        steps = len(self.recipe.epoch_batches(self.training.identity, 0))  # per epoch
        return progress_bar(
            desc=self.title,
            total=epochs * steps,
            initial=self.state.epoch * steps,
            unit=" batches",
            shown=bool(epochs and self.job.progress),
        )

    def _save_checkpoint(self) -> None:
        """Write a checkpoint. If that fails, the previous one stays intact."""
        parts = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        write_atomically(self.checkpoint, partial(torch.save, {"state": vars(self.state), **parts}))

    def _load_checkpoint(self) -> State:
        """Load the checkpoint of the main process on all processes; a new state if there is none."""
        content: dict[str, Any] | None = None
        if is_main_process() and self.checkpoint.exists():
            data = io.BytesIO(self.checkpoint.read_bytes())
            try:
                content = torch.load(data, map_location="cpu", weights_only=True)
            except Exception as error:  # torch.load raises many types of exceptions for damaged files
                message = (
                    f"{self.checkpoint} is damaged: delete it and use --resume to train this network from the start"
                )
                raise ValueError(message) from error
        content = broadcast_object(content)
        if content is None:
            return State()
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        return State(**content["state"])
