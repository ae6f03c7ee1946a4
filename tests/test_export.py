"""The exported ONNX file: it agrees with the network, needs nothing else, and is not written if it would be wrong."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from siamese import checkpoint, export
from siamese.calibration import Calibration
from siamese.model import Model
from siamese.network import SiameseNetwork, to_tensor
from siamese.onnx_backbone import import_onnxruntime
from siamese.record import Record

from .conftest import EXAMPLES, ROOT

ATT = ROOT / "weights" / "att"
onnxruntime = import_onnxruntime()


def small_model() -> Model:
    """A network with mirroring, whitening and batch norms that change something."""
    torch.manual_seed(0)
    network = SiameseNetwork("small", 16, mirror=True, unit=True, whiten=True)
    torch.nn.init.normal_(network.whitening.weight)
    torch.nn.init.normal_(network.whitening.bias)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    return Model(network, Calibration(6.0, 3.0), Record.from_json((ATT / "metrics.json").read_bytes()), "small")


@pytest.fixture(scope="module", params=[pytest.param("faces", marks=pytest.mark.slow), "att", "small"])
def exported(request, tmp_path_factory):
    """A model, the session of its ONNX file, and the file."""
    model = (
        small_model() if request.param == "small" else checkpoint.load(ROOT / "weights" / request.param, device="cpu")
    )
    file = tmp_path_factory.mktemp("exported") / "network.onnx"
    assert export.to_onnx(model, file) <= 1e-4
    return model, onnxruntime.InferenceSession(file), file


@pytest.mark.parametrize("count", [1, 5])
def test_embeddings_agree_with_the_network(exported, count):
    model, session, _ = exported
    x = torch.randint(256, (count, *model.network.input_shape), dtype=torch.uint8)
    (embeddings,) = session.run(["embeddings"], {"images": x.numpy()})
    with torch.inference_mode():
        expected = model.network.embed(x)
        quality = model.network.quality(model.network.features(x))
    assert [output.name for output in session.get_outputs()] == ["embeddings", "quality"][: 1 + (quality is not None)]
    if quality is not None:
        np.testing.assert_allclose(session.run(["quality"], {"images": x.numpy()})[0], quality, atol=1e-4)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, atol=1e-4, rtol=0)
    if model.network.mirror:
        (mirrored,) = session.run(["embeddings"], {"images": x.flip(3).numpy()})
        np.testing.assert_allclose(mirrored, embeddings, atol=1e-5)


def test_metadata_holds_the_calibration_and_no_local_path(exported):
    model, session, file = exported
    metadata = session.get_modelmeta().custom_metadata_map
    calibration = Calibration(float(metadata["slope"]), float(metadata["intercept"]))
    assert (calibration.slope, calibration.intercept) == (model.calibration.slope, model.calibration.intercept)
    assert float(metadata["threshold"]) == model.calibration.threshold
    assert metadata["align"] == model.align
    assert ("template" in metadata) == (model.align == "faces")
    if model.calibration.poor_slope:
        rest = {name: json.loads(metadata[name]) for name in ("poor_slope", "poor_intercept", "lowest_quality")}
        calibration = Calibration(calibration.slope, calibration.intercept, **rest)
        for quality in (None, (0.5, 0.8)):
            assert calibration.probability(1.0, quality) == model.calibration.probability(1.0, quality)
    channels = "RGB" if model.network.input_shape[0] == 3 else "gray"
    assert (metadata["input_range"], metadata["channels"]) == ("0 to 255", channels)
    assert [path.name for path in file.parent.iterdir()] == ["network.onnx"]
    assert str(ROOT).encode() not in file.read_bytes()
    with pytest.raises(Exception, match="Unexpected input data type"):
        session.run(None, {"images": np.zeros((1, *model.network.input_shape), np.float32)})


def test_distance_of_embeddings_is_the_dissimilarity(tmp_path, siamese):
    file, pair = tmp_path / "att.onnx", (EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg")
    run = siamese("export", ATT, "--onnx", file)
    assert run.returncode == 0, run.stderr
    assert str(file) in run.stdout
    model = checkpoint.load(ATT, device="cpu")
    crops = [to_tensor(faces[0].crop).numpy() for faces in model.detect(pair)]
    (z,) = onnxruntime.InferenceSession(file).run(None, {"images": np.stack(crops)})
    assert np.linalg.norm(z[0] - z[1]) == pytest.approx(model.compare(*pair).dissimilarity, abs=1e-4)


def test_wrong_embeddings_are_not_written(tmp_path, monkeypatch):
    file = tmp_path / "network.onnx"
    file.write_text("previous content")
    forward = export.Embedding.forward
    monkeypatch.setattr(export.Embedding, "forward", lambda self, images: (forward(self, images)[0] + 2e-4,))
    with pytest.raises(RuntimeError, match=r"differ by 2\.0e-04, the limit is 0\.0001"):
        export.to_onnx(small_model(), file)
    assert file.read_text() == "previous content"
    assert list(tmp_path.iterdir()) == [file]


def test_refusals(tmp_path, siamese, monkeypatch):
    for weights, file, reason in (
        (ATT, tmp_path, f"cannot write {tmp_path}, because it exists"),
        (ATT, tmp_path / "none" / "a.onnx", "existing folder"),
        (tmp_path / "none", tmp_path / "a.onnx", "there is no folder"),
    ):
        run = siamese("export", weights, "--onnx", file)
        assert run.returncode == 2
        assert reason in run.stderr
    for package in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
        run = siamese("export", ATT, "--onnx", tmp_path / "a.onnx")
        assert run.returncode == 2
        assert package in run.stderr
        assert "pip install 'siamese-faces[onnx]'" in run.stderr
        monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_onnxruntime_sends_nothing(tmp_path):
    """Its telemetry writes an id of the user and what it will send into the home folder when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    code = "from siamese.onnx_backbone import import_onnxruntime as get; get().SessionOptions()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
