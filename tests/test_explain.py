import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from siamese import load
from siamese import saliency as explain
from siamese.data.sources import find_lfw
from siamese.faces.face import Face
from siamese.network import bundled_weights

from .conftest import EXAMPLES

PAIR = EXAMPLES / "obama-portrait.jpg", EXAMPLES / "obama-standing.jpg"


@pytest.fixture(scope="module")
def model():
    return load()


def hidden(model, face: Face, values: np.ndarray) -> np.ndarray:
    """Embed a face whose tenth with the highest values is gray."""
    mask = values >= np.quantile(values, 0.9)
    pixels = np.asarray(face.crop).copy()
    pixels[mask] = pixels.mean((0, 1))
    return model.embed_faces([Face(Image.fromarray(pixels))])[0]


def test_what_it_marks_matters_more_than_what_it_does_not(model):
    """On forty pairs of LFW; benchmarks/explain.py has two hundred."""
    lfw = find_lfw(os.environ.get("SIAMESE_DATA", ""))
    if not lfw:
        pytest.skip("needs LFW: put lfw-deepfunneled.tar and pairs.txt into a folder and name it in SIAMESE_DATA")
    fold, rng = lfw.folds()[1], np.random.default_rng(0)
    pairs = [pair for same in (True, False) for pair in [pair for pair in fold if pair.same == same][:20]]
    photos = dict(lfw.read({file for pair in pairs for file in pair[:2]}))
    changes = {"hottest": [], "random": [], "together": [], "apart": []}
    for pair in pairs:
        answer = model.compare(photos[pair[0]], photos[pair[1]])
        z = model.embed_faces(answer.faces)
        for side, values in enumerate(explain.heat(model, answer)):
            noise = np.kron(rng.random((10, 10)), np.ones((15, 15)))
            kinds = {"hottest": abs(values), "random": noise, "together": values, "apart": -values}
            for name, chosen in kinds.items():
                distance = np.linalg.norm(hidden(model, answer.faces[side], chosen) - z[1 - side])
                changes[name].append(distance - answer.dissimilarity)
    change = {name: np.array(values) for name, values in changes.items()}
    genuine = np.repeat([pair.same for pair in pairs], 2)
    assert abs(change["hottest"]).mean() > 2 * abs(change["random"]).mean()
    assert change["together"].mean() > 2 * abs(change["random"]).mean()
    assert change["apart"][~genuine].mean() < 2 * change["random"][~genuine].mean() < 0


@pytest.mark.parametrize("weights", ["faces", "att"])
def test_maps_fit_the_crops_and_share_a_scale(weights):
    model = load(bundled_weights(weights))
    maps = explain.heat(model, model.compare(*PAIR))
    assert [values.shape for values in maps] == [model.network.input_shape[1:]] * 2
    assert max(abs(values).max() for values in maps) == pytest.approx(1)
    assert all(values.dtype == np.float32 for values in maps)
    swapped = explain.heat(model, model.compare(*PAIR[::-1]))
    for one, other in zip(maps, swapped[::-1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_a_mirrored_pair_has_mirrored_maps(model):
    answer = model.compare(*PAIR)
    mirrored = [Face(face.crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for face in answer.faces]
    other = explain.heat(model, type(answer)(**{**vars(answer), "faces": tuple(mirrored)}))
    for one, flipped in zip(explain.heat(model, answer), other, strict=True):
        np.testing.assert_allclose(one, flipped[:, ::-1], atol=1e-3)


def test_none_without_a_face_and_something_for_the_same_image(model):
    assert explain.heat(model, model.compare(Image.new("RGB", (300, 300)), PAIR[0])) is None
    first, second = explain.heat(model, model.compare(PAIR[0], PAIR[0]))
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert np.isfinite(first).all()


def test_threads_do_not_disturb_each_other(model):
    answer = model.compare(*PAIR)
    expected, found = explain.heat(model, answer)[0], []

    def ask():
        with torch.inference_mode(False):
            found.append(explain.heat(model, answer)[0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in found:
        np.testing.assert_allclose(values, expected, atol=1e-4)
    assert len(found) == 4
