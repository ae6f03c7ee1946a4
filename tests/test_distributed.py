"""Training with two processes, over gloo on the CPU, compared with one process."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from siamese import SiameseNetwork, cli, distance
from siamese.distributed import (
    all_gather,
    broadcast_object,
    is_main_process,
    join,
    local_slice,
    progress_bar,
    share_batches,
    sum_gradients,
)
from siamese.evaluation import calibrate
from siamese.loss import all_pairs_loss
from siamese.record import Record

from .command import forks
from .conftest import ROOT, free_port

TRAIN = ("train", "--device", "cpu", "--batch-size", "16", "--epochs", "2")
# The network of the modern recipe has batch normalization, that of the tutorial recipe has none. At a higher learning
# rate, Adam magnifies the rounding of the tutorial's sums within a few steps.
# Without --flip, the modern recipe trains a deeper network here, whose losses magnify rounding errors.
RECIPES = {"modern": ("--flip",), "tutorial": ("--lr", "1e-4")}
CPU = torch.device("cpu")
BOOTSTRAP_SAMPLES = 5


def step(file: Path, value: int) -> None:
    """Compute the gradient of a batch of 7 images, of which each process has a share, and save it."""
    torch.manual_seed(0)
    network = SiameseNetwork("tutorial", 8, unit=True).double().train()
    x, identity = torch.rand(7, 1, 100, 100).double(), torch.tensor([0, 0, 1, 1, 2, 2, 2])
    shared = share_batches(network, CPU)
    z = all_gather(network.embed(x[local_slice(7)]), 7) if shared else network.embed(x)
    all_pairs_loss(distance(z[:, None], z), identity, 1.3, 10.0).backward()
    if shared:
        sum_gradients(network)
    gradient = torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])
    broadcast = broadcast_object(torch.tensor(value))
    torch.save({"z": z.detach(), "gradient": gradient, "broadcast": broadcast, "shared": shared}, file)


def check_batch_normalization() -> None:
    """On GPUs it is synchronized, on CPUs the batches are not shared."""
    network = SiameseNetwork("small", 8, unit=True)
    keys = list(network.state_dict())
    assert not share_batches(network, CPU)
    assert not any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in network.modules())
    assert share_batches(network, torch.device("cuda"))
    assert sum(isinstance(layer, torch.nn.SyncBatchNorm) for layer in network.modules()) == 3
    assert list(network.state_dict()) == keys


def work(rank: int, port: int, folder: Path, digits: Path) -> None:
    """Run one of two processes: a step, training runs, and a run that is refused."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    calibrate.BOOTSTRAP_SAMPLES = BOOTSTRAP_SAMPLES
    assert join("cpu") == CPU
    assert is_main_process() == (rank == 0)
    step(folder / f"step-{rank}.pt", rank)
    check_batch_normalization()
    for name, recipe in (*((recipe, recipe) for recipe in RECIPES), ("refused", "modern")):
        command = [*TRAIN, "--recipe", recipe, *RECIPES[recipe], "--data", str(digits), "--out", str(folder / recipe)]
        with (folder / f"{name}-{rank}.txt").open("w") as file, contextlib.redirect_stdout(file):
            with contextlib.redirect_stderr(file):
                try:
                    code = cli.main(command)
                except SystemExit as exit:
                    code = exit.code
            print("exit code", code)


@pytest.fixture(scope="module")
def two(digits, tmp_path_factory) -> Path:
    """What two processes have written."""
    port, folder = free_port(), tmp_path_factory.mktemp("two")
    processes = [forks.Process(target=work, args=(rank, port, folder, digits)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


def test_two_processes_have_the_gradient_of_one(two, tmp_path):
    step(tmp_path / "one.pt", 0)
    one = torch.load(tmp_path / "one.pt", weights_only=True)
    for rank in range(2):
        result = torch.load(two / f"step-{rank}.pt", weights_only=True)
        assert (result.pop("shared"), one["shared"]) == (True, False)
        for name in result:
            torch.testing.assert_close(result[name], one[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_have_the_losses_of_one_and_write_one_result(recipe, digits, two, tmp_path, monkeypatch, siamese):
    monkeypatch.setattr(calibrate, "BOOTSTRAP_SAMPLES", BOOTSTRAP_SAMPLES)
    command = (*TRAIN, "--recipe", recipe, *RECIPES[recipe], "--data", digits, "--out", tmp_path / recipe)
    assert siamese(*command).returncode == 0
    expected, record = (Record.from_json((folder / recipe / "metrics.json").read_bytes()) for folder in (tmp_path, two))
    np.testing.assert_allclose(record.loss.values, expected.loss.values, rtol=2e-3)
    assert record.test.auc == pytest.approx(expected.test.auc, abs=0.02)
    main, other = ((two / f"{recipe}-{rank}.txt").read_text() for rank in range(2))
    assert "Written to" in main
    assert other == "exit code 0\n"


def test_main_process_prints_an_error_and_the_other_exits_silently(two):
    main, other = ((two / f"refused-{rank}.txt").read_text() for rank in range(2))
    assert "has a trained network" in main
    assert main.endswith("exit code 2\n")
    assert other == "exit code 2\n"


@pytest.mark.slow
def test_a_launcher_starts_two_processes(digits, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "siamese", *TRAIN, "--data", digits, "--out", tmp_path / "run"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Written to") == 1


def test_device_name_with_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--device cuda:1"):
        join("cuda:1")


def test_a_progress_bar_that_is_no_terminal_has_few_lines(capsys):
    with progress_bar(total=30) as bar:
        for _ in range(30):
            time.sleep(0.02)
            bar.update()
    assert 1 <= capsys.readouterr().err.count("\r") <= 2
    with progress_bar(total=1, shown=False) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
