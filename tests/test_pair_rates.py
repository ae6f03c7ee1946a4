"""The benchmarks of children and relatives, on small folders laid out like their data sets."""

import json
import sys
from importlib import import_module
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamese.calibration import Calibration

from .conftest import EXAMPLES, ROOT

LAG = {
    "obama/1.png": "obama-portrait.jpg",
    "obama/2.png": "obama-speaking.jpg",
    "obama/y/1.png": "obama-standing.jpg",
    "obama/y/2.png": "obama-portrait.jpg",
    "biden/1.png": "biden.jpg",
    "biden/y/1.png": "biden.jpg",
    "biden/y/2.png": None,  # no face
}
FIW = {
    "F0001/MID1/P00001_face0.jpg": "obama-portrait.jpg",
    "F0001/MID1/P00002_face0.jpg": "obama-speaking.jpg",
    "F0001/MID2/P00001_face1.jpg": "biden.jpg",
    "F0001/unrelated_and_nonfaces/P00001_face2.jpg": "collins.jpg",
    "F0002/MID1/P00001_face0.jpg": "collins.jpg",
    "F0002/MID1/P00002_face0.jpg": None,
}


@pytest.fixture(autouse=True)
def benchmarks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def folder_of(tmp_path: Path, layout: dict[str, str | None]) -> Path:
    for name, example in layout.items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        photo = Image.open(EXAMPLES / example) if example else Image.new("RGB", (64, 64))
        photo.save(file)
        file.with_name(f"._{file.name}").write_bytes(b"a system file")
    return tmp_path / "data"


def run(benchmark: str, data: Path, out: Path, monkeypatch) -> dict:
    """Run a benchmark as a program does, and return what it writes."""
    module = import_module(benchmark)
    monkeypatch.setattr(sys, "argv", [benchmark, "--data", str(data), "--json", str(out)])
    module.run(module.__doc__, getattr(module, f"measure_{benchmark}"))
    return json.loads(out.read_text())


def pairs_of(result: dict) -> dict[str, dict[str, int]]:
    return {same: {kind: rates["pairs"] for kind, rates in result[same].items()} for same in ("genuine", "impostor")}


def test_ages(tmp_path, monkeypatch):
    result = run("ages", folder_of(tmp_path, LAG), tmp_path / "ages.json", monkeypatch)
    assert (result["images"], result["people"], result["without_face"]) == (7, 2, 1)
    assert pairs_of(result) == {
        "genuine": {"adult_adult": 1, "child_adult": 5, "child_child": 1},
        "impostor": {"adult_adult": 2, "child_adult": 4, "child_child": 2},
    }
    for rates in result["impostor"].values():
        assert rates["fmr"] == 0
    for rates in result["genuine"].values():
        assert rates["fnmr"] == 0


def test_relatives(tmp_path, monkeypatch):
    result = run("relatives", folder_of(tmp_path, FIW), tmp_path / "relatives.json", monkeypatch)
    assert [result[name] for name in ("families", "people", "images", "without_face")] == [2, 3, 5, 1]
    assert pairs_of(result) == {"genuine": {"one_person": 1}, "impostor": {"strangers": 3, "one_family": 2}}
    assert result["genuine"]["one_person"]["fnmr"] == 0
    assert result["impostor"]["one_family"]["fmr"] == 0


def test_relatives_takes_a_sample_of_families(tmp_path, monkeypatch):
    module = import_module("relatives")
    monkeypatch.setattr(module, "FAMILIES", 1)
    with pytest.raises(ValueError, match="strangers"):
        module.measure_relatives(import_module("siamese").load(), folder_of(tmp_path, FIW))


def test_folder_of_another_layout_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="layout"):
        import_module("ages").measure_ages(import_module("siamese").load(), tmp_path)


def test_rates_equal_those_of_a_plain_loop(monkeypatch):
    module = import_module("pair_rates")
    monkeypatch.setattr(module, "PHOTOS_PER_BLOCK", 7)
    torch.manual_seed(0)
    z, label = torch.rand(30, 4), torch.randint(3, (30,))
    calibration = Calibration(10.0, 9.0)
    kinds = tuple(module.PairKind(name, name == "equal") for name in ("equal", "near", "far"))
    result = module.measure(
        calibration,
        module.Faces(z, np.ones(30), np.ones(30, bool)),
        kinds,
        lambda rows, columns: (label[rows, None] - label[columns]).abs(),
    )

    for k, (name, same) in enumerate(kinds):
        pairs = [(z[i], z[j]) for i, j in combinations(range(30), 2) if abs(label[i] - label[j]) == k]
        distance = torch.stack([torch.linalg.vector_norm(a - b) for a, b in pairs])
        share = float((calibration.probability(distance) >= 0.75).mean())
        rates = result["genuine" if same else "impostor"][name]
        assert rates["pairs"] == len(pairs)
        assert rates["fnmr" if same else "fmr"] == pytest.approx(1 - share if same else share, abs=1e-6)
        assert 0 < share < 1
