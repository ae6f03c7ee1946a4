"""The training loop, from top to bottom, and the folds."""

import io
import os
import sys
import time
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from siamese import calibrate, store
from siamese.data import Gallery
from siamese.loss import contrastive_loss
from siamese.network import SiameseNetwork, distance
from siamese.pairs import Scored, draw_pairs, score_all_pairs
from siamese.recipe import TrainConfig

LOG_EVERY = 10  # batches


def first_network(config: TrainConfig) -> tuple[SiameseNetwork, str]:
    """Return the network that training starts from, and how it takes images (see `compare.Model`).

    Its weights are those named by `init`, else drawn by the seed.

    Raises:
        ValueError: where more stages are to be frozen than leave one to train.
        FileNotFoundError, ConnectionError: see `store.load`.
    """
    if config.init:
        model = store.load(config.init, device="cpu")
        stages = len(model.network.backbone)
        if config.freeze >= stages:
            raise ValueError(f"the network has {stages} stages: freeze fewer, got {config.freeze}")
        return model.network, model.align
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return SiameseNetwork(), "none"


class Fitted(NamedTuple):
    """A trained network on its device, the loss of every tenth batch, and the seconds that the epochs took."""

    network: SiameseNetwork
    losses: list[float]
    seconds: float


def fit(
    start: SiameseNetwork,
    gallery: Gallery,
    config: TrainConfig,
    device: torch.device,
    checkpoint: Path,
    title: str,
) -> Fitted:
    """Train a copy of `start` on these people, from the last whole epoch of `checkpoint` if there is one.

    Each epoch draws its pairs from a generator seeded by (seed, epoch), so a resumed run sees what an unbroken one
    sees; on one CPU with one number of threads the two end in the same bits.

    Raises:
        ValueError: where the checkpoint is damaged.
        RuntimeError: where the loss is no longer a number.
    """
    network = deepcopy(start).to(device).train()
    for stage in list(network.backbone)[: config.freeze]:
        stage.requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    done, losses, seconds = 0, [], 0.0
    if checkpoint.exists():
        state = _read_checkpoint(checkpoint, device)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done, losses, seconds = state["epoch"], state["losses"], state["seconds"]

    # Resident: an epoch reads no file, decodes no image, and repeats no arithmetic of frozen stages.
    inputs = gallery.pixels.to(device)
    if config.freeze:
        with torch.no_grad():
            inputs = torch.cat([network.begin(part, config.freeze) for part in inputs.split(256)])
    batches = -(-len(gallery) // config.batch_size)
    images_an_epoch = 2 * len(gallery)
    with tqdm(
        desc=title,
        total=config.epochs * images_an_epoch,
        initial=done * images_an_epoch,
        unit=" images",
        mininterval=0.1 if sys.stderr.isatty() else 30,
    ) as bar:
        for epoch in range(done, config.epochs):
            began = time.perf_counter()
            for number, (rows, sides, same) in enumerate(epoch_batches(gallery.identity, config, epoch, device)):
                z = network.finish(inputs[rows], config.freeze) if config.freeze else network.embed(inputs[rows])
                z1, z2 = z[sides]
                loss = contrastive_loss(distance(z1, z2), same, config.margin)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update(2 * len(same))
                step = epoch * batches + number
                if step % LOG_EVERY == 0:
                    losses.append(loss.item())
                    bar.set_postfix(loss=f"{losses[-1]:.3f}", epoch=epoch + 1, refresh=False)
            if not np.isfinite(loss.item()):
                raise RuntimeError(
                    f"the loss is {loss.item()} at step {step} (epoch {epoch + 1}): the learning rate {config.lr:g} "
                    "is probably too high; start anew with a lower one"
                )
            seconds += time.perf_counter() - began
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"epoch": epoch + 1, "losses": losses, "seconds": seconds}
            write_whole(checkpoint, partial(torch.save, state))
    # Half precision halves the download; all that is measured is measured on the rounded weights that ship.
    return Fitted(network.half().float(), losses, seconds)


def _read_checkpoint(file: Path, device: torch.device) -> dict:
    content = io.BytesIO(file.read_bytes())
    try:
        return torch.load(content, map_location=device, weights_only=True)
    except Exception as error:  # on damaged files PyTorch raises almost anything
        raise ValueError(f"{file} is damaged or cut short: delete it, and --resume trains that network anew") from error


def epoch_batches(
    identity: np.ndarray, config: TrainConfig, epoch: int, device: torch.device
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draw an epoch's pairs, as many as there are images, and cut them into batches of at most `batch_size`.

    An image that several pairs of a batch share is to be embedded once: with the seed's sizes this saves a sixth of
    the arithmetic, and the gradient is the same.

    Returns:
        A list of rows: (U,) the distinct images of the batch; sides: (2, P) which of them each pair joins;
        same: (P,) bool. All on `device`.
    """
    rng = np.random.default_rng([config.seed, epoch])
    first, second, same = draw_pairs(identity, len(identity), rng)
    batches = []
    for start in range(0, len(identity), config.batch_size):
        part = slice(start, start + config.batch_size)
        pairs = np.stack([first[part], second[part]])
        rows, sides = np.unique(pairs, return_inverse=True)
        arrays = rows, sides.reshape(pairs.shape), same[part]
        batches.append(tuple(torch.from_numpy(array).to(device) for array in arrays))
    return batches


def cross_validate(
    start: SiameseNetwork,
    gallery: Gallery,
    config: TrainConfig,
    device: torch.device,
    checkpoints: Path,
    spare: set[str] = frozenset(),
) -> tuple[dict, calibrate.Calibration]:
    """Train one network for each of `config.folds` folds of people and test it on the people it has not seen.

    The probabilities of a fold come from a calibration on all other folds.

    Args:
        start: the network that each training starts from.
        gallery: all people.
        config: the recipe and the number of folds.
        device: where to train.
        checkpoints: an existing folder for the unfinished networks.
        spare: people whose pairs are to stay out of the returned calibration.

    Returns:
        `{"each": [report, …], "pooled": report}`, see `metrics.report`, and the calibration fitted on all folds.
    """
    pairs, kept = [], []
    for k, (training, test) in enumerate(gallery.folds(config.folds)):
        checkpoint = checkpoints / f"fold-{k}-of-{config.folds}.pt"
        network = fit(start, training, config, device, checkpoint, f"fold {k + 1} of {config.folds}").network
        pairs.append(score_all_pairs(network, test))
        kept.append(score_all_pairs(network, test.only(set(test.names) - spare)))

    def pool(parts: list[Scored]) -> Scored:
        # The folds number their people alike: tell them apart.
        apart = [part._replace(people=part.people + k * len(gallery.names)) for k, part in enumerate(parts)]
        return Scored(*(np.concatenate(column) for column in zip(*apart, strict=True)))

    probabilities = [
        calibrate.fit(*pool(pairs[:k] + pairs[k + 1 :])[:2]).probability(pairs[k].distance) for k in range(config.folds)
    ]
    each = [pair.report(probability) for pair, probability in zip(pairs, probabilities, strict=True)]
    pooled = pool(pairs).report(np.concatenate(probabilities))
    return {"each": each, "pooled": pooled}, pool(kept).calibrate()


def write_whole(target: Path, write) -> None:
    """Write a file whole or not at all: a kill at any moment leaves the one before."""
    part = target.with_suffix(".part")
    write(part)
    os.replace(part, target)
