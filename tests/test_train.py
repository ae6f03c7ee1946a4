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

from siamese import SiameseNetwork, calibrate, cli, contrastive_loss, data, distance, loop, metrics, train
from siamese.calibrate import Calibration
from siamese.card import model_card
from siamese.pairs import draw_pairs, score_all_pairs
from siamese.recipe import TrainConfig
from siamese.store import load as siamese_of

from .conftest import EXAMPLES, ROOT

CPU = torch.device("cpu")


def auc(network, gallery):
    scored = score_all_pairs(network, gallery)
    return metrics.auc(scored.distance, scored.same)


def test_learns_to_tell_people_it_has_not_seen(tmp_path, request, digits):
    """On AT&T eight people are held out; on the digits, where AT&T is absent, three classes."""
    try:
        training, test = request.getfixturevalue("att").folds(5)[3]
    except pytest.skip.Exception:
        gallery = data.load(digits, (1, 100, 100))
        training, test = gallery.only("0123456"), gallery.only("789")
    config = TrainConfig("…", tmp_path, epochs=10)
    fitted = loop.fit(loop.first_network(config)[0], training, config, CPU, tmp_path / "checkpoint.pt", "test")
    torch.manual_seed(config.seed)
    untrained = SiameseNetwork()
    assert auc(fitted.network, test) > 0.7
    assert auc(fitted.network, test) > auc(untrained, test) + 0.05
    assert np.mean(fitted.losses[-2:]) < np.mean(fitted.losses[:2])


def test_the_result_folder_is_complete_and_true(trained, digits):
    assert {path.name for path in trained.iterdir()} == {
        *("config.json", "model.safetensors", "metrics.json", "README.md", "loss.png", "roc.png", "pairs.png")
    }
    for picture in trained.glob("*.png"):
        assert min(Image.open(picture).size) > 200
    record = json.loads((trained / "metrics.json").read_text())
    gallery = data.load(digits, (1, 100, 100))
    training, test = gallery.split(record["recipe"]["seed"])
    assert (record["people"]["training"], record["people"]["test"]) == (list(training.names), list(test.names))
    assert len(record["loss"]["values"]) == -(-3 * -(-len(training) // 16) // 10)

    scored = score_all_pairs(SiameseNetwork.from_pretrained(trained), test)
    probability = Calibration.from_dict(record["test_calibration"]).probability(scored.distance)
    assert scored.report(probability) == pytest.approx(record["test"], abs=1e-6)


def test_a_second_run_is_the_same_to_the_bit(trained, digits, tmp_path, siamese):
    run = siamese(
        "train", "--data", digits, "--epochs", 3, "--batch-size", 16, "--folds", 2, "--out", tmp_path / "again"
    )
    assert run.returncode == 0, run.stderr
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()


def test_a_batch_embeds_each_image_once_and_its_gradient_is_the_plain_one(digits):
    gallery = data.load(digits, (1, 100, 100))
    config = TrainConfig("…", Path(), batch_size=40)
    batches = loop.epoch_batches(gallery.identity, config, 0, CPU)
    assert [len(same) for _, _, same in batches] == [40, 40]
    first, second, _ = draw_pairs(gallery.identity, len(gallery), np.random.default_rng([config.seed, 0]))
    rows, sides, labels = batches[0]
    assert len(rows) == len(rows.unique()) < 80
    assert np.array_equal(rows[sides].numpy(), np.stack([first[:40], second[:40]]))

    gradients = []
    for once in (True, False):
        torch.manual_seed(0)
        network = SiameseNetwork()
        pixels = gallery.pixels
        z1, z2 = network.embed(pixels[rows])[sides] if once else network(pixels[first[:40]], pixels[second[:40]])
        contrastive_loss(distance(z1, z2), labels).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


def test_folds_never_judge_by_a_calibration_that_saw_them(digits, tmp_path, monkeypatch):
    """A fold's probabilities come from the pairs of all other folds, and the spared people calibrate nothing."""
    gallery = data.load(digits, (1, 100, 100))
    seen = []
    fit = calibrate.fit
    monkeypatch.setattr(calibrate, "fit", lambda d, s, people=None: seen.append(set(d.tolist())) or fit(d, s, people))
    config = TrainConfig("…", tmp_path, epochs=2, folds=2)
    measured = []
    monkeypatch.setattr(loop, "score_all_pairs", lambda n, g: measured.append(score_all_pairs(n, g)) or measured[-1])
    loop.cross_validate(loop.first_network(config)[0], gallery, config, CPU, tmp_path, spare={"0", "1"})
    of_fold = [set(measured[k][0].tolist()) for k in (0, 2)]  # 1 and 3 are without the spared people
    assert seen[:2] == [of_fold[1], of_fold[0]]
    assert seen[2] == set(measured[1][0].tolist()) | set(measured[3][0].tolist())
    assert len(measured[1][0]) < len(measured[0][0])


COMMAND = ("--epochs", "15", "--batch-size", "8", "--seed", "1")


def start(digits, out, *more) -> subprocess.Popen:
    command = [sys.executable, "-m", "siamese", "train", "--data", digits, "--out", out, *COMMAND, *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for_epoch(process, out, epoch):
    """Wait until the checkpoint of that epoch is whole; the run must still be going on then."""
    file = out / "checkpoints" / "split.pt"
    for _ in range(1200):
        if file.exists() and torch.load(file, weights_only=True)["epoch"] >= epoch:
            assert process.poll() is None, "the run ended before it could be stopped"
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of epoch {epoch}")


@pytest.fixture(scope="module")
def unbroken(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert cli.main(["train", "--data", str(digits), "--out", str(out), *COMMAND]) == 0
    return out


def test_killed_and_resumed_ends_as_if_unbroken(digits, tmp_path, unbroken, siamese):
    out = tmp_path / "run"
    for epoch in (1, 3):
        process = start(digits, out, *(["--resume"] if epoch > 1 else []))
        wait_for_epoch(process, out, epoch)
        process.kill()
        process.wait()
    assert not (out / "model.safetensors").exists()
    (out / ".new-killed").mkdir()  # as a kill while the result was being written would leave it

    refused = siamese("train", "--data", digits, "--out", out, *COMMAND)
    assert refused.returncode == 2
    assert "unfinished run: --resume" in refused.stderr
    other = siamese("train", "--data", digits, "--out", out, *COMMAND, "--lr", 1, "--resume")
    assert other.returncode == 2
    assert "other settings (lr)" in other.stderr
    folds = siamese("train", "--data", digits, "--out", out, *COMMAND, "--folds", 2, "--resume")
    assert "other settings (folds)" in folds.stderr

    resumed = siamese("train", "--data", digits, "--out", out, *COMMAND, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert {path.name for path in out.iterdir()} == {path.name for path in unbroken.iterdir()}
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    records = [json.loads((folder / "metrics.json").read_text()) for folder in (out, unbroken)]
    assert all(records[0][key] == records[1][key] for key in ("loss", "test", "people", "recipe"))


def test_a_damaged_checkpoint_is_named_and_can_be_done_without(digits, tmp_path, unbroken, siamese):
    out = tmp_path / "run"
    process = start(digits, out)
    wait_for_epoch(process, out, 1)
    process.kill()
    process.wait()
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


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(digits, tmp_path):
    process = start(digits, tmp_path / "run")
    wait_for_epoch(process, tmp_path / "run", 1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on with it" in stderr
    assert "Traceback" not in stderr


def test_other_peoples_files_survive(digits, tmp_path, siamese):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "thesis.pt").write_text("a year of work")
    for more in ([], ["--overwrite"]):
        run = siamese("train", "--data", digits, "--out", tmp_path, *COMMAND, *more)
        assert (run.returncode, "holds other files" in run.stderr) == (2, True)
    assert (tmp_path / "checkpoints" / "thesis.pt").read_text() == "a year of work"


def test_people_who_cannot_be_told_apart_still_give_a_network(tmp_path, digits, monkeypatch, siamese):
    """A network that puts impostors closer is written all the same, with a calibration that says it does not know."""

    def turned_round(network, gallery):
        scored = score_all_pairs(network, gallery)
        return scored._replace(distance=scored.distance.max() - scored.distance)

    monkeypatch.setattr(train, "score_all_pairs", turned_round)
    run = siamese("train", "--data", digits, "--out", tmp_path / "run", "--epochs", 1)
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
    process = start(digits, out, "--overwrite")
    wait_for_epoch(process, out, 1)
    process.kill()
    process.wait()
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
    gallery = data.load(tmp_path / "four", (1, 100, 100))
    # The folds are {0, 2} and {1, 3}; with a test person in each, no fold has two others.
    seed = next(seed for seed in range(50) if sum(map(int, gallery.split(seed)[1].names)) % 2)
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
    out = tmp_path / "family"
    run = siamese("train", "--data", family, "--init", ROOT / "weights" / "faces", "--epochs", 2, "--out", out)
    assert run.returncode == 0, run.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (ROOT / "weights" / "faces", out))
    moved = {name for name, value in before.items() if not torch.equal(value.half(), after[name])}
    assert moved
    assert all(name.startswith(("backbone.5", "backbone.6")) for name in moved)
    model = siamese_of(out)
    assert model.align == "faces"
    assert model.record["recipe"]["freeze"] == 5
    assert model.compare(family / "biden" / "1.jpg", family / "biden" / "2.jpg").verdict == "same"
    card = (out / "README.md").read_text()
    assert "--init" in card
    assert "--freeze 5 --align faces" in card
    began = f"The training began from the weights {ROOT / 'weights' / 'faces'}"
    assert f"{began} and kept the first 5 of its stages as they were; whom" in card
    thawed = model_card({**model.record, "recipe": {**model.record["recipe"], "freeze": 0}}, "family")
    assert f"{began}; whom" in thawed
    assert "began from" not in (trained / "README.md").read_text()


def test_freezing_gives_what_training_with_frozen_weights_gives(family, tmp_path):
    """The frozen stages are computed once for all epochs; the gradients of the others are the same."""
    gallery = data.load(family, (3, 150, 150), "faces")
    config = TrainConfig("…", tmp_path, init="weights/faces", epochs=2, lr=1e-3)
    start = loop.first_network(config)[0]
    fitted = loop.fit(start, gallery, config, CPU, tmp_path / "once.pt", "test").network
    plain = loop.first_network(config)[0].train()
    optimizer = torch.optim.Adam([*plain.backbone[5].parameters(), *plain.backbone[6].parameters()], lr=config.lr)
    for epoch in range(2):
        for rows, sides, same in loop.epoch_batches(gallery.identity, config, epoch, CPU):
            loss = contrastive_loss(distance(*plain.embed(gallery.pixels[rows])[sides]), same, config.margin)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for ours, theirs in zip(fitted.parameters(), plain.parameters(), strict=True):
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
        (("--data", family, "--align", "thumbs"), "faces or none"),
    ):
        run = siamese("train", *arguments, "--out", tmp_path / "run")
        assert (run.returncode, says in run.stderr) == (2, True), run.stderr
        assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_with_the_step(digits, tmp_path):
    config = TrainConfig("…", tmp_path, epochs=3, lr=1e18)
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
    assert "Not a directory" in run.stderr
