"""Images of anything: the network of weights/images, what training starts from, fine-tuning, and networks of timm."""

import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from siamese import SiameseNetwork, checkpoint
from siamese.backbones import EfficientNetLite
from siamese.data.dataset import load_dataset
from siamese.data.folders import list_people
from siamese.files import bundled_weights
from siamese.hub import space
from siamese.record import Settings
from siamese.training import candidates, whitening
from siamese.training.config import FINETUNE_DEFAULTS, TrainConfig
from siamese.training.recipes import PRETRAINED_RATE, ModernRecipe
from siamese.training.run import train
from siamese.training.start import decide, initial_network

from .conftest import EXAMPLES, ROOT
from .hub_server import Hub, Repository

IMAGES = bundled_weights("images")
TIMM = "timm/test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of eight classes with six images each: noise in two colors that belong to the class, 64 × 64."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(8):
        (folder / f"class{number}").mkdir()
        colors = rng.integers(0, 256, (2, 3))
        for image in range(6):
            pixels = colors[rng.integers(2, size=(8, 8))] + rng.normal(0, 20, (8, 8, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype("uint8")).resize((64, 64), Image.Resampling.NEAREST)
            picture.save(folder / f"class{number}" / f"{image}.png")
    return folder


# --- weights/images


@pytest.fixture(scope="module")
def image_model():
    return checkpoint.load("weights/images", device="cpu")


def test_image_network_equals_the_original(image_model):
    """The published network computed these features. tools/build_weights.py compares them before rounding to half."""
    with np.load(Path(__file__).parent / "efficientnet_reference.npz") as reference:
        pixels, expected = torch.from_numpy(reference["pixels"]), torch.from_numpy(reference["features"])
    network = SiameseNetwork("efficientnet-lite0", 1280, image_size=pixels.shape[-1]).eval()
    network.backbone.load_state_dict(image_model.network.backbone.state_dict())
    with torch.inference_mode():
        got = network.features(pixels)
    torch.testing.assert_close(F.normalize(got), F.normalize(expected), atol=2e-3, rtol=0)


def test_image_size_is_a_multiple_of_the_stride():
    assert EfficientNetLite(8, 96).eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 8)
    with pytest.raises(ValueError, match="multiple of 32, got 100"):
        EfficientNetLite(8, 100)
    with pytest.raises(ValueError, match="cannot be changed"):
        SiameseNetwork("mobilefacenet", 8, image_size=96)


def test_answer_says_what_the_image_network_was_calibrated_on(image_model, siamese):
    a, b = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
    answer = siamese("compare", a, b, "--weights", "weights/images")
    assert (answer.returncode, "Grocery Store Dataset" in answer.stdout) == (0, True)
    assert image_model.compare(a, a).verdict == "same"
    assert image_model.record.test.eer < 0.14
    assert image_model.record.test.calibration_error < 0.03


def test_photos_without_a_face_get_a_hint(tmp_path, siamese):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "green").save(tmp_path / name)
    answer = siamese("compare", tmp_path / "a.png", tmp_path / "b.png")
    assert (answer.returncode, "--weights weights/images" in answer.stdout) == (1, True)
    answer = siamese("compare", tmp_path / "a.png", EXAMPLES / "biden.jpg")
    assert (answer.returncode, "weights/images" in answer.stdout) == (1, False)


def test_space_with_the_image_network_has_its_weights_once():
    planned = space.plan("USER/SPACE", "weights/images")
    assert planned.weights == "weights/images"
    assert {f"weights/images/{name}" for name in ("model.safetensors", "LICENSE", "README.md")} < planned.files.keys()
    assert not [name for name in planned.files if name.startswith("runs/")]
    assert planned.card.data.title == "Siamese network, images"


def test_weights_stay_small():
    assert sum(file.stat().st_size for file in (ROOT / "weights").rglob("*") if file.is_file()) < 25e6


# --- what training starts from


def test_candidates_get_neither_test_classes_nor_too_many_images(digits, monkeypatch):
    folders = list_people(digits)  # ten classes with eight images each
    _, test = load_dataset(digits, (1, 8, 8), progress=False).split(seed=3)
    drawn = candidates.draw_classes(folders, seed=3)
    assert set(drawn.names) == set(folders.names) - set(test.names)
    assert drawn.files == [f"{number}.png" for number in range(8)] * 8
    monkeypatch.setattr(candidates, "MAX_IMAGES_EACH", 3)
    monkeypatch.setattr(candidates, "MAX_IMAGES", 16)
    drawn = candidates.draw_classes(folders, seed=3)
    assert drawn.counts == (3,) * 5
    assert len(load_dataset(digits, (1, 8, 8), progress=False, people=drawn)) == 15
    monkeypatch.setattr(candidates, "MAX_IMAGES", 1)
    assert len(candidates.draw_classes(folders, seed=3).names) == candidates.MIN_CLASSES
    two = folders.sample({"0", "1"}, 3)  # both are kept for the test
    assert candidates.draw_classes(two, seed=3).names == ()


def test_the_better_candidate_is_kept_and_said(digits, photos, tmp_path, capsys, monkeypatch):
    """On characters the image network is worse than a few epochs from scratch."""
    settings, source = decide(TrainConfig(str(digits), tmp_path))
    assert (settings.init, settings.turned, source) == ("", True, None)
    said = capsys.readouterr().out
    assert "starts from scratch" in said
    assert "classes for validation" in said
    monkeypatch.setattr("siamese.training.start.measure", lambda *_: (0.1, 0.09, 3))  # not clearly better
    settings, source = decide(TrainConfig(str(photos), tmp_path))
    assert (settings.init, settings.epochs, settings.turned) == ("weights/images", 0, False)
    assert source
    assert source.record.data.name == "Grocery Store Dataset"
    assert "starts from the image network" in capsys.readouterr().out


def test_image_network_is_whitened_for_the_classes(photos, tmp_path):
    result = train(photos, tmp_path / "run", init="weights/images", image_size=64)
    record, network = result.record, result.model.network
    assert (record.settings.image_size, network.input_shape) == (64, (3, 64, 64))
    assert record.people.pretraining == []  # the layer that was fitted to groceries is left out
    assert record.test.auc > 0.8
    before, after = checkpoint.load("weights/images", device="cpu").network.state_dict(), network.cpu().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("whitening"))
    assert not torch.equal(before["whitening.weight"], after["whitening.weight"])


def test_network_from_the_image_network_carries_its_license_and_limits(photos, tmp_path, image_model, monkeypatch):
    """Without the layer that was fitted to groceries, their calibration does not fit either."""
    monkeypatch.setattr(whitening, "choose_shrinkage", lambda *_: math.inf)
    result = train(photos, tmp_path / "run", init="weights/images", progress=False)
    record, start = result.record, image_model.record
    assert (record.unchanged, record.test_calibration, record.source) == (True, None, start.source)
    assert result.model.calibration != image_model.calibration
    assert (tmp_path / "run" / "LICENSE").read_bytes() == (IMAGES / "LICENSE").read_bytes()
    card = (tmp_path / "run" / "README.md").read_text()
    for text in ("license: apache-2.0", start.source.credit, start.source.training_data, start.source.limitations):
        assert text in card
    a, b = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
    warnings = [model.compare(a, b).warnings for model in (image_model, result.model)]
    assert [len(found) for found in warnings] == [1, 0]


def test_folds_whiten_as_the_network_that_they_judge(photos, tmp_path, monkeypatch):
    """Otherwise one calibration would mix distances of two kinds."""
    strengths = [1.0, math.inf, math.inf]
    monkeypatch.setattr(whitening, "choose_shrinkage", lambda *_: strengths.pop(0))
    record = train(photos, tmp_path / "run", init="weights/images", folds=2, image_size=64, progress=False).record
    assert len(strengths) == 2
    assert all(fold.mean_impostor > record.before.mean_impostor for fold in record.folds.each)


# --- fine-tuning


def test_finetuning_trains_a_new_layer_and_the_others_more_slowly(photos, tmp_path):
    result = train(photos, tmp_path / "run", init="weights/images", finetune=True, epochs=3, image_size=64)
    settings = result.record.settings
    assert (settings.epochs, settings.lr, settings.embedding_dim) == (3, FINETUNE_DEFAULTS["lr"], 256)
    assert result.model.embed([photos / "class0" / "0.png"]).shape == (1, 256)
    before = checkpoint.load("weights/images", device="cpu").network.backbone.state_dict()
    after = result.model.network.cpu().backbone.state_dict()
    assert all(name in after for name in before)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) > len(before) / 2
    groups = ModernRecipe(settings).parameter_groups(result.model.network)
    assert [factor for _, factor in groups] == [PRETRAINED_RATE, 1.0]
    assert [len(parameters) for parameters, _ in groups] == [len(before), 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 64, "init": "weights/images"}, "no effect with 0 epochs"),
        ({"image_size": 60, "init": "weights/images"}, "multiple of 32"),
        ({"image_size": 96, "recipe": "tutorial"}, "not supported by the tutorial recipe"),
        ({"finetune": True, "recipe": "modern"}, "trains from scratch"),
        ({"backbone": "resnet18"}, "must be timm/NAME"),
        ({"backbone": TIMM, "init": "weights/images"}, "without --init"),
    ],
)
def test_options_of_networks_are_checked(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        initial_network(*decide(TrainConfig("data", tmp_path, **options)))


# --- networks of timm


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with random weights of a small network of timm."""
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    from safetensors.torch import save

    torch.manual_seed(0)
    server = Hub("hf_token")
    model = timm.create_model(TIMM.removeprefix("timm/"))
    server.config = model.pretrained_cfg
    files = {"model.safetensors": save(model.state_dict()), "config.json": json.dumps(server.config).encode()}
    server.repositories[f"models/{TIMM}"] = Repository()
    server.repositories[f"models/{TIMM}"].commit("main", files)
    server.connect(monkeypatch, tmp_path / "cache")
    return server


def test_network_of_timm_is_trained_pushed_and_loaded_offline(hub, photos, tmp_path, monkeypatch):
    result = train(photos, tmp_path / "run", backbone=TIMM)
    assert f"HEAD /{TIMM}/resolve/main/model.safetensors" in hub.asked
    network = result.model.network
    assert (network.input_shape, network.uses_timm, network.embedding_dim) == ((3, 160, 160), True, 96)
    assert (result.record.settings.init, result.record.settings.epochs) == (TIMM, 0)
    mean = torch.tensor(hub.config["mean"])[:, None, None]
    torch.testing.assert_close(network.cpu().backbone[0].mean, mean, atol=1e-3, rtol=0)
    card = (tmp_path / "run" / "README.md").read_text()
    assert (f"base_model: {TIMM}" in card, "[timm]" in card) == (True, True)
    assert space.TIMM_REQUIREMENT in space.plan("USER/SPACE", tmp_path / "run").files["requirements.txt"].decode()

    pair = photos / "class0" / "0.png", photos / "class1" / "0.png"
    expected = result.model.compare(*pair).dissimilarity
    hub.connect(monkeypatch, tmp_path / "empty", offline=True)
    hub.asked.clear()
    loaded = checkpoint.load(tmp_path / "run", device="cpu")
    assert loaded.compare(*pair).dissimilarity == pytest.approx(expected, abs=1e-6)
    assert not hub.asked


def test_statistics_of_a_network_of_timm_stay_as_they_are(hub, photos, tmp_path):
    result = train(photos, tmp_path / "run", backbone=TIMM, finetune=True, epochs=3, image_size=64)
    start = initial_network(result.record.settings, None).backbone.state_dict()
    after = result.model.network.cpu().backbone.state_dict()
    statistics = [name for name in start if name.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all(torch.equal(start[name], after[name]) for name in statistics)
    assert not torch.equal(start["1.conv1.0.weight"], after["1.conv1.0.weight"])


def test_unknown_networks_of_timm_are_refused():
    pytest.importorskip("timm", reason="needs the extra timm")
    for name in ("timm/nothing", "timm/hf-hub:USER/NAME", "timm/local-dir:/tmp"):
        with pytest.raises(ValueError, match="timm has no network"):
            SiameseNetwork(name, 8)


def test_requirement_is_that_of_the_extra():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["timm"] == [space.TIMM_REQUIREMENT]


def test_missing_timm_is_reported(photos, tmp_path, monkeypatch, siamese):
    monkeypatch.delitem(sys.modules, "siamese.timm_backbone", raising=False)
    monkeypatch.setitem(sys.modules, "timm", None)
    refused = siamese("train", "--data", photos, "--out", tmp_path / "run", "--backbone", TIMM)
    assert (refused.returncode, "siamese-faces[timm]" in refused.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


# --- data sets in SIAMESE_DATA


@pytest.mark.slow
def test_default_on_photos_of_groceries(tmp_path):
    """13.5% with a margin: see benchmarks/grocery.py for three seeds."""
    archive = Path(os.environ.get("SIAMESE_DATA", ""), "grocery.zip")
    if not archive.is_file():
        pytest.skip("needs grocery.zip in SIAMESE_DATA")
    record = train(archive, tmp_path / "run").record
    assert Path(record.settings.init).name == "images"
    assert record.test.eer < 0.14
    assert replace(record.settings, init="") == Settings("modern", 0, 64, 1e-5, 0.6, 0)
