"""The training loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from siamese import checkpoint
from siamese.data.dataset import IdentityDataset
from siamese.data.memory import free_bytes
from siamese.evaluation import metrics
from siamese.evaluation.pairs import score_all_pairs
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.processes import broadcast_object, is_main_process
from siamese.training.config import TrainConfig
from siamese.training.distributed import all_gather, convert_sync_batchnorm, local_slice, sum_gradients
from siamese.training.modern import ModernRecipe
from siamese.training.recipe import Batch, Recipe
from siamese.training.state import State, load_checkpoint, save_checkpoint
from siamese.training.tutorial import TutorialRecipe

Log = Callable[[str, int, dict[str, float]], None]  # gets title, epoch (from 1) and metrics


def make_recipe(config: TrainConfig) -> Recipe:
    """Build the recipe that a configuration names."""
    if config.recipe == "tutorial":
        return TutorialRecipe(config.margin)
    return ModernRecipe(config.margin, config.flip, pretrained=bool(config.init))


def initial_network(config: TrainConfig) -> tuple[SiameseNetwork, Model | None]:
    """Return the network that training starts from, on the CPU, and the model of `config.init`, if set.

    Raises:
        ValueError: if the weights of `config.init` were trained by the tutorial recipe.
        FileNotFoundError, ConnectionError: see `siamese.load`.
    """
    if not config.init:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            return make_recipe(config).network(), None
    model = checkpoint.load(config.init, device="cpu")
    if not model.network.unit:
        raise ValueError(
            f"{config.init} was trained by the tutorial recipe, which --init does not support; use weights/faces, or a "
            "network of the modern recipe"
        )
    arguments: Any = model.network._hub_mixin_config
    network = SiameseNetwork(**arguments | {"whiten": True})
    network.load_state_dict(model.network.state_dict(), strict=False)  # the whitening layer may be new
    return network, model


def fit(
    start: SiameseNetwork,
    dataset: IdentityDataset,
    config: TrainConfig,
    device: torch.device,
    file: Path,
    title: str,
    log: Log | None = None,
) -> tuple[SiameseNetwork, State]:
    """Train a copy of `start`, and continue from the checkpoint `file` if it exists.

    All random numbers of an epoch come from generators that are seeded with (seed, epoch). So on one CPU, with the same
    number of threads, a resumed run ends in exactly the same weights as an uninterrupted one.

    If the recipe has validation people, the result is the network of the epoch with the lowest error on them, and
    training stops `PATIENCE` epochs after it.

    If several processes were launched (see `siamese.training.distributed.join`), each calls this function with the same
    arguments.

    Args:
        start: the initial network.
        dataset: the people to train on.
        config: the settings.
        device: the device of this process.
        file: the checkpoint, written after each epoch.
        title: name of the network in the progress bar and the log.
        log: gets the metrics of each epoch, before its checkpoint is written. After a kill, the last epoch can
            therefore be logged twice. The metrics are mean loss, learning rate, images per second (an image in several
            pairs of a batch counts once) and, with validation people, their equal error rate.

    Returns:
        The network on `device`, with weights rounded to half precision, and the final state.

    Raises:
        ValueError: if the checkpoint is damaged.
        RuntimeError: if the loss is not finite.
    """
    # --- set up
    recipe = make_recipe(config)
    training, validation = recipe.split(dataset, config.seed)
    network = deepcopy(start)
    convert_sync_batchnorm(network)
    network = network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    state = load_checkpoint(file, network, optimizer)
    pixels = training.pixels  # (M, C, H, W) uint8
    if config.epochs and pixels.nbytes < free_bytes(device):
        pixels = pixels.to(device)

    with _progress_bar(recipe, training, config, title, state.epoch) as bar:
        while state.epoch < config.epochs and not state.out_of_patience:
            # --- one epoch
            started = time.perf_counter()
            epoch_metrics = _train_epoch(network, optimizer, recipe, training, pixels, config, state, bar)
            if validation:
                state.validation_eer.append(_validation_error(network, validation, config, state.epoch))
                epoch_metrics["validation_eer"] = state.validation_eer[-1]
                if state.validation_eer[-1] == min(state.validation_eer):
                    state.best = deepcopy(network.state_dict())
            state.epoch += 1
            state.seconds += time.perf_counter() - started
            if is_main_process():
                if log:
                    log(title, state.epoch, epoch_metrics)
                save_checkpoint(file, network, optimizer, state)

    # --- finish
    if state.best:
        network.load_state_dict(state.best)
    started = time.perf_counter()
    recipe.fit_whitening(network.eval(), dataset)
    state.seconds += time.perf_counter() - started
    # Weights are stored in half precision. Round them now, so that all measurements are of the stored weights.
    network.half().float()
    return network, state


def _train_epoch(
    network: SiameseNetwork,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    dataset: IdentityDataset,
    pixels: Tensor,
    config: TrainConfig,
    state: State,
    bar: tqdm,
) -> dict[str, float]:
    """Train for one epoch, and return its metrics for the log."""
    device, epoch, started = network.device, state.epoch, time.perf_counter()
    network.train()
    batches = recipe.epoch_batches(dataset.identity, config.batch_size, config.seed, epoch)
    random = torch.Generator(device).manual_seed(1_000_003 * config.seed + epoch)
    losses, images = [], 0
    for number, (x, labels, count) in enumerate(_prefetch(batches, dataset, pixels, device), 1):
        # x: (S, C, H, W) uint8, the share of this process of a batch of `count` images
        progress = (epoch + number / len(batches)) / config.epochs
        optimizer.param_groups[0]["lr"] = config.lr * recipe.lr_scale(progress)
        draws = torch.rand((recipe.draws, count), generator=random, device=device)[:, local_slice(count)]

        # forward
        z = network.embed(recipe.augment(x, draws))  # (S, D)
        z = all_gather(z, count)  # (B, D)
        loss = recipe.loss(z, *labels)

        # backward
        optimizer.zero_grad()
        loss.backward()
        sum_gradients(network)
        optimizer.step()

        losses.append(loss.detach())
        images += count
        bar.update()

    values = torch.stack(losses).tolist()  # the only point of an epoch that waits for the device
    speed = images / (time.perf_counter() - started)
    first_step = epoch * len(batches)
    for step, value in enumerate(values, first_step):
        if not np.isfinite(value):
            raise RuntimeError(f"the loss is {value} at step {step} (epoch {epoch + 1}): {_too_high(config)}")
    state.losses += values
    bar.set_postfix_str(f"epoch {epoch + 1}, loss {values[-1]:.3f}, {speed:.0f} images/s", refresh=False)
    rate = optimizer.param_groups[0]["lr"]
    return {"loss": float(np.mean(values)), "learning_rate": rate, "images_per_second": speed}


def _validation_error(network: SiameseNetwork, people: IdentityDataset, config: TrainConfig, epoch: int) -> float:
    """Return the equal error rate on the validation people, the same on all processes."""
    try:
        scored = score_all_pairs(network, people)
    except ValueError as error:
        message = f"distances are not finite after epoch {epoch + 1}: {_too_high(config)}"
        raise RuntimeError(message) from error
    return broadcast_object(metrics.eer(scored.distance, scored.same))


def _too_high(config: TrainConfig) -> str:
    return f"the learning rate {config.lr:g} is probably too high; start a new run with a lower --lr"


def _progress_bar(recipe: Recipe, dataset: IdentityDataset, config: TrainConfig, title: str, epoch: int) -> tqdm:
    steps = len(recipe.epoch_batches(dataset.identity, config.batch_size, config.seed, 0))  # per epoch
    return tqdm(
        desc=title,
        total=config.epochs * steps,
        initial=epoch * steps,
        unit=" batches",
        mininterval=0.1 if sys.stderr.isatty() else 30,
        disable=not (config.epochs and is_main_process()),
    )


def _prefetch(
    batches: list[Batch], dataset: IdentityDataset, pixels: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, list[Tensor], int]]:
    """Copy batches to the device, the next one while the current one is used.

    Args:
        batches: see `Recipe.epoch_batches`.
        dataset: the images that the rows of the batches refer to.
        pixels: `dataset.pixels`, on any device.
        device: the target.

    Yields:
        The images of this process, the labels of all images, and the number of all images of the batch.
    """

    def copy(rows: np.ndarray, *labels: np.ndarray) -> tuple[Tensor, list[Tensor], int]:
        own = torch.from_numpy(dataset.rows[rows[local_slice(len(rows))]]).to(pixels.device)
        return pixels[own].to(device), [torch.from_numpy(label).to(device) for label in labels], len(rows)

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(copy, *batches[0])
        for batch in batches[1:]:
            current, following = following, reader.submit(copy, *batch)
            yield current.result()
        yield following.result()
