"""Training end to end, in processes of its own: what it learns, and what survives a kill."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from siamese import SiameseNetwork, cli, contrastive_loss, distance
from siamese import calibration as calibrate
from siamese.calibration import Calibration
from siamese.checkpoint import load as siamese_of
from siamese.data import dataset as data
from siamese.evaluation import metrics, pairs
from siamese.evaluation.pairs import draw_pairs, score_all_pairs
from siamese.hub.card import model_card
from siamese.training import modern as strong
from siamese.training import run as train
from siamese.training import trainer as loop
from siamese.training import tutorial as seed
from siamese.training.config import TrainConfig

from .conftest import EXAMPLES, ROOT

CPU = torch.device("cpu")
SEED = ("--recipe", "tutorial")


def auc(network, dataset):
    scored = score_all_pairs(network, dataset)
    return metrics.auc(scored.distance, scored.same)


def test_learns_to_tell_people_it_has_not_seen(tmp_path, att):
    training, test = att.folds(5)[3]
    config = TrainConfig("att", tmp_path, epochs=10)
    untrained, _ = loop.first_network(config)
    fitted = loop.fit(untrained, training, config, CPU, tmp_path / "checkpoint.pt", "test")
    assert auc(fitted.network, test) > 0.7
    assert auc(fitted.network, test) > auc(untrained, test) + 0.05
    assert np.mean(fitted.losses[-2:]) < np.mean(fitted.losses[:2])


def test_the_result_folder_is_complete_and_true(trained, digits):
    assert {path.name for path in trained.iterdir()} == {
        *("config.json", "model.safetensors", "metrics.json", "README.md"),
        *("loss.png", "roc.png", "distances.png", "pairs.png", "hardest.png"),
    }
    for picture in trained.glob("*.png"):
        assert min(Image.open(picture).size) > 200
    record = json.loads((trained / "metrics.json").read_text())
    dataset = data.load(digits, (1, 100, 100))
    training, test = dataset.split(record["recipe"]["seed"])
    assert (record["people"]["training"], record["people"]["test"]) == (list(training.names), list(test.names))
    assert len(record["loss"]["values"]) == -(-3 * -(-len(training) // 16) // 10)

    scored = score_all_pairs(SiameseNetwork.from_pretrained(trained), test)
    probability = Calibration.from_dict(record["test_calibration"]).probability(scored.distance)
    assert scored.report(probability) == pytest.approx(record["test"], abs=1e-6)
    (one, other, share, count) = record["confused"][0]
    assert ({one, other}, count) == (set(test.names), record["test"]["impostor"])
    assert share == pytest.approx((probability[~scored.same] >= 0.5).mean())
    row = f"| {one} | {other} | {share:.0%} | {count} |"
    assert row in (trained / "README.md").read_text()
    assert row not in model_card({**record, "confused": []}, "digits")
    odd = model_card({**record, "confused": [["a|b", "<c>", 0.5, 64]], "data": {"name": "my photos"}}, "digits")
    assert "| a\\|b | &lt;c&gt; | 50% | 64 |" in odd
    assert "siamese train --data 'my photos' --folds 2" in odd


def test_the_hardest_pairs_are_the_furthest_of_one_and_the_closest_of_two(digits):
    test = data.load(digits, (1, 100, 100)).select("123")
    scored = score_all_pairs(SiameseNetwork(), test)
    rows = train._ten_pairs(test, scored, hardest=True)
    genuine, impostor = np.sort(scored.distance[scored.same]), np.sort(scored.distance[~scored.same])
    assert [row[2] for row in rows] == [*genuine[:-6:-1], *impostor[:5]]
    assert [row[3] for row in rows] == [True] * 5 + [False] * 5
    pictures = [test.picture(number).tobytes() for number in range(len(test))]
    for first, second, _, same in rows:
        people = [test.identity[pictures.index(picture.tobytes())] for picture in (first, second)]
        assert (people[0] == people[1]) == same


def test_a_second_run_is_the_same_to_the_bit(trained, digits, tmp_path, siamese):
    run = siamese(
        "train", "--data", digits, *SEED, "--epochs", 3, "--batch-size", 16, "--folds", 2, "--out", tmp_path / "again"
    )
    assert run.returncode == 0, run.stderr
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()


def test_a_batch_embeds_each_image_once_and_its_gradient_is_the_plain_one(digits):
    dataset = data.load(digits, (1, 100, 100))
    config = TrainConfig("att", Path(), batch_size=40)
    batches = [tuple(map(torch.from_numpy, batch)) for batch in seed.epoch_batches(dataset.identity, config, 0)]
    assert [len(same) for _, _, same in batches] == [40, 40]
    first, second, _ = draw_pairs(dataset.identity, len(dataset), np.random.default_rng([config.seed, 0]))
    rows, sides, labels = batches[0]
    assert len(rows) == len(rows.unique()) < 80
    assert np.array_equal(rows[sides].numpy(), np.stack([first[:40], second[:40]]))

    gradients = []
    for once in (True, False):
        torch.manual_seed(0)
        network = SiameseNetwork()
        pixels = dataset.pixels
        z1, z2 = network.embed(pixels[rows])[sides] if once else network(pixels[first[:40]], pixels[second[:40]])
        contrastive_loss(distance(z1, z2), labels).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


def test_folds_never_judge_by_a_calibration_that_saw_them(digits, tmp_path, monkeypatch):
    """A fold's probabilities come from the pairs of all other folds, and the spared people calibrate nothing."""
    dataset = data.load(digits, (1, 100, 100))
    seen = []
    fit = calibrate.fit
    monkeypatch.setattr(calibrate, "fit", lambda d, s, people=None: seen.append(set(d.tolist())) or fit(d, s, people))
    config = TrainConfig("att", tmp_path, epochs=2, folds=2)
    measured = []
    monkeypatch.setattr(loop, "score_all_pairs", lambda n, g: measured.append(score_all_pairs(n, g)) or measured[-1])
    loop.cross_validate(loop.first_network(config)[0], dataset, config, CPU, tmp_path, spare={"0", "1"})
    assert len(measured) == 2
    of_fold = [set(scored.distance.tolist()) for scored in measured]
    assert seen[:2] == [of_fold[1], of_fold[0]]
    # Of the people 0, 2, 4, 6, 8 and of 1, 3, 5, 7, 9 the first is spared.
    assert seen[2] == {
        distance
        for scored in measured
        for distance, people in zip(scored.distance.tolist(), scored.people, strict=True)
        if 0 not in people
    }


def test_folds_may_leave_one_of_very_many_images_to_calibrate_on(digits, tmp_path, monkeypatch):
    """With more images than all pairs are measured of, one person alone has no impostors to draw."""
    monkeypatch.setattr(pairs, "EVERY", 10)
    dataset = data.load(digits, (1, 100, 100))
    config = TrainConfig("att", tmp_path, epochs=1, folds=2)
    start = loop.first_network(config)[0]
    by_fold, calibration = loop.cross_validate(start, dataset, config, CPU, tmp_path, spare={"0", "2", "4", "6"})
    assert len(by_fold["each"]) == 2
    assert calibration.slope > 0


COMMAND = ("--recipe", "tutorial", "--epochs", "15", "--batch-size", "8", "--seed", "1")


def start(digits, out, *more) -> subprocess.Popen:
    command = [sys.executable, "-m", "siamese", "train", "--data", digits, "--out", out, *COMMAND, *more]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # A shell that runs the tests in the background has them ignore Ctrl-C, and so would this process.
    return subprocess.Popen(command, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_for_epoch(process, out, epoch):
    """Wait until the checkpoint of that epoch is whole; the run must still be going on then."""
    file = out / "checkpoints" / "split.pt"
    for _ in range(1200):
        if file.exists() and torch.load(file, weights_only=True)["epoch"] >= epoch:
            assert process.poll() is None, "the run ended before it could be stopped"
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of epoch {epoch}")


def kill_after_epoch(epoch, digits, out, *more):
    process = start(digits, out, *more)
    wait_for_epoch(process, out, epoch)
    process.kill()
    process.wait()


def logged(folder) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """What TensorBoard shows of each run: of each number its (step, value)."""
    shown = {}
    for run in sorted(folder.iterdir()):
        events = EventAccumulator(str(run)).Reload()
        tags = events.Tags()["scalars"]
        shown[run.name] = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    return shown


@pytest.fixture(scope="module")
def unbroken(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert cli.main(["train", "--data", str(digits), "--out", str(out), *COMMAND]) == 0
    return out


def test_killed_and_resumed_ends_as_if_unbroken(digits, tmp_path, unbroken, siamese):
    out = tmp_path / "run"
    for epoch in (1, 3):
        kill_after_epoch(epoch, digits, out, "--tensorboard", *(["--resume"] if epoch > 1 else []))
    assert not (out / "model.safetensors").exists()
    (out / ".new-killed").mkdir()  # as a kill while the result was being written would leave it

    refused = siamese("train", "--data", digits, "--out", out, *COMMAND)
    assert refused.returncode == 2
    assert "unfinished run: --resume" in refused.stderr
    other = siamese("train", "--data", digits, "--out", out, *COMMAND, "--lr", 1, "--resume")
    assert other.returncode == 2
    assert "began with other lr; resume it with its own" in other.stderr
    folds = siamese("train", "--data", digits, "--out", out, *COMMAND, "--folds", 2, "--resume")
    assert "began with other folds;" in folds.stderr
    recipe = siamese("train", "--data", digits, "--out", out, *COMMAND, "--recipe", "modern", "--resume")
    assert "began with other recipe, lr, margin, images, flip;" in recipe.stderr

    time.sleep(1)  # TensorBoard tells runs apart, and which was first, by the second in which they began
    resumed = siamese("train", "--data", digits, "--out", out, *COMMAND, "--tensorboard", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert [step for step, _ in logged(out / "tensorboard")["training"]["loss"]] == list(range(1, 16))
    assert {path.name for path in out.iterdir()} == {path.name for path in unbroken.iterdir()} | {"tensorboard"}
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    records = [json.loads((folder / "metrics.json").read_text()) for folder in (out, unbroken)]
    assert all(records[0][key] == records[1][key] for key in ("loss", "test", "people", "recipe"))


def test_only_the_same_run_is_resumed(tmp_path):
    """With other weights under the name of those that it began from, or other people to test on, it is another."""
    config = TrainConfig("…", tmp_path)
    run = {**config.settings(), "data": "…", "test": ["a", "b"], "init": "1"}
    train._prepare(config, run)
    config = TrainConfig("…", tmp_path, resume=True)
    train._prepare(config, run)
    for other, says in (({"init": "2"}, "weights"), ({"test": ["a", "c"]}, "people to test on")):
        with pytest.raises(ValueError, match=f"began with other {says}; resume it with its own"):
            train._prepare(config, run | other)


def test_a_result_folder_that_will_not_do_is_told_before_the_data_is_read(trained, digits, tmp_path, siamese):
    shutil.copytree(digits, tmp_path / "digits")
    (tmp_path / "digits" / "3" / "broken.png").write_bytes(b"broken")
    for out, says in (
        (tmp_path / "digits" / "runs" / "digits", "lies inside the data, and would be taken for a person"),
        (tmp_path / "digits", "lies inside the data"),
        (trained, "holds a trained network"),
        (tmp_path, "holds other files"),
    ):
        run = siamese("train", "--data", tmp_path / "digits", "--out", out)
        assert (run.returncode, says in run.stderr, "broken.png" in run.stderr) == (2, True, False), run.stderr
    assert not (tmp_path / "digits" / "runs").exists()


def test_a_damaged_checkpoint_is_named_and_can_be_done_without(digits, tmp_path, unbroken, siamese):
    out = tmp_path / "run"
    kill_after_epoch(1, digits, out)
    checkpoint = out / "checkpoints" / "split.pt"
    whole = checkpoint.read_bytes()
    for damaged in (b"", whole[:1000], whole[:-100], b"no checkpoint"):
        checkpoint.write_bytes(damaged)
        run = siamese("train", "--data", digits, "--out", out, *COMMAND, "--resume")
        assert run.returncode == 2
        assert f"error: {checkpoint} is damaged or cut short: delete it" in run.stderr
    checkpoint.unlink()
    assert siamese("train", "--data", digits, "--out", out, *COMMAND, "--resume").returncode == 0
    assert (out / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()


def test_a_full_disk_is_told_and_costs_no_checkpoint(digits, tmp_path, unbroken, siamese):
    """No file may grow beyond a megabyte, as on a disk with no more room."""
    out = tmp_path / "run"
    kill_after_epoch(1, digits, out)
    checkpoint = out / "checkpoints" / "split.pt"
    before = checkpoint.read_bytes()
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); from siamese import cli; "
    command = ["train", "--data", digits, "--out", out, *COMMAND, "--resume"]
    run = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(cli.main(sys.argv[1:]))", *command], capture_output=True, text=True
    )
    assert run.returncode == 2, run.stderr
    assert f"error: {checkpoint} cannot be written; the one before is kept: is the disk full?" in run.stderr
    assert "Traceback" not in run.stderr
    assert checkpoint.read_bytes() == before
    assert siamese("train", "--data", digits, "--out", out, *COMMAND, "--resume").returncode == 0
    assert (out / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(digits, tmp_path):
    process = start(digits, tmp_path / "run")
    wait_for_epoch(process, tmp_path / "run", 1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on with it" in stderr
    assert "Traceback" not in stderr


BOARD = ("--recipe", "modern", "--epochs", "4", "--folds", "2", "--tensorboard")


def test_tensorboard_shows_each_epoch_once_though_killed_and_resumed(digits, tmp_path, monkeypatch, siamese):
    """Killed when the third epoch is logged but not kept, and once more while the first fold trains."""
    monkeypatch.setattr(strong, "SPARE", 8)
    out, write_atomically = tmp_path / "run", loop.write_atomically
    for name, last, more in (("split.pt", 2, ()), ("fold-0-of-2.pt", 1, ("--resume",))):

        def killed(target, write, name=name, last=last):
            if target.name == name and target.exists() and torch.load(target, weights_only=True)["epoch"] == last:
                raise KeyboardInterrupt
            write_atomically(target, write)

        monkeypatch.setattr(loop, "write_atomically", killed)
        assert siamese("train", "--data", digits, "--out", out, *BOARD, *more).returncode == 130
    monkeypatch.setattr(loop, "write_atomically", write_atomically)
    run = siamese("train", "--data", digits, "--out", out, *BOARD, "--resume")
    assert run.returncode == 0, run.stderr
    shown = logged(out / "tensorboard")
    assert list(shown) == ["fold 1 of 2", "fold 2 of 2", "training"]
    for name, numbers in shown.items():
        # Of the five people in a fold nobody can be spared to validate.
        validated = {"validation_eer"} if name == "training" else set()
        assert numbers.keys() == {"loss", "learning_rate", "images_per_second"} | validated
        assert all([step for step, _ in points] == [1, 2, 3, 4] for points in numbers.values())
        assert all(rate > 0 for _, rate in numbers["images_per_second"])
        assert numbers["learning_rate"][-1] == (4, pytest.approx(0, abs=1e-9))
    record = json.loads((out / "metrics.json").read_text())
    assert [error for _, error in shown["training"]["validation_eer"]] == pytest.approx(record["validation_eer"])
    # An epoch of the 64 images is one batch, so that of ten batches' losses the first is the first epoch's.
    assert shown["training"]["loss"][0][1] == pytest.approx(record["loss"]["values"][0])


def test_a_new_start_removes_what_tensorboard_showed_and_nothing_else(digits, tmp_path, siamese):
    board, command = tmp_path / "run" / "tensorboard", ("train", "--data", digits, *SEED, "--epochs", 1)
    assert siamese(*command, "--out", tmp_path / "run", "--tensorboard").returncode == 0
    assert list(logged(board)) == ["training"]
    (board / "notes").mkdir()
    (board / "notes" / "thesis.txt").write_text("a year of work")
    refused = siamese(*command, "--out", tmp_path / "run", "--tensorboard")
    assert "holds a trained network" in refused.stderr
    assert siamese(*command, "--out", tmp_path / "run", "--overwrite").returncode == 0
    assert [file.name for file in board.rglob("*") if file.is_file()] == ["thesis.txt"]
    assert not (board / "training").exists()


def test_without_tensorboard_nothing_starts(digits, tmp_path, monkeypatch, siamese):
    for module in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    run = siamese("train", "--data", digits, "--out", tmp_path / "run", *BOARD)
    says = "error: tensorboard is missing, which --tensorboard needs: pip install '.[tensorboard]'\n"
    assert (run.returncode, run.stderr) == (2, says)
    assert not (tmp_path / "run").exists()


def test_other_peoples_files_survive(digits, tmp_path, siamese):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "thesis.pt").write_text("a year of work")
    for more in ([], ["--overwrite"]):
        run = siamese("train", "--data", digits, "--out", tmp_path, *COMMAND, *more)
        assert (run.returncode, "holds other files" in run.stderr) == (2, True)
    assert (tmp_path / "checkpoints" / "thesis.pt").read_text() == "a year of work"


def test_people_who_cannot_be_told_apart_still_give_a_network(tmp_path, digits, monkeypatch, siamese):
    """A network that puts impostors closer is written all the same, with a calibration that says it does not know."""

    def turned_round(network, dataset):
        scored = score_all_pairs(network, dataset)
        return scored._replace(distance=scored.distance.max() - scored.distance)

    monkeypatch.setattr(train, "score_all_pairs", turned_round)
    run = siamese("train", "--data", digits, "--out", tmp_path / "run", *SEED, "--epochs", 1)
    assert run.returncode == 0, run.stderr
    calibration = Calibration.from_dict(json.loads((tmp_path / "run" / "config.json").read_text())["calibration"])
    assert calibration.probability(0) == pytest.approx(0.5, abs=0.01)


def test_earlier_weights_survive(trained, digits, tmp_path, siamese):
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    before = (out / "model.safetensors").read_bytes()
    refused = siamese("train", "--data", digits, "--out", out, *COMMAND)
    assert refused.returncode == 2
    assert "holds a trained network" in refused.stderr
    kill_after_epoch(1, digits, out, "--overwrite")
    assert (out / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--margin", "-1"], "margin must be above 0, got -1.0"),
        (["--lr", "nan"], "lr must be above 0"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--batch-size", "many"], "invalid int value: 'many'"),
        (["--folds", "1"], "folds must be 0 (none) or at least 2"),
        (["--folds", "6"], "10 people can be split into 2 to 5 folds"),
        (["--device", "cuda:99"], "no device 'cuda:99'"),
        (["--resume"], "no unfinished run to resume"),
        (["--resume", "--overwrite"], "choose one"),
        (["--recipe", "best"], "recipe must be seed or strong, got 'best'"),
        (["--recipe", "tutorial", "--flip"], "leave out flip, or take the strong recipe"),
        (["--push-to-hub", "nobody"], "USER/NAME"),
        (["--data", "/nowhere"], "no data at /nowhere"),
    ],
)
def test_bad_settings_are_refused_before_any_work(digits, tmp_path, arguments, says, siamese):
    run = siamese("train", "--data", digits, "--out", tmp_path / "run", *arguments)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert says in run.stderr
    assert not (tmp_path / "run").exists()


def test_folds_that_leave_nobody_to_calibrate_on_are_refused(digits, tmp_path, siamese):
    for name in "0123":
        shutil.copytree(digits / name, tmp_path / "four" / name)
    dataset = data.load(tmp_path / "four", (1, 100, 100))
    # The folds are {0, 2} and {1, 3}; with a test person in each, no fold has two others.
    seed = next(seed for seed in range(50) if sum(map(int, dataset.split(seed)[1].names)) % 2)
    run = siamese("train", "--data", tmp_path / "four", "--out", tmp_path / "run", "--folds", 2, "--seed", seed)
    assert (run.returncode, "too few to calibrate" in run.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    """A folder of five people with two photographs each: the examples and their mirror images, brightened."""
    folder = tmp_path_factory.mktemp("family")
    for file in EXAMPLES.glob("*.jpg"):
        (folder / file.stem).mkdir()
        photo = Image.open(file).convert("RGB")
        photo.save(folder / file.stem / "1.jpg")
        ImageEnhance.Brightness(ImageOps.mirror(photo)).enhance(1.2).save(folder / file.stem / "2.jpg")
    return folder


def test_fine_tunes_the_face_network_on_ones_own_people(family, trained, tmp_path, siamese):
    """By default no weight of the network moves, and three people to learn from are too few to whiten."""
    faces, out = ROOT / "weights" / "faces", tmp_path / "family"
    run = siamese("train", "--data", family, "--init", faces, "--out", out)
    assert run.returncode == 0, run.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (faces, out))
    assert after.keys() - before.keys() == {"whitening.weight", "whitening.bias"}
    assert all(torch.equal(before[name].half(), after[name]) for name in before)
    assert torch.equal(after["whitening.weight"], torch.eye(128).half())
    record = json.loads((out / "metrics.json").read_text())
    assert record["before"]["auc"] == record["test"]["auc"]
    assert record["people"]["pretraining"] == []
    assert "| the same, before training |" in run.stdout
    model = siamese_of(out)
    assert model.align == "faces"
    assert model.compare(family / "biden" / "1.jpg", family / "biden" / "2.jpg").verdict == "same"
    card = (out / "README.md").read_text()
    assert "--recipe modern --epochs 0" in card
    assert "--freeze 5 --align faces" in card
    assert f"The network is that of the weights {faces}, whose\ncard says" in card
    began = f"The training began from the weights {faces}"
    kept, thawed = (
        model_card({**model.record, "recipe": {**model.record["recipe"], "epochs": 2, "freeze": freeze}}, "family")
        for freeze in (5, 0)
    )
    assert f"{began} and kept the first 5 of its stages as they were; whom" in kept
    assert f"{began}; whom" in thawed
    assert "began from" not in (trained / "README.md").read_text()


@pytest.mark.parametrize("where", ["memory", "file"])
def test_freezing_gives_what_training_with_frozen_weights_gives(family, tmp_path, monkeypatch, where):
    """The frozen stages are computed once for all epochs; the gradients of the others are the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if where == "file":
        monkeypatch.setattr(data, "room", lambda device: 0)
    dataset = data.load(family, (3, 150, 150), "faces")
    config = TrainConfig("…", tmp_path, init="weights/faces", epochs=2, lr=1e-3)
    start = loop.first_network(config)[0]
    fitted = loop.fit(start, dataset, config, CPU, tmp_path / "once.pt", "test").network
    plain = loop.first_network(config)[0].train()
    optimizer = torch.optim.Adam([*plain.backbone[5].parameters(), *plain.backbone[6].parameters()], lr=config.lr)
    for epoch in range(2):
        for number, (rows, identity) in enumerate(strong.epoch_batches(dataset.identity, config, epoch), 1):
            optimizer.param_groups[0]["lr"] = config.lr * strong.lr_scale((epoch + number) / 2)
            loss = strong.loss(plain.embed(dataset.pixels[rows]), torch.from_numpy(identity), config)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for ours, theirs in zip(fitted.backbone.parameters(), plain.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.half().float(), atol=2e-3, rtol=1e-2)


def test_says_what_cannot_be_fine_tuned(family, tmp_path, siamese):
    faces = ROOT / "weights" / "faces"
    shutil.copytree(family, tmp_path / "family")
    Image.new("RGB", (300, 300)).save(tmp_path / "family" / "biden" / "3.jpg")
    (tmp_path / "family" / "collins" / "3.jpg").write_bytes(b"no picture")
    for arguments, says in (
        (("--data", tmp_path / "family", "--init", faces), "biden: no face was found in 3.jpg"),
        (("--data", tmp_path / "family", "--init", faces), "collins: 3.jpg is not a picture"),
        (("--data", family, "--init", tmp_path / "nothing"), "there is no folder"),
        (("--data", family, "--init", faces, "--freeze", 7), "freeze fewer, got 7"),
        (("--data", family, "--freeze", 2), "name the weights with init"),
        (("--data", family, "--init", faces, "--recipe", "tutorial"), "begins from nothing"),
        (("--data", family, "--init", faces, "--flip"), "no image is varied"),
        (("--data", family, "--init", ROOT / "weights" / "att"), "trained by the seed's recipe"),
        (("--data", family, "--align", "thumbs"), "faces or none"),
    ):
        run = siamese("train", *arguments, "--out", tmp_path / "run")
        assert (run.returncode, says in run.stderr) == (2, True), run.stderr
        assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_with_the_step(digits, tmp_path):
    config = TrainConfig("att", tmp_path, epochs=3, lr=1e18)
    with pytest.raises(RuntimeError, match=r"at step \d+ .* learning rate 1e\+18 is probably too high"):
        loop.fit(
            loop.first_network(config)[0],
            data.load(digits, (1, 100, 100)),
            config,
            CPU,
            tmp_path / "checkpoint.pt",
            "test",
        )


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(digits, tmp_path, siamese):
    (tmp_path / "file").write_text("in the way")
    run = siamese("train", "--data", digits, "--out", tmp_path / "file" / "run")
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert "file is no folder that this user may write to" in run.stderr
