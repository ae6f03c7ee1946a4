"""Train a Siamese network, and write all that is needed to use it and to trust it.

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
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from siamese import __version__
from siamese import calibration as calibrate
from siamese import checkpoint as store
from siamese.calibration import Calibration
from siamese.data import dataset as data
from siamese.data import folders
from siamese.data.sources import ATT_NAME
from siamese.evaluation import plots
from siamese.evaluation.evaluate import UNNAMED, seen_by
from siamese.evaluation.pairs import Scored, all_pairs, score_all_pairs
from siamese.files import write_atomically
from siamese.hub import card
from siamese.network import SiameseNetwork
from siamese.training import distributed as devices
from siamese.training.config import TrainConfig
from siamese.training.trainer import LOG_EVERY, cross_validate, first_network, fit

BOARD = "tensorboard"
# What decides the result beside the settings, as the sentence on it says.
DECIDES = {"data": "images", "test": "people to test on", "init": "weights"}


def train(config: TrainConfig) -> dict:
    """Train, test on held-out people, calibrate, and write the result folder: a complete Hub model repository.

    The data's own test people are tested on (for AT&T s5, s6 and s7), else a fifth drawn by the seed. With `folds`,
    one more network is trained for each fold of people; the calibration then rests on the pooled distances of all
    folds, without the test people. Without, it rests on the test people, and the accuracy reported for these is at a
    threshold chosen on the training people. Either way no accuracy is measured at a threshold that saw its people.

    Of very many images, those of some people are measured, see `data.IdentityDataset.sample`.

    Written to `config.out` at the end: config.json, model.safetensors, metrics.json, README.md (the model card),
    loss.png, roc.png, distances.png, pairs.png and hardest.png. With `tensorboard`, a folder of that name is written
    there all the while.

    Returns:
        The contents of metrics.json.

    Raises:
        ValueError: for data or a device that will not do, a result folder that holds something else, or a checkpoint
            that is damaged.
        ImportError: where TensorBoard is asked for and not installed.
        RuntimeError: where the loss is no longer a number.
        KeyboardInterrupt: on Ctrl-C; the last whole epoch is kept for `resume`.
    """
    log = _Board(config.out / BOARD) if config.tensorboard else None
    device = devices.join(config.device)
    devices.run_on_main(partial(_check, config))
    start, source = first_network(config)
    config = replace(config, align=config.align or (source.align if source else "none"))
    dataset = data.load(config.data, start.input_shape, config.align)
    training, test = dataset.split(config.seed)
    held_out, test = test.names, test.subsample()
    if config.folds and all(len(set(fold.names) - set(held_out)) < 2 for _, fold in dataset.folds(config.folds)):
        raise ValueError(f"{len(dataset.names)} people are too few to calibrate on {config.folds} folds of them")
    fingerprint = dataset.fingerprint()
    checkpoints = config.out / "checkpoints"
    people = {"training": list(training.names), "test": list(held_out)}
    run = {**config.settings(), "folds": config.folds, "data": fingerprint, "test": list(held_out)}
    if source:
        people["pretraining"] = seen_by(source.record["people"])
        run["init"] = _digest(start)  # whatever it is called
    devices.run_on_main(partial(_prepare, config, run))
    if source and devices.is_main_process():
        _warn(people["pretraining"], dataset.names if config.folds else held_out)

    network, losses, seconds, errors = fit(start, training, config, device, checkpoints / "split.pt", "training", log)
    test_pairs = score_all_pairs(network, test)
    if config.folds:
        by_fold, calibration = cross_validate(start, dataset, config, device, checkpoints, set(held_out), log)
        judge = calibration
    else:
        by_fold, calibration = None, test_pairs.calibrate()
        judge = score_all_pairs(network, training.subsample()).calibrate()

    if log:
        log.close()

    before = None
    if source:
        untouched = deepcopy(start).to(device)
        curve = calibrate.fit(*score_all_pairs(untouched, training.subsample())[:2])
        pairs = score_all_pairs(untouched, test)
        before = pairs.report(curve.probability(pairs.distance))

    probability = judge.probability(test_pairs.distance)
    name = ATT_NAME if config.data == "att" else folders.title(config.data)
    record = {
        "data": {"name": name, "sha256": fingerprint, "images": len(dataset)},
        "people": people,
        "recipe": config.settings(),
        "test": test_pairs.report(probability),
        "before": before,
        "curves": test_pairs.curves(probability),
        "test_calibration": asdict(judge),
        "confused": test_pairs.confused(judge.threshold, test.names),
        "folds": by_fold,
        "loss": {"every_batches": LOG_EVERY, "values": losses},
        "validation_eer": errors,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "minutes": round(seconds / 60, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "siamese": __version__},
    }
    if devices.is_main_process():
        _write(config, network, calibration, record, test, test_pairs)
        _clear(checkpoints)
    return record


def _warn(seen: list[str] | None, held_out: Iterable[str]) -> None:
    """Say on stderr where the weights that training begins from may have seen who is held out."""
    if seen is None:
        print(UNNAMED, file=sys.stderr)
    elif known := set(seen) & set(held_out):
        print(
            f"note: the weights to start from were trained on people of {len(known)} of the names that are held out. "
            "If they are the same people, the result looks better than it is.",
            file=sys.stderr,
        )


def _check(config: TrainConfig) -> None:
    """Refuse a result folder in which something would be lost or mixed up, before the data is read."""
    out, source = config.out.resolve(), Path(config.data).resolve()
    if config.data != "att" and source.is_dir() and out.is_relative_to(source):
        raise ValueError(f"{config.out} lies inside the data, and would be taken for a person: choose another --out")
    started = (out / "checkpoints" / "run.json").exists()
    trained = all((out / name).exists() for name in ("config.json", "metrics.json", "model.safetensors"))
    if config.resume:
        if not started:
            raise ValueError(f"{config.out} holds no unfinished run to resume; start one without --resume")
    elif started and not config.overwrite:
        raise ValueError(f"{config.out} holds an unfinished run: --resume continues it, --overwrite starts anew")
    elif trained and not config.overwrite:
        raise ValueError(f"{config.out} holds a trained network; choose another --out, or --overwrite it")
    elif not (started or trained) and out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{config.out} holds other files; choose a new folder as --out")
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise OSError(f"{config.out} cannot be written: {there} is no folder that this user may write to")


def _prepare(config: TrainConfig, run: dict) -> None:
    """Make the folder for checkpoints, or make sure that those in it are of this run.

    Args:
        config: as `_check` has found it good.
        run: all that decides the result.
    """
    checkpoints = config.out / "checkpoints"
    started = checkpoints / "run.json"
    if config.resume:
        before = json.loads(started.read_text())
        if differ := [DECIDES.get(name, name) for name in before | run if before.get(name) != run.get(name)]:
            raise ValueError(f"the run in {config.out} began with other {', '.join(differ)}; resume it with its own")
        return
    _clear(checkpoints)
    _clear_board(config.out / BOARD)
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_atomically(started, lambda part: part.write_text(json.dumps(run)))


def _digest(network: SiameseNetwork) -> str:
    digest = hashlib.sha256()
    for weight in network.state_dict().values():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def _clear(checkpoints: Path) -> None:
    """Remove what this module writes there, and the folder if nothing else is in it."""
    for file in [*checkpoints.glob("*.pt"), *checkpoints.glob("*.part"), checkpoints / "run.json"]:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        checkpoints.rmdir()


class _Board:
    """A `Log` that TensorBoard reads: a run, which is a folder, for each network, and a step for each epoch."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter  # not everybody has it

        self.folder, self.writer, self.writers = folder, SummaryWriter, {}

    def __call__(self, network: str, epoch: int, numbers: dict[str, float]) -> None:
        if network not in self.writers:
            # Where a killed run got further than its checkpoint, what it wrote from here on is void.
            self.writers[network] = self.writer(self.folder / network, purge_step=epoch)
        for name, number in numbers.items():
            self.writers[network].add_scalar(name, number, epoch)
        self.writers[network].flush()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def _clear_board(folder: Path) -> None:
    """Remove what `_Board` writes there, and the folders if nothing else is in them."""
    for file in folder.glob("*/events.out.tfevents.*"):
        file.unlink()
    for left in (*folder.glob("*"), folder):
        with contextlib.suppress(OSError):
            left.rmdir()


def _write(
    config: TrainConfig,
    network: SiameseNetwork,
    calibration: Calibration,
    record: dict,
    test: data.IdentityDataset,
    test_pairs: Scored,
) -> None:
    out = config.out
    for left_by_a_kill in out.glob(".new-*"):
        shutil.rmtree(left_by_a_kill)
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as folder:
        folder = Path(folder)
        weights = f"path/to/{out.name}" if out.is_absolute() else out.as_posix()
        (folder / "README.md").write_text(card.model_card(record, weights), encoding="utf-8")
        store.save(folder, network.cpu().half(), calibration, config.align, record)
        if losses := record["loss"]["values"]:
            plots.loss(losses, record["loss"]["every_batches"], folder / "loss.png")
        plots.roc(test_pairs.distance, test_pairs.same, folder / "roc.png")
        threshold = Calibration.from_dict(record["test_calibration"]).threshold
        plots.distances(record["curves"], threshold, folder / "distances.png")
        plots.pairs(_ten_pairs(test, test_pairs), folder / "pairs.png")
        plots.pairs(_ten_pairs(test, test_pairs, hardest=True), folder / "hardest.png")
        for file in folder.iterdir():
            file.chmod(0o644)
            os.replace(file, out / file.name)


def _ten_pairs(test: data.IdentityDataset, scored: Scored, hardest: bool = False) -> list[tuple]:
    """Choose up to five genuine and five impostor pairs, always the same ones for the same people: any, or the genuine
    pairs that are furthest apart and the closest impostor pairs, the hardest first."""
    rng, same = np.random.default_rng(0), scored.same
    first, second, _ = all_pairs(test.identity)
    rows = [rng.permutation(np.flatnonzero(kind)) for kind in (same, ~same)]
    if hardest:
        ease = np.where(same, -scored.distance, scored.distance)
        rows = [kind[np.argsort(ease[kind])] for kind in rows]
    rows = np.concatenate([kind[:5] for kind in rows])
    return [(test.picture(first[row]), test.picture(second[row]), scored.distance[row], same[row]) for row in rows]
