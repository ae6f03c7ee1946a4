"""The result folder: checks before training, checkpoints and TensorBoard during it, and the result."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from siamese import checkpoint
from siamese.data.dataset import IdentityDataset
from siamese.data.pairs import all_pairs
from siamese.evaluation.pairs import Scored
from siamese.evaluation.plots import plot_distances, plot_loss, plot_pairs, plot_plane, plot_roc
from siamese.files import LICENSE_FILE, as_stored, replace_file, write_atomically
from siamese.hub.card import model_card
from siamese.model import Model
from siamese.training.config import TrainConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CHECKPOINTS = "checkpoints"
LOCK_FILE = ".lock"
RUN_FILE = "run.json"
TENSORBOARD = "tensorboard"
RESULT_FILES = ("config.json", "metrics.json", "model.safetensors")
EXAMPLE_PAIRS = 5  # of each kind
PAGE_PAIRS = 2  # of each kind, as files of their own that the page offers as examples

# What decides the result besides the settings, as error messages call it.
DESCRIPTIONS = {"data": "images", "test": "classes to test on", "init": "weights"}


def check_output(config: TrainConfig) -> None:
    """Check that training can write the result folder, and cannot destroy other files there."""
    out, source = as_stored(config.out), as_stored(Path(config.data))
    if config.data != "att" and source.is_dir() and out.is_relative_to(source):
        raise ValueError(f"{config.out} is inside the data and would count as a class; choose another --out")
    existing = next(folder for folder in (out, *out.parents) if folder.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise OSError(f"cannot write {config.out}: {existing} is not a writable folder")
    ours = _has_unfinished_run(out) or _has_result(out)
    if not ours and out.is_dir() and any(file.name != LOCK_FILE for file in out.iterdir()):
        raise ValueError(f"{config.out} has other files; choose a new folder as --out")


@contextlib.contextmanager
def hold_output(config: TrainConfig) -> Iterator[None]:
    """Lock the result folder, so that no other run trains in it. The system unlocks it if the process is killed."""
    new = [folder for folder in (config.out, *config.out.parents) if not folder.exists()]
    config.out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(config.out / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"another run trains in {config.out}; wait for its end, or choose another --out") from error
    try:
        _check_runs(config)
        yield
    finally:
        with contextlib.suppress(OSError):  # on Windows, a file that is open cannot be deleted
            (config.out / LOCK_FILE).unlink()
        lock.release()
        with contextlib.suppress(OSError):  # they are not empty
            for folder in new:
                folder.rmdir()


def _check_runs(config: TrainConfig) -> None:
    unfinished = _has_unfinished_run(config.out)
    if config.resume and not unfinished:
        raise ValueError(f"{config.out} has no unfinished run to resume; remove --resume")
    if config.resume or config.overwrite:
        return
    if unfinished:
        raise ValueError(f"{config.out} has an unfinished run: use --resume to continue or --overwrite to restart")
    if _has_result(config.out):
        raise ValueError(f"{config.out} has a trained network; choose another --out, or use --overwrite")


def _has_unfinished_run(out: Path) -> bool:
    return (out / CHECKPOINTS / RUN_FILE).exists()


def _has_result(out: Path) -> bool:
    return all((out / name).exists() for name in RESULT_FILES)


def prepare_checkpoints(config: TrainConfig, run: dict[str, Any]) -> None:
    """Create the folder for checkpoints; with `resume`, check that those in it belong to this run.

    `run` is everything that decides the result, as JSON values; and `start`, which follows from it.
    """
    folder = config.out / CHECKPOINTS
    if config.resume:
        before = unfinished_run(config.out)
        different = [
            DESCRIPTIONS.get(name, name)
            for name in before | run
            if name != "start" and before.get(name) != run.get(name)
        ]
        if different:
            raise ValueError(f"the run in {config.out} has other {', '.join(different)}; use the same to resume it")
        return
    clear_checkpoints(config.out)
    clear_tensorboard(config.out / TENSORBOARD)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RUN_FILE, lambda part: part.write_text(json.dumps(run)))


def unfinished_run(out: Path) -> dict[str, Any]:
    """Return what decides the result of the unfinished run in a result folder."""
    return json.loads((out / CHECKPOINTS / RUN_FILE).read_text())


def clear_checkpoints(out: Path) -> None:
    """Delete the checkpoints in a result folder, and their folder if it is empty then."""
    folder = out / CHECKPOINTS
    shutil.rmtree(folder / "result", ignore_errors=True)
    for file in [*folder.glob("*.pt"), *folder.glob("*.part"), folder / RUN_FILE]:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def write_result(out: Path, model: Model, test: IdentityDataset, scored: Scored) -> None:
    """Write all files of the result folder, and delete the checkpoints. An error leaves the previous result intact.

    The network is on the CPU and in half precision. `scored` are the pairs of the test people.
    """
    record = model.record
    folder = out / CHECKPOINTS / "result"
    folder.mkdir(exist_ok=True)
    weights = f"path/to/{out.name}" if out.is_absolute() else out.as_posix()
    (folder / "README.md").write_text(model_card(model, record, weights), encoding="utf-8")
    if model.license_text:
        (folder / LICENSE_FILE).write_text(model.license_text, encoding="utf-8")
    checkpoint.save(folder, model.network, model.calibration, model.template, record)
    assert record.settings, "only converted weights have none"
    if record.loss and record.loss.values:
        epochs = len(record.validation_eer) or record.settings.epochs
        plot_loss(record.loss.values, epochs, record.validation_eer, folder / "loss.png")
    if record.plane:
        plot_plane(record.plane, folder / "map.png")
    plot_roc(scored.distance, scored.same, folder / "roc.png")
    plot_distances(record.curves, model.calibration.threshold, folder / "distances.png")
    pairs = example_pairs(test, scored)
    plot_pairs(pairs, folder / "pairs.png")
    for same, kind in ((True, "genuine"), (False, "impostor")):
        for number, (first, second, *_) in enumerate([pair for pair in pairs if pair[3] == same][:PAGE_PAIRS], 1):
            for image, order in ((first, "first"), (second, "second")):
                Image.fromarray(image).save(folder / f"example-{kind}-{number}-{order}.webp", lossless=True)
    plot_pairs(example_pairs(test, scored, hardest=True), folder / "hardest.png")
    examples = (file.name for file in out.glob("example-*-[0-9]-*.webp"))
    for name in ("loss.png", "map.png", LICENSE_FILE, *examples):
        if not (folder / name).exists():
            (out / name).unlink(missing_ok=True)  # of the result that is replaced
    for file in folder.iterdir():
        replace_file(file, out / file.name)
    clear_checkpoints(out)


def example_pairs(
    test: IdentityDataset, scored: Scored, hardest: bool = False
) -> list[tuple[np.ndarray, np.ndarray, float, bool]]:
    """Choose up to `EXAMPLE_PAIRS` genuine and as many impostor pairs, random (always the same) or hardest ones.

    Returns two images, their distance, and whether the pair is genuine, for each pair.
    """
    rng, same = np.random.default_rng(0), scored.same
    first, second, _ = all_pairs(test.identity)
    rows = [rng.permutation(np.flatnonzero(kind)) for kind in (same, ~same)]
    if hardest:
        easiness = np.where(same, -scored.distance, scored.distance)
        rows = [kind[np.argsort(easiness[kind])] for kind in rows]
    chosen = np.concatenate([kind[:EXAMPLE_PAIRS] for kind in rows])
    return [(test.image(first[row]), test.image(second[row]), scored.distance[row], same[row]) for row in chosen]


# --- TensorBoard


class TensorBoardLog:
    """A log of a `Job`: one TensorBoard run (a folder) per network, and one step per epoch."""

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
