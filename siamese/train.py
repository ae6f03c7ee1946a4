"""Train a Siamese network by the seed's recipe, and write all that is needed to use it and to trust it.

siamese train --data att --folds 5 --out weights/att

"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from siamese import __version__, calibrate, data, hub, metrics, plots
from siamese.evaluate import pair_distances
from siamese.loss import contrastive_loss
from siamese.network import SeedBackbone, SiameseNetwork, distance, pick_device
from siamese.recipe import TrainConfig

LOG_EVERY = 10  # batches


def train(config: TrainConfig) -> dict:
    """Train, test on held-out people, calibrate, and write the result folder: a complete Hub model repository.

    The data's own test people are tested on (for AT&T s5, s6 and s7), else a fifth drawn by the seed. With `folds`,
    one more network is trained for each fold of people; the calibration then rests on the pooled distances of all
    folds, without the test people. Without, it rests on the test people, and the accuracy reported for these is at a
    threshold chosen on the training people. Either way no accuracy is measured at a threshold that saw its people.

    Written to `config.out` at the end: config.json, model.safetensors, metrics.json, README.md (the model card),
    loss.png, roc.png and pairs.png.

    Returns:
        The contents of metrics.json.

    Raises:
        ValueError: for data or a device that will not do, or a result folder that holds something else.
        RuntimeError: where the loss is no longer a number.
        KeyboardInterrupt: on Ctrl-C; the last whole epoch is kept for `resume`.
    """
    device = pick_device(config.device)
    gallery = data.load(config.data, SeedBackbone.input_shape)
    training, test = gallery.split(config.seed)
    if config.folds and all(len(set(fold.names) - set(test.names)) < 2 for _, fold in gallery.folds(config.folds)):
        raise ValueError(f"{len(gallery.names)} people are too few to calibrate on {config.folds} folds of them")
    fingerprint = gallery.fingerprint()
    checkpoints = _prepare(config, fingerprint)

    network, losses, seconds = fit(training, config, device, checkpoints / "split.pt", "training")
    test_pairs = pair_distances(network, test)
    if config.folds:
        folds, calibration = cross_validate(gallery, config, device, checkpoints, spare=set(test.names))
        judge = calibration
    else:
        folds, calibration = None, calibrate.fit(*test_pairs)
        judge = calibrate.fit(*pair_distances(network, training))

    name = data.ATT_NAME if config.data == "att" else Path(config.data).resolve().stem
    record = {
        "data": {"name": name, "sha256": fingerprint, "images": len(gallery)},
        "people": {"training": list(training.names), "test": list(test.names)},
        "recipe": config.recipe(),
        "test": metrics.report(*test_pairs, judge.probability(test_pairs[0])),
        "test_calibration": asdict(judge),
        "folds": folds,
        "loss": {"every_batches": LOG_EVERY, "values": losses},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "minutes": round(seconds / 60, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "siamese": __version__},
    }
    _write(config.out, network, calibration, record, test, test_pairs)
    _clear(checkpoints)
    return record


class Fitted(NamedTuple):
    """A trained network on its device, the loss of every tenth batch, and the seconds that the epochs took."""

    network: SiameseNetwork
    losses: list[float]
    seconds: float


def fit(gallery: data.Gallery, config: TrainConfig, device: torch.device, checkpoint: Path, title: str) -> Fitted:
    """Train one network on these people, from the last whole epoch of `checkpoint` if there is one.

    Each epoch draws its pairs from a generator seeded by (seed, epoch), so a resumed run sees what an unbroken one
    sees; on one CPU with one number of threads the two end in the same bits.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = SiameseNetwork()
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    done, losses, seconds = 0, [], 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done, losses, seconds = state["epoch"], state["losses"], state["seconds"]

    pixels = gallery.pixels.to(device)  # uint8, resident: an epoch reads no file and decodes no image
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
                z1, z2 = network.embed(pixels[rows])[sides]
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
            _replace(checkpoint, partial(torch.save, state))
    # Half precision halves the download; all that is measured is measured on the rounded weights that ship.
    return Fitted(network.half().float(), losses, seconds)


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
    first, second, same = data.draw_pairs(identity, len(identity), rng)
    batches = []
    for start in range(0, len(identity), config.batch_size):
        part = slice(start, start + config.batch_size)
        pairs = np.stack([first[part], second[part]])
        rows, sides = np.unique(pairs, return_inverse=True)
        arrays = rows, sides.reshape(pairs.shape), same[part]
        batches.append(tuple(torch.from_numpy(array).to(device) for array in arrays))
    return batches


def cross_validate(
    gallery: data.Gallery, config: TrainConfig, device: torch.device, checkpoints: Path, spare: set[str] = frozenset()
) -> tuple[dict, calibrate.Calibration]:
    """Train one network for each of `config.folds` folds of people and test it on the people it has not seen.

    The probabilities of a fold come from a calibration on all other folds.

    Args:
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
        network = fit(training, config, device, checkpoint, f"fold {k + 1} of {config.folds}").network
        pairs.append(pair_distances(network, test))
        kept.append(pair_distances(network, test.only(set(test.names) - spare)))

    def pool(parts):
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    probabilities = [
        calibrate.fit(*pool(pairs[:k] + pairs[k + 1 :])).probability(pairs[k][0]) for k in range(config.folds)
    ]
    each = [metrics.report(*pair, probability) for pair, probability in zip(pairs, probabilities, strict=True)]
    pooled = metrics.report(*pool(pairs), np.concatenate(probabilities))
    return {"each": each, "pooled": pooled}, calibrate.fit(*pool(kept))


def _prepare(config: TrainConfig, fingerprint: str) -> Path:
    """Return the folder for checkpoints, having made sure that nothing unrelated is lost or mixed in."""
    checkpoints = config.out / "checkpoints"
    run = {**config.recipe(), "folds": config.folds, "data": fingerprint}
    started = checkpoints / "run.json"
    if config.resume:
        if not started.exists():
            raise ValueError(f"{config.out} holds no unfinished run to resume; start one without --resume")
        if (before := json.loads(started.read_text())) != run:
            differ = ", ".join(name for name in run if before.get(name) != run[name])
            raise ValueError(f"the run in {config.out} has other settings ({differ}); resume it with its own")
        return checkpoints
    trained = all((config.out / name).exists() for name in ("config.json", "metrics.json", "model.safetensors"))
    if started.exists() or trained:
        if not config.overwrite:
            if started.exists():
                raise ValueError(
                    f"{config.out} holds an unfinished run: --resume continues it, --overwrite starts anew"
                )
            raise ValueError(f"{config.out} holds a trained network; choose another --out, or --overwrite it")
        _clear(checkpoints)
    elif config.out.is_dir() and any(config.out.iterdir()):
        raise ValueError(f"{config.out} holds other files; choose a new folder as --out")
    checkpoints.mkdir(parents=True, exist_ok=True)
    _replace(started, lambda part: part.write_text(json.dumps(run)))
    return checkpoints


def _clear(checkpoints: Path) -> None:
    """Remove what this module writes there, and the folder if nothing else is in it."""
    for file in [*checkpoints.glob("*.pt"), *checkpoints.glob("*.part"), checkpoints / "run.json"]:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        checkpoints.rmdir()


def _write(
    out: Path, network: SiameseNetwork, calibration: calibrate.Calibration, record: dict, test: data.Gallery, test_pairs
) -> None:
    for left_by_a_kill in out.glob(".new-*"):
        shutil.rmtree(left_by_a_kill)
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as folder:
        folder = Path(folder)
        (folder / "metrics.json").write_text(json.dumps(record, indent=1) + "\n")
        weights = f"path/to/{out.name}" if out.is_absolute() else out.as_posix()
        (folder / "README.md").write_text(hub.model_card(record, weights))
        network.cpu().half().save_pretrained(folder)
        # The hash ties the calibration to its weights: of two runs' files that got mixed, none is loaded.
        sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        config = {**network._hub_mixin_config, "calibration": asdict(calibration), "weights_sha256": sha256}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        plots.loss(record["loss"]["values"], record["loss"]["every_batches"], folder / "loss.png")
        plots.roc(*test_pairs, folder / "roc.png")
        plots.pairs(_ten_pairs(test, *test_pairs), folder / "pairs.png")
        for file in folder.iterdir():
            file.chmod(0o644)
            os.replace(file, out / file.name)


def _ten_pairs(test: data.Gallery, distances: np.ndarray, same: np.ndarray) -> list[tuple]:
    """Choose up to five genuine and five impostor pairs, always the same ones for the same people."""
    rng = np.random.default_rng(0)
    first, second, _ = data.all_pairs(test.identity)
    rows = np.concatenate([rng.permutation(np.flatnonzero(kind))[:5] for kind in (same, ~same)])
    pictures = test.pixels.permute(0, 2, 3, 1).squeeze(-1).numpy()
    return [(pictures[first[row]], pictures[second[row]], distances[row], same[row]) for row in rows]


def _replace(target: Path, write) -> None:
    """Write a file whole or not at all: a kill at any moment leaves the one before."""
    part = target.with_suffix(".part")
    write(part)
    os.replace(part, target)
