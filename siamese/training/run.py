"""Train, test and calibrate a network, and write the result folder."""

from __future__ import annotations

import hashlib
import platform
import sys
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial

import torch

from siamese import __version__, calibration
from siamese.data.dataset import IdentityDataset, load_dataset
from siamese.data.folders import limit_list, title
from siamese.evaluation.labels import find_label_errors
from siamese.evaluation.pairs import Scored, embed, measure_plane, score_all_pairs
from siamese.evaluation.people import UNKNOWN_NAMES_NOTE
from siamese.faces.face import TEMPLATE
from siamese.network import SiameseNetwork
from siamese.processes import is_main_process, run_on_main
from siamese.record import ATT_NAME, DataSource, LossCurve, People, Record, Report
from siamese.training.config import TrainConfig
from siamese.training.cross_validation import cross_validate
from siamese.training.distributed import join
from siamese.training.output import (
    CHECKPOINTS,
    TENSORBOARD,
    check_output,
    clear_checkpoints,
    hold_output,
    prepare_checkpoints,
    write_result,
)
from siamese.training.start import choose_start
from siamese.training.tensorboard import TensorBoardLog
from siamese.training.trainer import fit, initial_network

MAX_LABEL_ERRORS = 10  # that are printed
LONG_RUN = 500  # batches, from which on ...
LONG_RUN_EVERY = 10  # ... the loss of only one in so many batches is recorded


def train(config: TrainConfig) -> Record:
    """Train a network, test it on held-out people, calibrate it, and write the result folder.

    The test people are those that the data set reserves (s5, s6 and s7 for AT&T), else a random fifth. Large data sets
    are measured on a sample, see `IdentityDataset.subsample`. No accuracy is measured at a threshold that was chosen on
    the same people:

    - With `folds`, one more network is trained per fold, see `cross_validate`. The calibration is fitted on the pooled
      distances of all folds without the test people, and used to test.
    - Without, the calibration is fitted on the test people. They are tested at a threshold chosen on the training
      people.

    The result folder is a complete model repository for the Hub: config.json, model.safetensors, metrics.json,
    README.md (the model card), loss.png, roc.png, distances.png, pairs.png and hardest.png. With two-dimensional
    embeddings, it also has map.png, and with `tensorboard` a folder of that name.

    Returns:
        The content of metrics.json.

    Raises:
        ValueError: if data, device, result folder or checkpoint cannot be used.
        OSError: if a file cannot be written.
        ImportError: if TensorBoard is requested and not installed.
        RuntimeError: if the loss is not finite.
        KeyboardInterrupt: on Ctrl-C. The last complete epoch is kept for `resume`.
    """
    log = TensorBoardLog(config.out / TENSORBOARD) if config.tensorboard else None
    device = join(config.device)
    run_on_main(partial(check_output, config))
    with ExitStack() as stack:
        run_on_main(lambda: stack.enter_context(hold_output(config)))
        return _train(config, device, log)


def _train(config: TrainConfig, device: torch.device, log: TensorBoardLog | None) -> Record:
    # --- set up
    config = run_on_main(partial(choose_start, config))
    start, source = initial_network(config)
    config = replace(config, align=config.align or (source.align if source else "none"))
    template = None
    if config.align == "faces":
        template = source.template if source and source.template else TEMPLATE
    dataset = load_dataset(config.data, start.input_shape, template, progress=is_main_process())
    training, held_out = _split(config, dataset)
    data = DataSource(ATT_NAME if config.data == "att" else title(config.data), len(dataset), dataset.fingerprint())
    people = People(list(training.names), list(held_out.names), source.record.people.seen if source else [])
    run = {**asdict(config.settings()), "folds": config.folds, "data": data.sha256, "test": people.test}
    run["init"] = _hash_weights(start) if source else ""  # wherever they are stored
    run_on_main(partial(prepare_checkpoints, config, run))
    if source and is_main_process():
        _warn_if_seen(people, dataset if config.folds else held_out)

    # --- train
    folder = config.out / CHECKPOINTS
    network, state = fit(start, training, config, device, folder / "split.pt", "training", log)

    # --- test and calibrate
    test = held_out.subsample()
    scored = score_all_pairs(network, test)
    if config.folds:
        folds, final = cross_validate(start, dataset, config, device, folder, held_out.names, log)
        judge = final  # fitted without the test people
    else:
        folds, final = None, scored.calibrate()
        judge = score_all_pairs(network, training.subsample()).calibrate()
    if log:
        log.close()
    probability = judge.probability(scored.distance)

    # --- write
    before = deepcopy(start).to(device)
    record = Record(
        data=data,
        people=people,
        test=scored.report(probability),
        curves=scored.curves(probability),
        test_calibration=judge,
        settings=config.settings(),
        folds=folds,
        before=_report_before(before, training, test) if source else None,
        confused=scored.confused(judge.threshold, test.names),
        loss=_loss_curve(state.losses),
        validation_eer=state.validation_eer,
        minutes=round(state.seconds / 60, 1),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        versions={"python": platform.python_version(), "torch": torch.__version__, "siamese": __version__},
        plane=measure_plane(network, training, held_out),
    )
    if is_main_process():
        write_result(config, network, final, template, record, test, scored)
        clear_checkpoints(config.out)
        if source:
            _note_label_errors(before, dataset.subsample())
    return record


def _split(config: TrainConfig, dataset: IdentityDataset) -> tuple[IdentityDataset, IdentityDataset]:
    """Split into training and test people, and check that one fold has two others, to calibrate on."""
    training, held_out = dataset.split(config.seed)
    test = set(held_out.names)
    if config.folds and all(len(set(fold.names) - test) < 2 for _, fold in dataset.folds(config.folds)):
        raise ValueError(f"{len(dataset.names)} people are too few to calibrate on {config.folds} folds; use fewer")
    return training, held_out


def _loss_curve(losses: list[float]) -> LossCurve:
    """Return the losses of a long run without most batches, and those of a short run with all."""
    every = LONG_RUN_EVERY if len(losses) >= LONG_RUN else 1
    return LossCurve(every, losses[::every])


def _hash_weights(network: SiameseNetwork) -> str:
    digest = hashlib.sha256()
    for weight in network.state_dict().values():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def _warn_if_seen(people: People, tested: IdentityDataset) -> None:
    """Print a note on stderr if the initial weights may have been trained on people that are tested on."""
    if people.pretraining is None:
        print(UNKNOWN_NAMES_NOTE, file=sys.stderr)
    elif seen := set(people.pretraining) & set(tested.names):
        print(
            f"note: the initial weights were trained on people with {len(seen)} of the names of the test people. If "
            "they are the same people, the results are too good.",
            file=sys.stderr,
        )


def _note_label_errors(start: SiameseNetwork, dataset: IdentityDataset) -> None:
    """Print which images seem to be in the wrong folder. The initial weights have not learned the wrong labels."""
    if errors := find_label_errors(embed(start, dataset)[0], dataset):
        print("note: these may be label errors:", *limit_list(errors, MAX_LABEL_ERRORS), sep="\n  ", file=sys.stderr)


def _report_before(start: SiameseNetwork, training: IdentityDataset, test: IdentityDataset) -> Report:
    """Test the initial weights, calibrated on the training people."""
    reference: Scored = score_all_pairs(start, training.subsample())
    scored = score_all_pairs(start, test)
    judge = calibration.fit(reference.distance, reference.same)
    return scored.report(judge.probability(scored.distance))
