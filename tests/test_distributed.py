"""Several processes train as one does: here two, over gloo, on the CPU."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from siamese.training import distributed as devices

from .conftest import ROOT

# Each process embeds its share of the images; the gradients are to be those of the whole batch.
PROBE = """
import sys
import torch
from siamese import SiameseNetwork, distance
from siamese.training import distributed as devices
from siamese.training import modern as strong
from siamese.loss import all_pairs_loss

torch.set_num_threads(1)
devices.join("cpu")
torch.manual_seed(0)
network = SiameseNetwork("small", 8, unit=True).double().train()
x, identity = torch.rand(7, 3, 48, 48).double(), torch.tensor([0, 0, 1, 1, 2, 2, 2])
z = devices.all_gather(network.embed(x[devices.local_slice(7)]), 7)
loss = all_pairs_loss(distance(z[:, None], z), identity, 1.3, 10.0)
loss.backward()
devices.sum_gradients(network)
told = devices.broadcast_object(torch.rand(1))
if devices.is_main_process():
    parts = {"z": z.detach(), "gradient": torch.cat([w.grad.flatten() for w in network.parameters()])}
    torch.save(parts | dict(network.named_buffers()), sys.argv[1])
print(f"told {float(told)}\\n", end="", flush=True)  # in one piece, as two write at once
"""


def launch_two(*arguments) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([sys.executable, *launcher, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


def test_two_processes_have_the_gradient_and_the_statistics_of_one(tmp_path):
    (tmp_path / "probe.py").write_text(PROBE)
    run = launch_two(tmp_path / "probe.py", tmp_path / "two.pt")
    assert run.returncode == 0, run.stderr
    subprocess.run([sys.executable, tmp_path / "probe.py", tmp_path / "one.pt"], check=True, cwd=ROOT)
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-9)
    told = [line for line in run.stdout.splitlines() if line.startswith("told")]
    assert len(told) == 2
    assert told[0] == told[1]


def test_two_processes_have_the_losses_of_one_and_write_one_result(digits, tmp_path, siamese):
    train = ("train", "--data", digits, "--device", "cpu", "--batch-size", "16", "--epochs", "2", "--out")
    assert siamese(*train, tmp_path / "one").returncode == 0
    run = launch_two("-m", "siamese", *train, tmp_path / "two")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Written to") == 1
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    np.testing.assert_allclose(two["loss"]["values"], one["loss"]["values"], rtol=2e-3)
    assert two["test"]["auc"] == pytest.approx(one["test"]["auc"], abs=0.02)
    # What the first refuses, it says, and the other leaves the word to it.
    refused = launch_two("-m", "siamese", *train, tmp_path / "two")
    said = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert (len(said), "holds a trained network" in said[0]) == (1, True)


def test_a_device_for_each_of_several_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="leave --device out, got 'cuda:1'"):
        devices.join("cuda:1")
