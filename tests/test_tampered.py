"""Result folders and indexes that somebody changed, see benchmarks/tampered.py for many more cases and the page."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from benchmarks.tampered import index_cases, outcome, result_cases, search, tamper
from siamese import load
from siamese.hub.upload import published_files
from siamese.page import about, charts
from siamese.search.update import update_index
from siamese.wording import FACES

from .conftest import EXAMPLES, ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses links and pipes")
few = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ATT, FACE_NETWORK = (ROOT / "weights" / name for name in ("att", "faces"))


def describe(folder: Path) -> None:
    """Load a network and make all texts about it."""
    model = load(folder, device="cpu")
    pairs = charts.PairDistances(model.record.curves)
    for distance in (0.0, model.calibration.threshold, 1e6):
        numbers = model.calibration.score(distance), *model.calibration.probability_among([distance], 1000)
        assert "nan" not in str(numbers) + charts.scale(pairs, distance, None, FACES)
        charts.rank(pairs, distance, FACES)
    for part in (about.introduction, about.performance, about.background):
        part(model, FACES)
    published_files(model, "USER/NAME")


@settings(few, max_examples=40)
@given(case=result_cases())
def test_tampered_result_folders_are_refused_with_a_sentence_or_work(case, tmp_path):
    network, changes = case
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    shutil.copytree(ROOT / "weights" / network, tmp_path / "copy")
    tamper(tmp_path / "copy", changes)
    assert (said := outcome(describe, tmp_path / "copy")).startswith(("answered", "refused")), said


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Folders whose index is not recognised get a new one in the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("index") / "index"
    update_index(load(device="cpu"), EXAMPLES / "edited", place)
    return place


@settings(few, max_examples=12)
@given(changes=index_cases())
def test_tampered_indexes_are_refused_with_a_sentence_or_work(changes, index, tmp_path):
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    shutil.copytree(index, tmp_path / "copy")
    tamper(tmp_path / "copy", changes)
    assert (said := outcome(search, tmp_path / "copy")).startswith(("answered", "refused")), said


NUMBERS = [[x, y] for x, y in load(FACE_NETWORK, device="cpu").template or ()]


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("config.json", "nuisance_dim", 10**9),
        ("config.json", "nuisance_dim", -1),
        ("config.json", "embedding_dim", 4096),
        ("config.json", "reference_norm", 0.0),
        ("config.json", "reference_norm", -1.0),
        ("config.json", "template", [[1e300, 0.0]] * 5),
        ("config.json", "template", [[0.5, 0.5]] * 5),
        ("config.json", "template", [[1 - x, y] for x, y in NUMBERS]),
        ("config.json", "template", [[0.5 + x / 100, y / 100] for x, y in NUMBERS]),
        ("config.json", "template", NUMBERS[:4]),
        ("config.json", "calibration.slope", 1e300),
        ("config.json", "calibration.intercept", 1e300),
        ("metrics.json", "curves.genuine", [1] * 700_000),
        ("metrics.json", "curves.width", 1e300),
        ("metrics.json", "curves.impostor.0", 10**30),
        ("metrics.json", "test.auc", 1.5),
        ("metrics.json", "test.balanced_accuracy", -1.0),
        ("metrics.json", "lfw.images", -1),
    ],
)
def test_numbers_out_of_range_are_refused_before_memory_is_taken(file, path, value, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(FACE_NETWORK, folder)
    values = json.loads((folder / file).read_text())
    *outer, last = (int(part) if part.isdigit() else part for part in path.split("."))
    part = values
    for name in outer:
        part = part[name]
    part[last] = value
    (folder / file).write_text(json.dumps(values))
    # A gigabyte or more would raise a MemoryError or RuntimeError.
    with pytest.raises(ValueError, match=r"^.{1,400}$"):
        load(folder, device="cpu")


def test_image_size_of_a_large_network_needs_as_large_a_file(tmp_path):
    from siamese import SiameseNetwork

    SiameseNetwork("small", 16, image_size=48).save_pretrained(tmp_path)
    for size in (1024, 10**9):
        config = json.loads((tmp_path / "config.json").read_text()) | {"image_size": size}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"image_size|describes"):
            SiameseNetwork.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "model.safetensors", "LICENSE"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "huge", "loop"])
def test_other_things_than_files_are_refused(name, kind, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(FACE_NETWORK, folder)
    file = folder / name
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)  # which nobody writes
    elif kind == "folder":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file)
    else:
        with file.open("wb") as sparse:
            sparse.truncate(8_000_000_000)
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        load(folder, device="cpu")


def test_embeddings_that_overflow_are_refused(tmp_path):
    import torch

    model = load(ATT, device="cpu")
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.fill_(1e10)
    with pytest.raises(ValueError, match="embeddings"):
        model.compare(EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg")
