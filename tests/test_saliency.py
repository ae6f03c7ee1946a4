"""Saliency maps."""

import os
import threading
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from siamese import Face, load
from siamese.data.lfw import find_lfw
from siamese.files import bundled_weights
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


def check_changes(model, pairs: list[tuple[Face, Face, bool]]) -> None:
    """Hide salient and random parts of both faces of each pair, and compare how much the distance changes."""
    rng, changes = np.random.default_rng(0), {"hottest": [], "random": [], "together": [], "apart": []}
    answer = model.compare(*PAIR)
    for first, second, _ in pairs:
        faces = first, second
        z, _ = model.embed_faces(faces)
        for side, values in enumerate(saliency_maps(model, replace(answer, faces=faces))):
            noise = np.kron(rng.random((8, 8)), np.ones((14, 14)))
            chosen = {"hottest": abs(values), "random": noise, "together": values, "apart": -values}
            hidden, _ = model.embed_faces([hide(faces[side], values) for values in chosen.values()])
            for name, distance in zip(chosen, np.linalg.norm(hidden - z[1 - side], axis=1), strict=True):
                changes[name].append(distance - np.linalg.norm(z[0] - z[1]))
    change = {name: np.array(values) for name, values in changes.items()}
    genuine = np.repeat([same for *_, same in pairs], 2)
    assert abs(change["hottest"]).mean() > 2 * abs(change["random"]).mean()
    assert change["together"].mean() > 2 * abs(change["random"]).mean()
    assert change["apart"][~genuine].mean() < -2 * abs(change["random"][~genuine]).mean()


def test_hiding_salient_parts_changes_the_distance_more(model):
    names = ("biden", "collins", "obama-portrait", "obama-speaking", "obama-standing")
    faces = [found[0] for found in model.detect([EXAMPLES / f"{name}.jpg" for name in names])]
    people = [name.partition("-")[0] for name in names]
    pairs = [(faces[i], faces[k], people[i] == people[k]) for i, k in combinations(range(len(faces)), 2)]
    check_changes(model, pairs)


@pytest.mark.slow
def test_hiding_salient_parts_changes_the_distance_more_on_lfw(model):
    """On forty pairs; benchmarks/saliency.py has two hundred."""
    lfw = find_lfw(os.environ.get("SIAMESE_DATA", ""))
    if not lfw:
        pytest.skip("needs LFW: set SIAMESE_DATA to a folder with lfw-deepfunneled.tar and pairs.txt")
    fold = lfw.folds()[1]
    chosen = [pair for same in (True, False) for pair in [pair for pair in fold if pair.same == same][:20]]
    photos = dict(lfw.read({file for pair in chosen for file in pair[:2]}))
    found = {file: model.detect([photo])[0][0] for file, photo in photos.items()}
    check_changes(model, [(found[pair.first], found[pair.second], pair.same) for pair in chosen])


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
