"""The ONNX file: it answers as the network does, stands alone, and is not written where it would be wrong."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch

from siamese import Model, SiameseNetwork, export
from siamese import checkpoint as store
from siamese.calibration import Calibration
from siamese.images import to_tensor

from .conftest import EXAMPLES, ROOT


def small() -> Model:
    torch.manual_seed(0)
    network = SiameseNetwork("small", 16, mirror=True, unit=True, whiten=True)
    torch.nn.init.normal_(network.whitening.weight)
    torch.nn.init.normal_(network.whitening.bias)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    return Model(network, Calibration(6.0, 3.0), {}, "small")


@pytest.fixture(scope="module", params=["faces", "att", "small"])
def exported(request, tmp_path_factory):
    """A model, the session of its ONNX file, and the file."""
    model = small() if request.param == "small" else store.load(ROOT / "weights" / request.param, device="cpu")
    file = tmp_path_factory.mktemp("exported") / "network.onnx"
    assert export.to_onnx(model, file) <= 1e-4
    return model, onnxruntime.InferenceSession(file), file


@pytest.mark.parametrize("count", [1, 5])
def test_answers_as_the_network_does(exported, count):
    model, session, _ = exported
    x = torch.randint(256, (count, *model.network.input_shape), dtype=torch.uint8)
    (answer,) = session.run(["embeddings"], {"images": x.numpy()})
    with torch.inference_mode():
        expected = model.network.embed(x)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, expected, atol=1e-4, rtol=0)
    if model.network.mirror:
        (mirrored,) = session.run(None, {"images": x.flip(3).numpy()})
        np.testing.assert_allclose(mirrored, answer, atol=1e-5)


def test_stands_alone(exported):
    """What a decision needs is in it, and nothing of the machine that wrote it."""
    model, session, file = exported
    metadata = session.get_modelmeta().custom_metadata_map
    calibration = Calibration(float(metadata["slope"]), float(metadata["intercept"]))
    assert (calibration.slope, calibration.intercept) == (model.calibration.slope, model.calibration.intercept)
    assert float(metadata["threshold"]) == model.calibration.threshold
    assert metadata["align"] == model.align
    assert (metadata["input_range"], metadata["channels"]) == (
        "0 to 255",
        "RGB" if model.network.input_shape[0] == 3 else "gray",
    )
    assert [path.name for path in file.parent.iterdir()] == ["network.onnx"]
    assert str(ROOT).encode() not in file.read_bytes()
    with pytest.raises(Exception, match="Unexpected input data type"):
        session.run(None, {"images": np.zeros((1, *model.network.input_shape), np.float32)})


def test_the_command_line_writes_it_and_its_distance_is_the_dissimilarity(tmp_path, siamese):
    file, pair = tmp_path / "att.onnx", (EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg")
    run = siamese("export", ROOT / "weights" / "att", "--onnx", file)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"Written to {file}: in onnxruntime its embeddings are PyTorch's to ")
    model = store.load(ROOT / "weights" / "att", device="cpu")
    crops = [to_tensor(faces[0].crop).numpy() for faces in model.see(pair)]
    (z,) = onnxruntime.InferenceSession(file).run(None, {"images": np.stack(crops)})
    assert np.linalg.norm(z[0] - z[1]) == pytest.approx(model.compare(*pair).dissimilarity, abs=1e-4)


def test_a_file_that_would_answer_otherwise_is_not_written(tmp_path, monkeypatch):
    file = tmp_path / "network.onnx"
    file.write_text("the one before")
    forward = export.Embedding.forward
    monkeypatch.setattr(export.Embedding, "forward", lambda self, images: forward(self, images) + 2e-4)
    with pytest.raises(RuntimeError, match=r"differ from PyTorch.s by 2\.0e-04, more than 0\.0001: nothing was"):
        export.to_onnx(small(), file)
    assert file.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [file]


def test_refusals_are_sentences(tmp_path, siamese, monkeypatch):
    att = ROOT / "weights" / "att"
    for weights, file, says in (
        (att, tmp_path, f"{tmp_path} cannot be written: name a file, in a folder that exists"),
        (att, tmp_path / "none" / "a.onnx", "a.onnx cannot be written: name a file, in a folder that exists"),
        (tmp_path / "none", tmp_path / "a.onnx", "there is no folder"),
    ):
        run = siamese("export", weights, "--onnx", file)
        assert (run.returncode, run.stderr.startswith("error: ")) == (2, True)
        assert says in run.stderr
    for package in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
        run = siamese("export", att, "--onnx", tmp_path / "a.onnx")
        assert run.stderr == (f"error: {package} is missing, which siamese export needs: pip install '.[onnx]'\n")
        monkeypatch.undo()
    assert not list(tmp_path.iterdir())
