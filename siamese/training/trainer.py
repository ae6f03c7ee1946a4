"""The training loop, from top to bottom, and the folds."""

import io
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from siamese import calibration as calibrate
from siamese import checkpoint as store
from siamese.data import dataset as data
from siamese.data.dataset import IdentityDataset
from siamese.evaluation import metrics
from siamese.evaluation.pairs import Scored, score_all_pairs
from siamese.files import write_atomically
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.training import distributed as devices
from siamese.training import modern as strong
from siamese.training import tutorial as seed
from siamese.training.config import TrainConfig

RECIPES = {"tutorial": seed, "modern": strong}
PATIENCE = 5  # epochs without a lower error among the people who validate
LOG_EVERY = 10  # batches

Log = Callable[[str, int, dict[str, float]], None]  # takes which network, the epoch, from 1, and its numbers


def first_network(config: TrainConfig) -> tuple[SiameseNetwork, Model | None]:
    """Return the network that training starts from, and the model named by `init`, whose weights it has.

    Without one, its weights are drawn by the seed.

    Raises:
        ValueError: where the weights are of the seed's recipe, or more stages are to be frozen than leave one to train.
        FileNotFoundError, ConnectionError: see `store.load`.
    """
    if not config.init:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            return RECIPES[config.recipe].network(config), None
    model = store.load(config.init, device="cpu")
    if not model.network.unit:
        raise ValueError(
            f"{config.init} was trained by the seed's recipe, which cannot be built on: begin from weights/faces, or "
            "from a network of the strong recipe"
        )
    if config.freeze >= (stages := len(model.network.backbone)):
        raise ValueError(f"the network has {stages} stages: freeze fewer, got {config.freeze}")
    network = SiameseNetwork(**{**model.network._hub_mixin_config, "whiten": True})
    network.load_state_dict(model.network.state_dict(), strict=False)
    return network, model


class Fitted(NamedTuple):
    """A trained network on its device, the loss of every tenth batch, the seconds that the epochs took, and the equal
    error rate among the validation people after each epoch (none where nobody validates)."""

    network: SiameseNetwork
    losses: list[float]
    seconds: float
    validation: list[float]


def fit(
    start: SiameseNetwork,
    dataset: IdentityDataset,
    config: TrainConfig,
    device: torch.device,
    checkpoint: Path,
    title: str,
    log: Log | None = None,
) -> Fitted:
    """Train a copy of `start` on these people, from the last whole epoch of `checkpoint` if there is one.

    Each epoch draws all that it leaves to chance from generators seeded by (seed, epoch), so a resumed run sees what an
    unbroken one sees; on one CPU with one number of threads the two end in the same bits.

    Where a recipe has people validate, the network is that of the epoch after which they were told apart best, and
    training ends when that was `PATIENCE` epochs ago.

    Where several processes were launched (see `devices.join`), all call this with the same arguments.

    `log` is told of each epoch before its checkpoint is written, so that after a kill none is missing there, but the
    last may come again: the mean loss, the learning rate at the end, the images a second (an image that several pairs
    of a batch share counts once) and, where people validate, their equal error rate.

    Raises:
        ValueError: where the checkpoint is damaged.
        RuntimeError: where the loss is no longer a number.
    """
    recipe = RECIPES[config.recipe]
    training, validation = recipe.split(dataset, config.seed)
    network = deepcopy(start).to(device).train()
    for stage in list(network.backbone)[: config.freeze]:
        stage.requires_grad_(False).eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    state = {"epoch": 0, "losses": [], "seconds": 0.0, "validation": [], "best": None}
    if saved := devices.broadcast_object(_read_checkpoint(checkpoint)):
        network.load_state_dict(saved.pop("network"))
        optimizer.load_state_dict(saved.pop("optimizer"))
        state |= saved
    losses, errors = state["losses"], state["validation"]

    # An epoch decodes no image, and repeats no arithmetic of frozen stages.
    inputs, place = training.pixels, training.rows
    if config.freeze and config.epochs:
        inputs, place = _begin(network, training, config.freeze), np.arange(len(training))
    if config.epochs and inputs.nbytes < data.room(device):
        inputs = inputs.to(device)
    steps = len(recipe.epoch_batches(training.identity, config, 0))  # an epoch
    too_high = f"the learning rate {config.lr:g} is probably too high; start anew with a lower one"
    with tqdm(
        desc=title,
        total=config.epochs * steps,
        initial=state["epoch"] * steps,
        unit=" batches",
        mininterval=0.1 if sys.stderr.isatty() else 30,
        disable=not devices.is_main_process(),
    ) as bar:
        for epoch in range(state["epoch"], config.epochs):
            if errors and errors[::-1].index(min(errors)) >= PATIENCE:
                break
            began = time.perf_counter()
            chance = torch.Generator(device).manual_seed(1_000_003 * config.seed + epoch)
            values, images = [], 0
            drawn = recipe.epoch_batches(training.identity, config, epoch)
            for number, (mine, count, x, labels) in enumerate(_feed(inputs, place, drawn, device), 1):
                optimizer.param_groups[0]["lr"] = config.lr * recipe.lr_scale((epoch + number / steps) / config.epochs)
                draws = torch.rand((recipe.DRAWS, count), generator=chance, device=device)[:, mine]
                z = (
                    network.finish(x, config.freeze)
                    if config.freeze
                    else network.embed(recipe.augment(x, draws, config))
                )
                loss = recipe.loss(devices.all_gather(z, count), *labels, config)
                optimizer.zero_grad()
                loss.backward()
                devices.sum_gradients(network)
                optimizer.step()
                values.append(loss.detach())
                images += count
                bar.update()
            values = torch.stack(values).tolist()  # only here does the host wait for the device
            speed = images / (time.perf_counter() - began)
            for step, value in enumerate(values, epoch * steps):
                if not np.isfinite(value):
                    raise RuntimeError(f"the loss is {value} at step {step} (epoch {epoch + 1}): {too_high}")
                if step % LOG_EVERY == 0:
                    losses.append(value)
            bar.set_postfix_str(f"epoch {epoch + 1}, loss {value:.3f}, {speed:.0f} images/s", refresh=False)
            if validation:
                try:
                    errors.append(devices.broadcast_object(metrics.eer(*score_all_pairs(network, validation)[:2])))
                except ValueError as error:
                    raise RuntimeError(
                        f"distances are not finite at step {step} (epoch {epoch + 1}): {too_high}"
                    ) from error
                if errors[-1] == min(errors):
                    state["best"] = deepcopy(network.state_dict())
                network.train()
            if log and devices.is_main_process():
                rate = optimizer.param_groups[0]["lr"]
                numbers = {"loss": float(np.mean(values)), "learning_rate": rate, "images_per_second": speed}
                log(title, epoch + 1, numbers | ({"validation_eer": errors[-1]} if validation else {}))
            state["epoch"] = epoch + 1
            state["seconds"] += time.perf_counter() - began
            if devices.is_main_process():
                whole = {**state, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
                write_atomically(checkpoint, partial(torch.save, whole))
    if state["best"]:
        network.load_state_dict(state["best"])
    began = time.perf_counter()
    recipe.fit_whitening(network.eval(), dataset, config)
    state["seconds"] += time.perf_counter() - began
    # Half precision halves the download; all that is measured is measured on the rounded weights that ship.
    return Fitted(network.half().float(), losses, state["seconds"], errors)


@torch.no_grad()
def _begin(network: SiameseNetwork, dataset: IdentityDataset, stages: int) -> Tensor:
    """Run the first stages on all images: (N, …), in memory or in a file."""
    features = None
    for start, x in zip(range(0, len(dataset), data.BATCH), dataset.batches(), strict=True):
        y = network.begin(x.to(network.device), stages).cpu()
        if features is None:
            features = data.allocate((len(dataset), *y.shape[1:]), y.dtype)
        features[start : start + len(y)] = y
    return features


def _feed(
    inputs: Tensor, place: np.ndarray, drawn: list[tuple[np.ndarray, ...]], device: torch.device
) -> Iterator[tuple[slice, int, Tensor, list[Tensor]]]:
    """Bring batches to the device, the next one while this one is trained on.

    Args:
        inputs: (M, …), on the device or not.
        place: (N,) int, where in `inputs` the images are.
        drawn: for each batch its images, numbers below N, and labels.
        device: where to.

    Yields:
        For each batch which of its images are this process' own, how many there are, the own ones, and the labels.
    """

    def bring(rows: np.ndarray, *labels: np.ndarray) -> tuple[slice, int, Tensor, list[Tensor]]:
        mine = devices.local_slice(len(rows))
        own = torch.from_numpy(place[rows[mine]]).to(inputs.device)
        labels = [torch.from_numpy(label).to(device) for label in labels]
        return mine, len(rows), inputs[own].to(device), labels

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(bring, *drawn[0])
        for batch in drawn[1:]:
            now, ahead = ahead, reader.submit(bring, *batch)
            yield now.result()
        yield ahead.result()


def _read_checkpoint(file: Path) -> dict | None:
    if not (devices.is_main_process() and file.exists()):
        return None
    content = io.BytesIO(file.read_bytes())
    try:
        return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged files PyTorch raises almost anything
        raise ValueError(f"{file} is damaged or cut short: delete it, and --resume trains that network anew") from error


def cross_validate(
    start: SiameseNetwork,
    dataset: IdentityDataset,
    config: TrainConfig,
    device: torch.device,
    checkpoints: Path,
    spare: set[str] = frozenset(),
    log: Log | None = None,
) -> tuple[dict, calibrate.Calibration]:
    """Train one network for each of `config.folds` folds of people and test it on the people it has not seen.

    The probabilities of a fold come from a calibration on all other folds.

    Args:
        start: the network that each training starts from.
        dataset: all people.
        config: the recipe and the number of folds.
        device: where to train.
        checkpoints: an existing folder for the unfinished networks.
        spare: people whose pairs are to stay out of the returned calibration.
        log: see `fit`.

    Returns:
        `{"each": [report, …], "pooled": report}`, see `metrics.report`, where training began from weights with how
        these do on the same pairs as `before`; and the calibration fitted on all folds.
    """
    pairs, kept, before = [], [], []
    for k, (training, test) in enumerate(dataset.folds(config.folds)):
        checkpoint = checkpoints / f"fold-{k}-of-{config.folds}.pt"
        network = fit(start, training, config, device, checkpoint, f"fold {k + 1} of {config.folds}", log).network
        test = test.subsample()
        scored = score_all_pairs(network, test)
        spared = [number for number, name in enumerate(test.names) if name in spare]
        rows = ~np.isin(scored.people, spared).any(1)
        pairs.append(scored)
        kept.append(Scored(*(column[rows] for column in scored)))
        if config.init:
            before.append(score_all_pairs(deepcopy(start).to(device), test))

    def pool(parts: list[Scored]) -> Scored:
        # The folds number their people alike: tell them apart.
        apart = [part._replace(people=part.people + k * len(dataset.names)) for k, part in enumerate(parts)]
        return Scored(*(np.concatenate(column) for column in zip(*apart, strict=True)))

    def judge(parts: list[Scored]) -> tuple[list[dict], dict]:
        probabilities = [
            calibrate.fit(*pool(parts[:k] + parts[k + 1 :])[:2]).probability(part.distance)
            for k, part in enumerate(parts)
        ]
        each = [part.report(probability) for part, probability in zip(parts, probabilities, strict=True)]
        return each, pool(parts).report(np.concatenate(probabilities))

    each, pooled = judge(pairs)
    folds = {"each": each, "pooled": pooled}
    if before:
        folds["before"] = judge(before)[1]
    return folds, pool(kept).calibrate()
