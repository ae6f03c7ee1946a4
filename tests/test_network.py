import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from siamese import SiameseNetwork, distance
from siamese.network import pick_device


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SiameseNetwork().eval()


@pytest.fixture
def pairs():
    return torch.rand(2, 3, 1, 100, 100, generator=torch.Generator().manual_seed(0))


def test_has_the_layers_of_the_seed(network):
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(96, 1, 11, 11), (256, 96, 5, 5), (384, 256, 3, 3), (1024, 384), (256, 1024), (2, 256)]


def test_both_branches_share_their_weights(network, pairs):
    z1, z2 = network(*pairs)
    assert z1.shape == z2.shape == (3, 2)
    w1, w2 = network(pairs[1], pairs[0])
    torch.testing.assert_close((z1, z2), (w2, w1))
    torch.testing.assert_close(z1, network.embed(pairs[0]))


def test_distance_is_euclidean_symmetric_and_zero_for_one_image(network, pairs):
    z1, z2 = network(*pairs)
    torch.testing.assert_close(distance(z1, z2), ((z1 - z2) ** 2).sum(1).sqrt())
    assert torch.equal(distance(z1, z2), distance(z2, z1))
    assert torch.equal(distance(z1, z1), torch.zeros(3))


def test_uint8_and_unit_floats_are_the_same_image(network):
    pixels = torch.randint(256, (2, 1, 100, 100), dtype=torch.uint8)
    torch.testing.assert_close(network.embed(pixels), network.embed(pixels / 255))


def test_refuses_images_of_another_shape(network):
    with pytest.raises(ValueError, match=r"expected images of shape \(B, 1, 100, 100\), got \(1, 3, 64, 64\)"):
        network.embed(torch.zeros(1, 3, 64, 64))


def test_a_saved_network_answers_the_same(network, pairs, tmp_path, capsys):
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


def test_a_pickle_is_never_loaded(network, tmp_path):
    network.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError):
        SiameseNetwork.from_pretrained(tmp_path)


def test_a_file_cut_short_is_told(network, tmp_path):
    network.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="does not hold the weights"):
        SiameseNetwork.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"backbone": "other"}, {"embedding_dim": 10**9}, {"embedding_dim": "2"}])
def test_refuses_a_config_it_does_not_know(network, tmp_path, change):
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=next(iter(change))):
        SiameseNetwork.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "mps:7"])
def test_refuses_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=f"no device '{name}'"):
        pick_device(name)
