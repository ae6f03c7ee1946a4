"""Train, test and calibrate a network, and write the result folder."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Collection
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamese import __version__, checkpoint
from siamese.calibration import Calibration
from siamese.data.dataset import MAX_MEASURED_IMAGES, IdentityDataset, load_dataset
from siamese.data.folders import limit_list, print_note, title
from siamese.distributed import is_main_process, join, progress_bar, run_on_main
from siamese.evaluation.calibrate import cross_fit
from siamese.evaluation.folder import UNKNOWN_NAMES_NOTE
from siamese.evaluation.labels import find_label_errors
from siamese.evaluation.pairs import (
    MAX_PLANE_IMAGES,
    Scored,
    embed,
    features_of,
    measure_plane,
    score_all_pairs,
    score_pairs,
)
from siamese.faces.face import TEMPLATE
from siamese.hub.upload import upload
from siamese.model import Model
from siamese.network import SiameseNetwork
from siamese.record import ATT_NAME, DataSource, Folds, LossCurve, People, Record, Report
from siamese.training.config import TrainConfig
from siamese.training.output import (
    CHECKPOINTS,
    TENSORBOARD,
    TensorBoardLog,
    check_output,
    hold_output,
    prepare_checkpoints,
    write_result,
)
from siamese.training.start import decide, initial_network, starts_as
from siamese.training.trainer import Job, Log, State, Trainer

MAX_PRINTED_LABEL_ERRORS = 10
# From `LONG_RUN` batches on, the loss of only one in `LONG_RUN_EVERY` batches is recorded.
LONG_RUN, LONG_RUN_EVERY = 500, 10


@dataclass(frozen=True)
class TrainResult:
    """A trained network.

    Attributes:
        folder: the result folder.
        record: the content of its metrics.json.
        model: the network; with several processes, None on all but the main process.
    """

    folder: Path
    record: Record
    model: Model | None

    def push_to_hub(self, repo_id: str, private: bool = False) -> str:
        """Push the result to the Hugging Face Hub, without images and names of people.

        Args:
            repo_id: USER/NAME.
            private: make a new repository private.

        Returns:
            The URL of the model.

        Raises:
            ValueError: if the name or the token is invalid, or the repository holds other content.
            ConnectionError: if the Hub cannot be reached or denies the request.
        """
        return upload(self.folder, repo_id, private)


def train(
    data: str | Path,
    out: str | Path | None = None,
    *,
    progress: bool = True,
    on_epoch: Log | None = None,
    **settings: Any,
) -> TrainResult:
    """Train a network, test it on held-out people, calibrate it, and write the result folder.

    The test people are those that the data set reserves (s5, s6 and s7 for AT&T), else a random fifth. Large data sets
    are measured on a sample. No pair is judged by a calibration that was fitted to its people:

    - With `folds`, one more network is trained per fold of people. The calibration is fitted on the pooled distances of
      all folds without the test people, and used to test.
    - Without, the calibration is fitted on the test people. A pair of them is judged by a calibration of the others
      (cross-fitting), if there are at least `MIN_JUDGED`.
    - If training starts from weights and leaves them as they are, their calibration is kept and used to test.

    The result folder is a complete model repository for the Hub: config.json, model.safetensors, metrics.json,
    README.md (the model card) and plots; with `tensorboard` also the logs.

    Args:
        data: "att" for the AT&T faces, or a folder or zip archive with one folder of images per person or thing.
        out: the result folder; by default runs/NAME_OF_THE_DATA.
        progress: show progress bars on stderr.
        on_epoch: called after each epoch with the name of the network ("training", or "fold 1 of 5"), the number of the
            epoch, from 1, and its metrics: loss, learning_rate, images_per_second and, with validation people,
            validation_eer. With several processes, only the main one calls it.
        settings: the options of `siamese train`, such as `recipe="modern"` or `epochs=10`.

    Raises:
        ValueError: if data, settings, device, result folder or checkpoint cannot be used.
        OSError: if a file cannot be written.
        ImportError: if TensorBoard is requested and not installed.
        RuntimeError: if the loss is not finite.
        KeyboardInterrupt: on Ctrl-C. The last complete epoch is kept for `resume`.
    """
    config = TrainConfig(str(data), Path(out or Path("runs", title(data))), **settings)
    with ExitStack() as stack:
        logs = [on_epoch] if on_epoch else []
        if config.tensorboard:
            logs.append(stack.enter_context(closing(TensorBoardLog(config.out / TENSORBOARD))))
        device = join(config.device)
        run_on_main(partial(check_output, config))
        run_on_main(lambda: stack.enter_context(hold_output(config)))
        record = _train(config, device, logs, progress)
    model = checkpoint.load(config.out, device=str(device)) if is_main_process() else None
    return TrainResult(config.out, record, model)


def _train(config: TrainConfig, device: torch.device, logs: list[Log], progress: bool) -> Record:
    # --- set up
    settings, source = decide(config, progress)
    job = Job(initial_network(settings, source), settings, device, config.out / CHECKPOINTS, logs, progress)
    template = ((source and source.template) or TEMPLATE) if settings.align == "faces" else None
    dataset = load_dataset(config.data, job.start.input_shape, template, progress)
    if not settings.epochs and len(dataset) <= MAX_MEASURED_IMAGES:
        dataset.features = frozen_features(job, dataset)
    training, held_out = _split(config, dataset)
    data = DataSource(ATT_NAME if config.data == "att" else title(config.data), len(dataset), dataset.fingerprint())
    # Of published weights only layers are used that were not fitted to the people in the record.
    seen = source.record.people.seen if source and source.record.settings else []
    people = People(list(training.names), list(held_out.names), seen)
    init = _hash_weights(job.start) if settings.init else ""  # wherever they are stored
    run: dict[str, Any] = {**asdict(settings), "init": init, "start": [settings.init, settings.turned]}
    run |= {"folds": config.folds, "data": data.sha256, "test": people.test}
    run_on_main(partial(prepare_checkpoints, config, run))
    if source and is_main_process():
        _warn_if_seen(people, dataset if config.folds else held_out)

    # --- train
    network, state = Trainer(job, training, "training").train()

    # --- test and calibrate
    tested = embed(network, held_out.subsample())
    scored = score_pairs(tested)
    # `judge`: a calibration that was fitted without the test people
    folds, judge = None, None
    if config.folds:  # with the same whitening, so that the distances of all networks are comparable
        same = replace(job, shrinkage=state.shrinkage)
        folds, judge = cross_validate(same, dataset, config.folds, held_out.names)
    calibration = judge or scored.calibrate()
    known = source.calibration if source and starts_as(source, job.start, settings) else None
    unchanged = bool(settings.init) and _hash_weights(network) == init
    if known and unchanged and len(known.operating_points) >= len(calibration.operating_points):
        judge = calibration = known  # with its quality scores and stricter rates
    probability = judge.probability(scored.distance, scored.quality) if judge else scored.cross_fit()
    before, label_errors = _judge_start(job, known, dataset, held_out) if settings.init else (None, [])
    plane = None
    if network.embedding_dim == 2:
        plane = measure_plane(embed(network, training.subsample(MAX_PLANE_IMAGES)), tested, people)
    record = Record(
        data=data,
        people=people,
        test=scored.report(probability),
        curves=scored.curves(probability),
        test_calibration=judge,
        folds=folds,
        before=before,
        unchanged=unchanged,
        confused=scored.confused(calibration.threshold, tested.dataset.names),
        plane=plane,
        source=source.record.source if source else None,
        **_describe(job, state),
    )

    # --- write
    if is_main_process():
        license_text = source.license_text if source else ""
        model = Model(network.cpu().half(), calibration, record, str(config.out), template, license_text=license_text)
        write_result(config.out, model, tested.dataset, scored)
        print_note("these may be label errors", limit_list(label_errors, MAX_PRINTED_LABEL_ERRORS))
    return record


def _describe(job: Job, state: State) -> dict[str, Any]:
    """Return the fields of the record that say how the network was trained."""
    device = job.device
    every = LONG_RUN_EVERY if len(state.losses) >= LONG_RUN else 1
    return {
        "settings": job.settings,
        "loss": LossCurve(every, state.losses[::every]),
        "validation_eer": state.validation_eer,
        "minutes": round(state.seconds / 60, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "siamese": __version__},
    }


def _split(config: TrainConfig, dataset: IdentityDataset) -> tuple[IdentityDataset, IdentityDataset]:
    """Split into training and test people, and check that one fold has two others, to calibrate on."""
    training, held_out = dataset.split(config.seed)
    test = set(held_out.names)
    if config.folds and all(len(set(fold.names) - test) < 2 for _, fold in dataset.folds(config.folds)):
        raise ValueError(f"{len(dataset.names)} classes are too few to calibrate on {config.folds} folds; use fewer")
    return training, held_out


# --- starting from weights


@torch.inference_mode()
def frozen_features(job: Job, dataset: IdentityDataset) -> Tensor:
    """Compute the features of all images once, (N, D) on the CPU, for a network that training does not change."""
    network = deepcopy(job.start).to(job.device).eval()
    bar = progress_bar(features_of(network, dataset), "computing features", delay=2, shown=job.progress)
    return torch.cat([features.cpu() for features in bar])


def _hash_weights(network: SiameseNetwork) -> str:
    """Return a hash of the weights in half precision, as training stores them."""
    digest = hashlib.sha256()
    for weight in network.state_dict().values():
        digest.update(weight.half().cpu().numpy().tobytes())
    return digest.hexdigest()


def _warn_if_seen(people: People, tested: IdentityDataset) -> None:
    """Print a note on stderr if the initial weights may have been trained on people that are tested on."""
    if people.pretraining is None:
        print(UNKNOWN_NAMES_NOTE, file=sys.stderr)
    elif seen := set(people.pretraining) & set(tested.names):
        print(
            f"note: the initial weights were trained on classes with {len(seen)} of the names of the test classes. If "
            "they are the same, the results are too good.",
            file=sys.stderr,
        )


def _judge_start(
    job: Job, calibration: Calibration | None, dataset: IdentityDataset, held_out: IdentityDataset
) -> tuple[Report, list[str]]:
    """Test the initial weights with their calibration, if any. They also find label errors: they learned none."""
    start = deepcopy(job.start).to(job.device)
    whole = embed(start, dataset.subsample())
    # Each image is embedded once, unless the data set is so large that its samples differ.
    part = whole.select if whole.dataset is dataset else partial(embed, start)
    scored = score_pairs(part(held_out.subsample()))
    probability = calibration.probability(scored.distance, scored.quality) if calibration else scored.cross_fit()
    return scored.report(probability), find_label_errors(whole.z, whole.dataset)


# --- cross-validation


def cross_validate(
    job: Job, dataset: IdentityDataset, count: int, exclude: Collection[str] = ()
) -> tuple[Folds, Calibration]:
    """Train one network per fold of people, and test it on the people that it has not seen.

    The probabilities of a fold come from a calibration that is fitted on all other folds. The returned calibration is
    fitted on all folds, without the pairs of people in `exclude`.
    """
    scored, kept, before = [], [], []
    for k, (training, test) in enumerate(dataset.folds(count)):
        network, _ = Trainer(job, training, f"fold {k + 1} of {count}").train()
        test = test.subsample()
        # Each fold numbers its people from 0; the offset makes the numbers unique.
        offset = k * len(dataset.names)
        scored.append(_shift_people(score_all_pairs(network, test), offset))
        excluded = [offset + number for number, name in enumerate(test.names) if name in exclude]
        rows = ~np.isin(scored[-1].people, excluded).any(1)
        kept.append(scored[-1].select(rows))
        if job.settings.init:
            before.append(_shift_people(score_all_pairs(deepcopy(job.start).to(job.device), test), offset))

    count = len(dataset.names)
    each, pooled = _report_folds(scored, count)
    pooled_before = _report_folds(before, count)[1] if before else None
    return Folds(each, pooled, pooled_before), Scored.concatenate(kept).calibrate()


def _report_folds(folds: list[Scored], count: int) -> tuple[list[Report], Report]:
    """Return the metrics of each fold and of all pairs together; the people of a fold have `count` numbers."""
    pooled = Scored.concatenate(folds)
    probability = cross_fit(pooled.distance, pooled.same, pooled.people // count)
    ends = np.cumsum([len(fold.same) for fold in folds])
    parts = np.split(probability, ends[:-1])
    return [fold.report(part) for fold, part in zip(folds, parts, strict=True)], pooled.report(probability)


def _shift_people(scored: Scored, offset: int) -> Scored:
    return scored._replace(people=scored.people + offset)
