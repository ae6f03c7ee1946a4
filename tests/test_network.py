"""The network: layers, embeddings, the distance, and loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from siamese import SiameseNetwork, distance
from siamese.backbones import BACKBONES, LocalContrast, MobileFaceNet, StridedConvolution
from siamese.checkpoint import pick_device
from siamese.files import bundled_weights


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


def test_face_network_equals_the_original():
    """LiteRT computed these embeddings from the published file, see tools/build_weights.py."""
    network = SiameseNetwork.from_pretrained(str(bundled_weights("faces")))
    network.mirror = False
    with np.load(Path(__file__).parent / "mobilefacenet_reference.npz") as reference:
        crops, expected = torch.from_numpy(reference["crops"]), torch.from_numpy(reference["embeddings"])
    with torch.inference_mode():
        got = network.features(crops.permute(0, 3, 1, 2))
    assert len(got) == 5
    torch.testing.assert_close(F.normalize(got), F.normalize(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.norm(dim=1), expected.norm(dim=1))


def test_convolutions_with_stride_are_padded_as_in_tensorflow():
    """The same convolution of an image whose right and lower border was padded by hand."""
    network = MobileFaceNet(8).eval()
    padding, convolution, _ = network[0]
    x = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    padded = torch.full((1, 3, 113, 113), 0.5)
    padded[..., :112, :112] = x
    expected = F.conv2d(padded, convolution.weight, convolution.bias, stride=2)
    torch.testing.assert_close(convolution(padding(x)), expected)


@pytest.mark.parametrize(("kernel_size", "padding"), [(3, (0, 1, 0, 1)), (5, (1, 2, 1, 2))])
@pytest.mark.parametrize("size", [(2, 2), (14, 14), (30, 46)])
@torch.inference_mode()
def test_convolution_that_pads_faster_has_the_same_result(kernel_size, padding, size):
    convolution = StridedConvolution(32, 32, kernel_size, groups=32)
    x = torch.rand(2, 32, *size, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(F.pad(x, padding), convolution.weight, convolution.bias, stride=2, groups=32)
    torch.testing.assert_close(convolution(x), expected)


@pytest.fixture
def nuisance_network():
    """The features of this network are its input; blur moves them along the first axis."""
    network = SiameseNetwork("tutorial", 4, unit=True, reference_norm=10.0, nuisance_dim=1).eval()
    network.nuisance = torch.eye(4)[:1]
    return network


def test_quality_is_the_norm_without_nuisances(nuisance_network):
    features = torch.tensor([[50.0, 0, 3, 4], [0.0, 0, 30, 40], [0.0, 0, 0, 0]])
    torch.testing.assert_close(nuisance_network.quality(features), torch.tensor([0.5, 1.0, 0.0]))
    assert SiameseNetwork("tutorial", 4, unit=True).quality(features) is None


def test_nuisances_are_removed_from_poor_faces_only(nuisance_network):
    directions = torch.tensor([[1.0, 0, 3, 4]]) / 5
    z = nuisance_network.head(directions * torch.tensor([[5.0], [7.0], [9.0]]))  # qualities 0.5, 0.7 and 0.9
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    share = z[:, 0] / z[:, 3] * 4  # 1 for the whole nuisance
    torch.testing.assert_close(share, torch.tensor([0.0, 0.5, 1.0]))


def test_mirror_and_unit_are_saved_with_the_network(tmp_path):
    torch.manual_seed(0)
    network = SiameseNetwork("mobilefacenet", 8, mirror=True, unit=True)
    x = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    network.eval().save_pretrained(tmp_path)
    z = SiameseNetwork.from_pretrained(str(tmp_path)).embed(x)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(z, network.embed(x.flip(3)))
    plain = SiameseNetwork("mobilefacenet", 8).eval()
    plain.load_state_dict(network.state_dict())
    mean = (plain.embed(x) + plain.embed(x.flip(3))) / 2
    torch.testing.assert_close(z, mean / mean.norm(dim=1, keepdim=True))
    assert not torch.allclose(network.train().embed(x), z)


@pytest.mark.parametrize("name", BACKBONES)
def test_each_backbone_maps_its_input_to_an_embedding(name):
    network = SiameseNetwork(name, embedding_dim=5).eval()
    assert network.embed(torch.zeros(2, *network.backbone.input_shape)).shape == (2, 5)


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


def test_branches_have_the_same_weights():
    network = SiameseNetwork().eval()
    x = torch.randint(256, (6, 1, 100, 100), dtype=torch.uint8)
    together = network.embed(x)
    for sizes in ((6,), (3, 3), (1, 2, 3)):
        branches = network(*x.split(sizes))
        assert [len(z) for z in branches] == list(sizes)
        torch.testing.assert_close(torch.cat(branches), together)
