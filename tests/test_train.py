"""Training end to end with the tutorial recipe: the result folder, interruptions, and errors."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from safetensors.torch import load_file

from siamese import SiameseNetwork, contrastive_loss, distance, load, train
from siamese.data import pairs
from siamese.data.att import find_att
from siamese.data.dataset import load_dataset
from siamese.data.pairs import draw_pairs
from siamese.evaluation import calibrate, metrics
from siamese.evaluation import pairs as evaluated_pairs
from siamese.evaluation.calibrate import fit_calibration
from siamese.evaluation.pairs import score_all_pairs, score_pairs
from siamese.files import write_atomically
from siamese.record import LossCurve, Record
from siamese.training import run, start, trainer
from siamese.training.config import TrainConfig
from siamese.training.output import example_pairs, hold_output, prepare_checkpoints
from siamese.training.recipes import make_recipe
from siamese.training.run import cross_validate
from siamese.training.start import count_faces, decide, initial_network
from siamese.training.trainer import Job, State, Trainer

from .conftest import EXAMPLES, ROOT

CPU = torch.device("cpu")
TUTORIAL = ("--recipe", "tutorial", "--epochs", "3", "--batch-size", "16", "--folds", "2")  # as in `trained`


@pytest.fixture(scope="module")
def dataset(digits):
    return load_dataset(digits, (1, 100, 100), progress=False)


def record_of(folder) -> Record:
    return Record.from_json((folder / "metrics.json").read_bytes())


def weights_of(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def auc(network, dataset):
    scored = score_all_pairs(network, dataset)
    return metrics.auc(scored.distance, scored.same)


def job_of(config: TrainConfig) -> Job:
    settings, source = decide(config)
    return Job(initial_network(settings, source), settings, CPU, config.out)


def interrupt_after_epoch(monkeypatch, epoch, name="training.pt"):
    """Interrupt the training when this checkpoint of this epoch has been written."""

    def write(target, write):
        write_atomically(target, write)
        if target.name == name and torch.load(target, weights_only=True)["state"]["epoch"] == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "write_atomically", write)


# Kills its process in the second epoch of the first fold, while it writes the checkpoint.
KILL_WHILE_SAVING = """
import os, signal, sys
from siamese import cli
from siamese.files import write_atomically
from siamese.training import trainer

def write(target, write_content):
    if target.name == "fold-1-of-2.pt" and target.exists():
        write_content(target.with_name(target.name + ".part"))
        os.kill(os.getpid(), signal.SIGKILL)
    write_atomically(target, write_content)

trainer.write_atomically = write
sys.exit(cli.main(sys.argv[1:]))
"""

# Holds a result folder until it is killed.
HOLD = """
import signal, sys
from pathlib import Path
from siamese.training.config import TrainConfig
from siamese.training.output import hold_output

with hold_output(TrainConfig("att", Path(sys.argv[1]))):
    print("held", flush=True)
    signal.pause()
"""


# --- what it learns


def test_training_separates_the_training_people(dataset, tmp_path):
    job = job_of(TrainConfig("att", tmp_path, epochs=5, batch_size=16))
    network, final = Trainer(job, dataset, "test").train()
    assert auc(network, dataset) > auc(job.start, dataset) + 0.1
    assert final.losses[-1] < final.losses[0]


@pytest.mark.slow
def test_training_separates_unseen_people(att, tmp_path):
    training, test = att.folds(5)[3]
    job = job_of(TrainConfig("att", tmp_path, epochs=10))
    network, final = Trainer(job, training, "test").train()
    assert auc(network, test) > max(0.7, auc(job.start, test) + 0.05)
    assert np.mean(final.losses[-2:]) < np.mean(final.losses[:2])


def test_batches_embed_each_image_once_with_the_same_gradient(dataset, tmp_path):
    identity = dataset.identity
    settings, _ = decide(TrainConfig("att", tmp_path, batch_size=40))
    batches = make_recipe(settings).epoch_batches(identity, epoch=0)
    assert [len(same) for _, _, same in batches] == [40, 40]
    first, second, _ = draw_pairs(identity, len(identity), np.random.default_rng([0, 0]))
    rows, sides, labels = map(torch.from_numpy, batches[0])
    assert len(rows) == len(rows.unique()) < 80
    assert np.array_equal(rows[sides].numpy(), np.stack([first[:40], second[:40]]))

    gradients, pixels = [], dataset.pixels
    for once in (True, False):
        torch.manual_seed(0)
        network = SiameseNetwork()
        z1, z2 = network.embed(pixels[rows])[sides] if once else network(pixels[first[:40]], pixels[second[:40]])
        contrastive_loss(distance(z1, z2), labels).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in network.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


def test_infinite_loss_stops_with_the_step(dataset, tmp_path):
    job = job_of(TrainConfig("att", tmp_path, epochs=3, lr=1e18))
    with pytest.raises(RuntimeError, match=r"at step \d+ .* learning rate 1e\+18"):
        Trainer(job, dataset, "test").train()


# --- the result folder


def test_result_folder_is_complete_and_consistent(trained, dataset):
    assert {path.name for path in trained.iterdir()} == {
        *("config.json", "model.safetensors", "metrics.json", "README.md"),
        *("loss.png", "roc.png", "distances.png", "pairs.png", "hardest.png", "map.png"),
        *(
            f"example-{kind}-{k}-{side}.webp"
            for kind in ("genuine", "impostor")
            for k in (1, 2)
            for side in ("first", "second")
        ),
    }
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in trained.iterdir())
    for picture in trained.glob("*.png"):
        assert min(Image.open(picture).size) > 200
    record = record_of(trained)
    training, test = dataset.split(record.settings.seed)
    assert (record.people.training, record.people.test) == (list(training.names), list(test.names))
    assert (record.loss.every_batches, len(record.loss.values)) == (1, 3 * -(-len(training) // 16))

    scored = score_all_pairs(SiameseNetwork.from_pretrained(trained), test)
    probability = record.test_calibration.probability(scored.distance)
    assert vars(scored.report(probability)) == pytest.approx(vars(record.test), abs=1e-6)
    worst = record.confused[0]
    assert ({worst.first, worst.second}, worst.pairs) == (set(test.names), record.test.impostor)
    assert worst.share == pytest.approx((probability[~scored.same] >= 0.5).mean())


def test_long_run_records_one_loss_in_ten(tmp_path):
    job = job_of(TrainConfig("att", tmp_path))
    for losses, expected in (
        ([0.5] * 499, LossCurve(1, [0.5] * 499)),
        ([float(step) for step in range(501)], LossCurve(10, [10.0 * step for step in range(51)])),
    ):
        assert run._describe(job, State(losses=losses))["loss"] == expected


def test_training_from_python_has_the_result_in_the_default_folder(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(digits, recipe="tutorial", epochs=1)
    assert result.folder.resolve() == tmp_path / "runs" / digits.name
    assert result.record == record_of(result.folder) == result.model.record
    assert (result.record.settings.epochs, result.record.settings.lr) == (1, 5e-4)
    with pytest.raises(TypeError, match="speed"):
        train(digits, speed=2)
    with pytest.raises(ValueError, match="USER/NAME"):
        result.push_to_hub("nobody")


def test_metrics_of_each_epoch_are_handed_on_and_progress_can_be_hidden(digits, tmp_path, capsys):
    epochs = []
    settings = {"recipe": "tutorial", "epochs": 2, "batch_size": 32, "folds": 2}
    result = train(digits, tmp_path / "run", progress=False, on_epoch=lambda *epoch: epochs.append(epoch), **settings)
    assert [epoch[:2] for epoch in epochs] == [
        (name, number) for name in ("training", "fold 1 of 2", "fold 2 of 2") for number in (1, 2)
    ]
    losses = np.split(np.array(result.record.loss.values), 2)
    assert [metrics["loss"] for *_, metrics in epochs[:2]] == pytest.approx([part.mean() for part in losses])
    assert {"learning_rate", "images_per_second"} <= epochs[0][2].keys()
    assert capsys.readouterr() == ("", "")


def test_hardest_pairs_are_distant_genuine_and_close_impostor_pairs(dataset):
    test = dataset.select("123")
    scored = score_all_pairs(SiameseNetwork(), test)
    rows = example_pairs(test, scored, hardest=True)
    genuine, impostor = np.sort(scored.distance[scored.same]), np.sort(scored.distance[~scored.same])
    assert [row[2] for row in rows] == [*genuine[:-6:-1], *impostor[:5]]
    assert [row[3] for row in rows] == [True] * 5 + [False] * 5
    pictures = [test.image(number).tobytes() for number in range(len(test))]
    for first, second, _, same in rows:
        people = [test.identity[pictures.index(picture.tobytes())] for picture in (first, second)]
        assert (people[0] == people[1]) == same


def test_reversed_distances_give_an_undecided_calibration(tmp_path, digits, monkeypatch, siamese):
    def reverse(embedded):
        scored = score_pairs(embedded)
        return scored._replace(distance=scored.distance.max() - scored.distance)

    monkeypatch.setattr(run, "score_pairs", reverse)
    result = siamese("train", "--data", digits, *TUTORIAL[:2], "--epochs", 1, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert load(tmp_path / "run").calibration.probability(0) == pytest.approx(0.5, abs=0.01)


def test_collapsed_network_is_named(tmp_path, digits, monkeypatch, siamese):
    def collapse(trainer):
        network, final = original(trainer)
        for weight in network.parameters():
            torch.nn.init.zeros_(weight)
        return network, final

    original = Trainer.train
    monkeypatch.setattr(Trainer, "train", collapse)
    result = siamese("train", "--data", digits, *TUTORIAL[:2], "--epochs", 1, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "collapsed" in result.stdout
    assert "lower --lr" in result.stdout


def test_diverged_training_is_named(tmp_path, digits, siamese):
    result = siamese("train", "--data", digits, *TUTORIAL[:2], "--epochs", 2, "--lr", 1, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "diverged" in result.stdout
    assert "lower --lr" in result.stdout


@pytest.fixture
def noise(tmp_path) -> Path:
    """Ten classes that nothing tells apart."""
    rng = np.random.default_rng(0)
    for number in range(50):
        file = tmp_path / "noise" / f"c{number // 5}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(24, 24, 3), dtype=np.uint8)).save(file)
    return tmp_path / "noise"


def test_useless_network_has_a_result_that_says_so(noise, tmp_path, monkeypatch, siamese):
    command = ("train", "--data", noise, "--epochs", 2, "--out", tmp_path / "run")
    interrupt_after_epoch(monkeypatch, 1)
    assert siamese(*command).returncode == 130
    monkeypatch.setattr(trainer, "write_atomically", write_atomically)
    result = siamese(*command, "--resume")
    assert result.returncode == 0, result.stderr
    assert "useless" in result.stdout
    assert record_of(tmp_path / "run").test.auc < 0.75
    assert load(tmp_path / "run").record.test.balanced_accuracy is None  # of two held-out classes


# --- folds


def test_folds_are_not_tested_with_a_calibration_that_saw_them(dataset, tmp_path, monkeypatch):
    fitted_on, scored_folds = [], []

    def spy_fit(distance, same, people=None):
        fitted_on.append(set(distance.tolist()))
        return fit_calibration(distance, same, people)

    def spy_score(network, dataset):
        scored_folds.append(score_all_pairs(network, dataset))
        return scored_folds[-1]

    for module in (calibrate, evaluated_pairs):
        monkeypatch.setattr(module, "fit_calibration", spy_fit)
    monkeypatch.setattr(run, "score_all_pairs", spy_score)
    cross_validate(job_of(TrainConfig("att", tmp_path, epochs=1)), dataset, 2, exclude={"0", "1"})
    distances = [set(scored.distance.tolist()) for scored in scored_folds]
    assert fitted_on[:2] == [distances[1], distances[0]]
    # The folds are the people 0, 2, 4, 6, 8 and 1, 3, 5, 7, 9; the first of each is excluded.
    assert fitted_on[2] == {
        distance
        for scored in scored_folds
        for distance, people in zip(scored.distance.tolist(), scored.people, strict=True)
        if 0 not in people
    }


def test_folds_with_one_person_to_calibrate_on_and_sampled_pairs(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "MAX_EXHAUSTIVE_IMAGES", 10)
    job = job_of(TrainConfig("att", tmp_path, epochs=1))
    folds, fitted = cross_validate(job, dataset, 2, exclude={"0", "2", "4", "6"})
    assert len(folds.each) == 2
    assert fitted.slope > 0


def test_folds_without_people_to_calibrate_on_are_refused(digits, tmp_path, siamese):
    for name in "0123":
        shutil.copytree(digits / name, tmp_path / "four" / name)
    dataset = load_dataset(tmp_path / "four", (1, 100, 100))
    # The folds are {0, 2} and {1, 3}. With a test person in each, no fold has two others.
    seed = next(seed for seed in range(50) if sum(map(int, dataset.split(seed)[1].names)) % 2)
    refused = siamese("train", "--data", tmp_path / "four", "--out", tmp_path / "run", "--folds", 2, "--seed", seed)
    assert (refused.returncode, "too few to calibrate" in refused.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


# --- interruptions


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(digits, tmp_path, trained, monkeypatch, siamese):
    """It is interrupted and then killed; the checkpoint survives refusals, damage and a full disk in between."""
    out, checkpoint = tmp_path / "run", tmp_path / "run" / "checkpoints" / "training.pt"
    command = ("train", "--data", digits, "--out", out, *TUTORIAL)
    interrupt_after_epoch(monkeypatch, 1)
    interrupted = siamese(*command)
    assert (interrupted.returncode, "--resume" in interrupted.stderr) == (130, True)
    assert not (out / "model.safetensors").exists()

    for more, message in (
        ((), "unfinished run"),
        (("--lr", 1, "--resume"), "other lr;"),
        (("--folds", 3, "--resume"), "other folds;"),
        (("--recipe", "modern", "--resume"), "other recipe, lr, margin, images;"),
    ):
        refused = siamese(*command, *more)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr

    monkeypatch.setattr(trainer, "write_atomically", write_atomically)
    content = checkpoint.read_bytes()
    for damaged in (b"", content[:1000], content[:-100], b"no checkpoint"):
        checkpoint.write_bytes(damaged)
        refused = siamese(*command, "--resume")
        assert (refused.returncode, f"{checkpoint} is damaged" in refused.stderr) == (2, True), refused.stderr
    checkpoint.write_bytes(content)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, hard))  # no file can be larger, as on a full disk
    try:
        refused = siamese(*command, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (refused.returncode, f"cannot write {checkpoint}" in refused.stderr) == (2, True), refused.stderr
    assert checkpoint.read_bytes() == content
    assert not list(checkpoint.parent.glob("*.part"))

    killed = subprocess.run([sys.executable, "-c", KILL_WHILE_SAVING, *map(str, command), "--resume"], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert (out / ".lock").exists()
    assert list(checkpoint.parent.glob("*.part"))
    resumed = siamese(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert {path.name for path in out.iterdir()} == {path.name for path in trained.iterdir()}
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    ours, expected = record_of(out), record_of(trained)
    for name in ("loss", "test", "people", "settings", "folds", "test_calibration"):
        assert getattr(ours, name) == getattr(expected, name), name


def test_only_one_run_trains_in_a_folder_and_a_killed_one_does_not_block_it(digits, tmp_path, siamese):
    out = tmp_path / "runs" / "digits"
    command = ("train", "--data", digits, *TUTORIAL[:2], "--epochs", 1, "--out", out)
    with subprocess.Popen([sys.executable, "-c", HOLD, out], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for more in ((), ("--resume",), ("--overwrite",)):
            refused = siamese(*command, *more)
            assert (refused.returncode, f"another run trains in {out};" in refused.stderr) == (2, True)
        assert [path.name for path in out.iterdir()] == [".lock"]
        other.kill()
    assert (out / ".lock").exists()
    result = siamese(*command)
    assert result.returncode == 0, result.stderr
    assert not (out / ".lock").exists()


def test_a_refused_run_leaves_no_folder(tmp_path):
    config = TrainConfig("att", tmp_path / "runs" / "att", resume=True)
    with pytest.raises(ValueError, match="no unfinished run"), hold_output(config):
        pass
    assert list(tmp_path.iterdir()) == []


def test_write_atomically_keeps_the_previous_version(tmp_path):
    file = tmp_path / "file"
    write_atomically(file, lambda part: part.write_text("one"))

    def fail(part):
        part.write_text("tw")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(file, fail)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (RuntimeError("unexpected pos 64 vs 0"), True),  # of torch.save
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
    ],
)
def test_only_a_full_disk_is_called_full(tmp_path, error, is_full):
    def fail(part):
        raise error

    with pytest.raises(OSError, match="cannot write") as raised:
        write_atomically(tmp_path / "file", fail)
    assert ("disk full" in str(raised.value)) == is_full
    assert str(error.args[-1]) in str(raised.value)


def test_only_the_same_run_is_resumed(tmp_path):
    """Weights and test people are compared by content, not by name."""
    config = TrainConfig("data", tmp_path)
    settings = {"lr": 1.0, "data": "0", "test": ["a", "b"], "init": "1"}
    prepare_checkpoints(config, settings)
    config = TrainConfig("data", tmp_path, resume=True)
    prepare_checkpoints(config, settings)
    for other, name in (({"init": "2"}, "weights"), ({"test": ["a", "c"]}, "classes to test on")):
        with pytest.raises(ValueError, match=f"other {name};"):
            prepare_checkpoints(config, settings | other)


LIMITED = """
import resource, sys
from pathlib import Path
import siamese.training.run
from siamese import cli

now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[1]), -1))
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
@pytest.mark.parametrize("megabytes", [20, pytest.param(80, marks=pytest.mark.slow)])
def test_training_without_memory_says_so_and_writes_no_half_result(digits, tmp_path, siamese, megabytes):
    out = tmp_path / "run"
    arguments = ["train", "--data", digits, "--recipe", "tutorial", "--epochs", "1", "--out", out]
    command = [sys.executable, "-c", LIMITED, str(megabytes << 20), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 2, run.stderr
    assert "not enough memory" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not (out / "config.json").exists()
    again = ["--resume"] if out.exists() else []
    assert siamese(*arguments, *again).returncode == 0
    load(out)


def test_a_file_is_replaced_after_its_content_is_on_the_disk(tmp_path, monkeypatch):
    """Else a power loss could leave an empty file."""
    synced, replace_file = set(), os.replace

    def replace(source, target):
        assert os.stat(source).st_ino in synced
        replace_file(source, target)

    monkeypatch.setattr(os, "fsync", lambda number: synced.add(os.fstat(number).st_ino))
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "file", lambda part: part.write_text("new"))
    assert (tmp_path / "file").read_text() == "new"


def test_other_files_in_the_result_folder_survive(trained, digits, tmp_path, monkeypatch, siamese):
    other = tmp_path / "other" / "checkpoints" / "thesis.pt"
    other.parent.mkdir(parents=True)
    other.write_text("a year of work")
    shutil.copytree(digits, tmp_path / "digits")
    (tmp_path / "digits" / "3" / "broken.png").write_bytes(b"broken")
    (tmp_path / "file").write_text("not a folder")
    for out, message in (
        (tmp_path / "digits" / "runs" / "digits", "is inside the data"),
        (tmp_path / "digits", "is inside the data"),
        (trained, "has a trained network"),
        (tmp_path / "other", "has other files"),
        (tmp_path / "file" / "run", "not a writable folder"),
    ):
        refused = siamese("train", "--data", tmp_path / "digits", "--out", out)
        # The folder is checked before the data is read.
        assert (refused.returncode, message in refused.stderr, "broken.png" in refused.stderr) == (2, True, False)
    refused = siamese("train", "--data", digits, "--out", tmp_path / "other", "--overwrite")
    assert "has other files" in refused.stderr
    assert other.read_text() == "a year of work"
    assert not (tmp_path / "digits" / "runs").exists()

    # An interrupted run with --overwrite keeps the earlier weights.
    shutil.copytree(trained, tmp_path / "copy")
    interrupt_after_epoch(monkeypatch, 1)
    command = ("train", "--data", digits, *TUTORIAL, "--out", tmp_path / "copy", "--overwrite")
    assert siamese(*command).returncode == 130
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


# --- settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margin", "-1"], "margin must be above 0, got -1.0"),
        (["--lr", "nan"], "lr must be above 0"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--batch-size", "many"], "invalid int value: 'many'"),
        (["--batch-size", "7"], "batch_size must be at least 8, got 7"),
        (["--folds", "1"], "folds must be 0 (none) or at least 2"),
        (["--folds", "6", "--recipe", "modern"], "2 to 5 folds"),
        (["--device", "cuda:99"], "no device 'cuda:99'"),
        (["--resume"], "no unfinished run"),
        (["--resume", "--overwrite"], "choose one"),
        (["--recipe", "best"], "got 'best'"),
        (["--recipe", "tutorial", "--flip"], "use --recipe modern"),
        (["--align", "thumbs"], "align must be faces or none"),
        (["--push-to-hub", "nobody"], "USER/NAME"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--init", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--init", ROOT / "weights" / "faces", "--recipe", "tutorial"], "use --recipe modern"),
        (["--init", ROOT / "weights" / "faces", "--flip"], "no effect with 0 epochs"),
    ],
)
def test_bad_settings_are_refused_before_any_work(digits, tmp_path, arguments, message, siamese):
    refused = siamese("train", "--data", digits, "--out", tmp_path / "run", *arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert message in refused.stderr
    assert not (tmp_path / "run").exists()


def test_missing_tensorboard_is_reported_before_any_work(digits, tmp_path, monkeypatch, siamese):
    for module in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    refused = siamese("train", "--data", digits, "--out", tmp_path / "run", "--tensorboard")
    assert (refused.returncode, "siamese-faces[tensorboard]" in refused.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


# --- starting from weights


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    """A folder of six people with two photos each: the examples, and their mirror images with other brightness."""
    folder = tmp_path_factory.mktemp("family")
    for file in EXAMPLES.glob("*.jpg"):
        (folder / file.stem).mkdir()
        photo = Image.open(file).convert("RGB")
        photo.thumbnail((400, 400))
        photo.save(folder / file.stem / "1.jpg")
        ImageEnhance.Brightness(ImageOps.mirror(photo)).enhance(1.2).save(folder / file.stem / "2.jpg")
    return folder


def test_init_fits_the_whitening_layer_only(family, tmp_path, siamese):
    """Three training people are too few for whitening to help, so that it stays the identity."""
    faces, out = ROOT / "weights" / "faces", tmp_path / "family"
    result = siamese("train", "--data", family, "--init", faces, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "label errors" not in result.stderr
    before, after = weights_of(faces), weights_of(out)
    assert after.keys() - before.keys() == {"whitening.weight", "whitening.bias"}
    assert all(torch.equal(before[name].half(), after[name]) for name in before)
    assert torch.equal(after["whitening.weight"], torch.eye(len(after["whitening.bias"])).half())
    record = record_of(out)
    assert record.before.auc == record.test.auc
    assert record.people.pretraining == []
    assert (record.settings.epochs, record.settings.align, record.settings.init) == (0, "faces", str(faces))
    model = load(out)
    assert model.align == "faces"
    assert model.compare(family / "biden" / "1.jpg", family / "biden" / "2.jpg").verdict == "same"


def test_folders_of_the_same_person_are_noted(family, tmp_path, siamese):
    data = Path(shutil.copytree(family, tmp_path / "family"))
    (data / "joe").mkdir()
    photo = Image.open(data / "biden" / "1.jpg")
    for brightness in (0.8, 0.9):
        ImageEnhance.Brightness(photo).enhance(brightness).save(data / "joe" / f"{brightness}.jpg")
    result = siamese("train", "--data", data, "--init", ROOT / "weights" / "faces", "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "\n  biden and joe look the same (" in result.stderr
    published = "".join(path.read_text() for path in (tmp_path / "run").glob("*.md"))
    assert "joe look" not in published + (tmp_path / "run" / "metrics.json").read_text()


def test_faces_are_found_in_folders_and_zips(family, digits, tmp_path):
    with_face, count = count_faces(family)
    assert 10 <= count == with_face <= 12
    archive = shutil.make_archive(str(tmp_path / "family"), "zip", family)
    assert count_faces(Path(archive)) == (with_face, count)
    shutil.copytree(digits, tmp_path / "digits")
    (tmp_path / "digits" / "0" / "0.png").write_bytes(b"broken")
    with_face, count = count_faces(tmp_path / "digits")
    assert (with_face, count > 20) == (0, True)


@pytest.mark.slow
def test_faces_are_found_in_gray_images_of_faces(att):
    with_face, count = count_faces(find_att())
    assert with_face == count >= 30


def refuse_to_look(source):
    raise AssertionError("the images were looked at")


@pytest.mark.parametrize(
    ("with_face", "count", "init"), [(16, 32, True), (15, 32, False), (1, 1, True), (0, 32, False), (0, 0, False)]
)
def test_most_images_decide_what_to_start_from(tmp_path, monkeypatch, with_face, count, init):
    monkeypatch.setattr(start, "count_faces", lambda source: (with_face, count))
    explicit = {"init": "weights/faces"} if init else {"recipe": "modern"}
    monkeypatch.setattr(start, "measure", lambda *_: (0.3, 0.1, 5))  # from scratch is better
    for settings in ({}, {"epochs": 2, "lr": 1.0, "flip": True}):
        decided, _ = decide(TrainConfig("data", tmp_path, **settings))
        expected, _ = decide(TrainConfig("data", tmp_path, **settings, **explicit))
        assert replace(decided, init=Path(decided.init).name) == replace(expected, init=Path(expected.init).name)
        assert decided.epochs == settings.get("epochs", 0 if init else 8)
        assert decided.turned == (not init and not settings)


@pytest.mark.parametrize(
    ("data", "settings", "recipe"),
    [
        ("att", {}, "tutorial"),
        ("data", {"recipe": "modern", "flip": True}, "modern"),
        ("data", {"recipe": "tutorial"}, "tutorial"),
        ("data", {"init": "weights/images"}, "modern"),
        ("data", {"align": "none", "epochs": 2}, "modern"),
    ],
)
def test_images_are_not_looked_at_if_the_settings_decide(tmp_path, monkeypatch, data, settings, recipe):
    monkeypatch.setattr(start, "count_faces", refuse_to_look)
    decided, _ = decide(TrainConfig(data, tmp_path, **settings))
    assert (decided.recipe, Path(decided.init).name) == (recipe, Path(settings.get("init", "")).name)


@pytest.mark.parametrize("setting", [{"flip": True}, {"lr": 0.1}, {"margin": 1.0}])
def test_settings_without_effect_on_the_face_network_are_refused(tmp_path, monkeypatch, setting):
    monkeypatch.setattr(start, "count_faces", lambda source: (32, 32))
    with pytest.raises(ValueError, match=f"remove --{next(iter(setting))}, or set --epochs"):
        decide(TrainConfig("data", tmp_path, **setting))


def test_images_of_faces_adapt_the_face_network_also_when_resumed(family, trained, tmp_path, monkeypatch, siamese):
    """The interrupted run is resumed with the same command, which does not look at the images again."""
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    command = ("train", "--data", family, "--out", out)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", interrupt)
        interrupted = siamese(*command, "--overwrite")
        assert (interrupted.returncode, "--recipe modern" in interrupted.stdout) == (130, True)
        patch.setattr(start, "count_faces", refuse_to_look)
        assert siamese(*command, "--resume", "--init", ROOT / "weights" / "faces").returncode == 130
    refused = siamese(*command, "--resume", "--align", "none")
    assert (refused.returncode, "other align, images;" in refused.stderr) == (2, True), refused.stderr
    monkeypatch.setattr(start, "count_faces", refuse_to_look)
    resumed = siamese(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "|" not in resumed.stdout  # the table is in the card only
    settings = record_of(out).settings
    assert (settings.recipe, settings.epochs, settings.align) == ("modern", 0, "faces")
    assert settings.init.endswith("weights/faces")
    assert load(out).align == "faces"
    assert (out / "roc.png").exists()
    assert not (out / "loss.png").exists()  # that of the replaced network


def test_images_without_a_face_are_listed(family, tmp_path, siamese):
    shutil.copytree(family, tmp_path / "family")
    Image.new("RGB", (300, 300)).save(tmp_path / "family" / "biden" / "3.jpg")
    (tmp_path / "family" / "collins" / "3.jpg").write_bytes(b"not a picture")
    faces = ROOT / "weights" / "faces"
    refused = siamese("train", "--data", tmp_path / "family", "--init", faces, "--out", tmp_path / "run")
    assert refused.returncode == 2
    for name in ("biden", "collins"):
        assert f"{name}: " in refused.stderr
    assert not (tmp_path / "run").exists()


def test_init_with_tutorial_weights_is_refused(trained, digits, tmp_path, siamese):
    refused = siamese("train", "--data", digits, "--init", trained, "--out", tmp_path / "run")
    assert (refused.returncode, "trained by the tutorial recipe" in refused.stderr) == (2, True)
