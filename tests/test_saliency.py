"""Saliency maps."""

import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from siamese import Face, load
from siamese.data.lfw import find_lfw
from siamese.network import bundled_weights
from siamese.saliency import saliency_maps

from .conftest import EXAMPLES

PAIR = EXAMPLES / "obama-portrait.jpg", EXAMPLES / "obama-standing.jpg"


@pytest.fixture(scope="module")
def model():
    return load(device="cpu")


@pytest.fixture(scope="module")
def answer(model):
    return model.compare(*PAIR)


def hide(face: Face, values: np.ndarray) -> Face:
    """Make the tenth of a face with the highest values gray."""
    mask = values >= np.quantile(values, 0.9)
    pixels = np.asarray(face.crop).copy()
    pixels[mask] = pixels.mean((0, 1))
    return Face(Image.fromarray(pixels))


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_hiding_salient_parts_changes_the_distance_more(model, count):
    """On pairs of LFW, `count` genuine and `count` impostor ones; benchmarks/saliency.py has more."""
    lfw = find_lfw(os.environ.get("SIAMESE_DATA", ""))
    if not lfw:
        pytest.skip("needs LFW: set SIAMESE_DATA to a folder with lfw-deepfunneled.tar and pairs.txt")
    fold, rng = lfw.folds()[1], np.random.default_rng(0)
    pairs = [pair for same in (True, False) for pair in [pair for pair in fold if pair.same == same][:count]]
    photos = dict(lfw.read({file for pair in pairs for file in pair[:2]}))
    changes = {"hottest": [], "random": [], "together": [], "apart": []}
    for pair in pairs:
        answer = model.compare(photos[pair[0]], photos[pair[1]])
        z = model.embed_faces(answer.faces)
        for side, values in enumerate(saliency_maps(model, answer)):
            noise = np.kron(rng.random((10, 10)), np.ones((15, 15)))
            chosen = {"hottest": abs(values), "random": noise, "together": values, "apart": -values}
            hidden = model.embed_faces([hide(answer.faces[side], values) for values in chosen.values()])
            for name, distance in zip(chosen, np.linalg.norm(hidden - z[1 - side], axis=1), strict=True):
                changes[name].append(distance - answer.dissimilarity)
    change = {name: np.array(values) for name, values in changes.items()}
    genuine = np.repeat([pair.same for pair in pairs], 2)
    assert abs(change["hottest"]).mean() > 2 * abs(change["random"]).mean()
    assert change["together"].mean() > 2 * abs(change["random"]).mean()
    assert change["apart"][~genuine].mean() < 2 * change["random"][~genuine].mean() < 0


@pytest.mark.parametrize("weights", ["faces", "att"])
def test_maps_have_the_size_of_the_crops_and_one_scale(weights):
    model = load(bundled_weights(weights), device="cpu")
    maps = saliency_maps(model, model.compare(*PAIR))
    assert [values.shape for values in maps] == [model.network.input_shape[1:]] * 2
    assert max(abs(values).max() for values in maps) == pytest.approx(1)
    assert all(values.dtype == np.float32 for values in maps)
    swapped = saliency_maps(model, model.compare(*PAIR[::-1]))
    for one, other in zip(maps, swapped[::-1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_mirrored_pair_has_mirrored_maps(model, answer):
    mirrored = [Face(face.crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for face in answer.faces]
    other = saliency_maps(model, type(answer)(**{**vars(answer), "faces": tuple(mirrored)}))
    for one, flipped in zip(saliency_maps(model, answer), other, strict=True):
        np.testing.assert_allclose(one, flipped[:, ::-1], atol=1e-3)


def test_missing_face_has_no_maps_and_equal_images_have_finite_ones(model):
    assert saliency_maps(model, model.compare(Image.new("RGB", (300, 300)), PAIR[0])) is None
    first, second = saliency_maps(model, model.compare(PAIR[0], PAIR[0]))
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert np.isfinite(first).all()


def test_threads_do_not_affect_each_other(model, answer):
    expected, found = saliency_maps(model, answer)[0], []

    def compute():
        with torch.inference_mode(False):
            found.append(saliency_maps(model, answer)[0])

    threads = [threading.Thread(target=compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in found:
        np.testing.assert_allclose(values, expected, atol=1e-4)
    assert len(found) == 4
