"""Train a Siamese network by the seed's recipe, and write all that is needed to use it and to trust it.

siamese train --data att --folds 5 --out weights/att

"""

import contextlib
import json
import os
import platform
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from siamese import __version__, card, data, plots, store
from siamese.calibrate import Calibration
from siamese.datasets import ATT_NAME
from siamese.loop import LOG_EVERY, cross_validate, first_network, fit, write_whole
from siamese.network import SiameseNetwork, pick_device
from siamese.pairs import Scored, all_pairs, score_all_pairs
from siamese.recipe import TrainConfig


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
        ValueError: for data or a device that will not do, a result folder that holds something else, or a checkpoint
            that is damaged.
        RuntimeError: where the loss is no longer a number.
        KeyboardInterrupt: on Ctrl-C; the last whole epoch is kept for `resume`.
    """
    device = pick_device(config.device)
    start, align = first_network(config)
    config = replace(config, align=config.align or align)
    gallery = data.load(config.data, start.input_shape, config.align)
    training, test = gallery.split(config.seed)
    if config.folds and all(len(set(fold.names) - set(test.names)) < 2 for _, fold in gallery.folds(config.folds)):
        raise ValueError(f"{len(gallery.names)} people are too few to calibrate on {config.folds} folds of them")
    fingerprint = gallery.fingerprint()
    checkpoints = _prepare(config, fingerprint)

    network, losses, seconds = fit(start, training, config, device, checkpoints / "split.pt", "training")
    test_pairs = score_all_pairs(network, test)
    if config.folds:
        folds, calibration = cross_validate(start, gallery, config, device, checkpoints, spare=set(test.names))
        judge = calibration
    else:
        folds, calibration = None, test_pairs.calibrate()
        judge = score_all_pairs(network, training).calibrate()

    probability = judge.probability(test_pairs.distance)
    name = ATT_NAME if config.data == "att" else Path(config.data).resolve().stem
    record = {
        "data": {"name": name, "sha256": fingerprint, "images": len(gallery)},
        "people": {"training": list(training.names), "test": list(test.names)},
        "recipe": config.recipe(),
        "test": test_pairs.report(probability),
        "curves": test_pairs.curves(probability),
        "test_calibration": asdict(judge),
        "folds": folds,
        "loss": {"every_batches": LOG_EVERY, "values": losses},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "minutes": round(seconds / 60, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "siamese": __version__},
    }
    _write(config, network, calibration, record, test, test_pairs)
    _clear(checkpoints)
    return record


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
    write_whole(started, lambda part: part.write_text(json.dumps(run)))
    return checkpoints


def _clear(checkpoints: Path) -> None:
    """Remove what this module writes there, and the folder if nothing else is in it."""
    for file in [*checkpoints.glob("*.pt"), *checkpoints.glob("*.part"), checkpoints / "run.json"]:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        checkpoints.rmdir()


def _write(
    config: TrainConfig,
    network: SiameseNetwork,
    calibration: Calibration,
    record: dict,
    test: data.Gallery,
    test_pairs: Scored,
) -> None:
    out = config.out
    for left_by_a_kill in out.glob(".new-*"):
        shutil.rmtree(left_by_a_kill)
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as folder:
        folder = Path(folder)
        weights = f"path/to/{out.name}" if out.is_absolute() else out.as_posix()
        (folder / "README.md").write_text(card.model_card(record, weights))
        store.save(folder, network.cpu().half(), calibration, config.align, record)
        plots.loss(record["loss"]["values"], record["loss"]["every_batches"], folder / "loss.png")
        plots.roc(test_pairs.distance, test_pairs.same, folder / "roc.png")
        plots.pairs(_ten_pairs(test, test_pairs), folder / "pairs.png")
        for file in folder.iterdir():
            file.chmod(0o644)
            os.replace(file, out / file.name)


def _ten_pairs(test: data.Gallery, scored: Scored) -> list[tuple]:
    """Choose up to five genuine and five impostor pairs, always the same ones for the same people."""
    rng, same = np.random.default_rng(0), scored.same
    first, second, _ = all_pairs(test.identity)
    rows = np.concatenate([rng.permutation(np.flatnonzero(kind))[:5] for kind in (same, ~same)])
    pictures = test.pixels.permute(0, 2, 3, 1).squeeze(-1).numpy()
    return [(pictures[first[row]], pictures[second[row]], scored.distance[row], same[row]) for row in rows]
