"""Degraded photographs: how they are made, and what is fitted and measured on them."""

import numpy as np
import pytest
import torch

from siamese import images, load
from siamese.data.lfw import LfwPair
from siamese.evaluation import degraded
from siamese.evaluation.degraded import COVERS, DEGRADATIONS, GLASSES, MASKS, Features, draw_cover
from siamese.faces.detection import find_faces
from siamese.faces.quality import COVERED
from siamese.network import SiameseNetwork

from .conftest import EXAMPLES

PHOTOS = {f"{name.split('-')[0]}/{name}.jpg": EXAMPLES / f"{name}.jpg" for name in ("biden", "obama-portrait")}


class Photographs:
    """Stands in for LFW."""

    def read(self, files):
        return ((file, PHOTOS[file].read_bytes()) for file in files)


def test_degradations_change_what_they_name():
    photo = images.read(EXAMPLES / "biden.jpg")
    face = find_faces([photo])[0][0]
    changed = {name: degrade(photo, face) for name, degrade in DEGRADATIONS.items()}
    for pixels in (40, 30, 20, 14):
        assert changed[f"{pixels} pixels"].width == pytest.approx(photo.width * pixels / face.size, abs=1)
    pixels = {name: np.asarray(image, dtype=float) for name, image in changed.items()}
    original = np.asarray(photo, dtype=float)
    assert pixels["dark"].mean() == pytest.approx(original.mean() / 5, abs=1)
    assert np.ptp(pixels["gray"], axis=2).max() == 0
    assert np.abs(np.diff(pixels["blur"], axis=0)).mean() < 0.5 * np.abs(np.diff(original, axis=0)).mean()
    (x, y), mouth = face.landmarks[0], np.mean(face.landmarks[3:], axis=0)
    for name, place, covered in (
        ("dark glasses", (x, y), True),
        ("dark glasses", mouth, False),
        ("mask", mouth, True),
        ("mask", (x, y), False),
        ("mask and dark glasses", (x, y), True),
        ("mask and dark glasses", mouth, True),
    ):
        column, row = map(round, place)
        assert (pixels[name][row, column] != original[row, column]).any() == covered, (name, place)


def test_every_kind_of_cover_hides_its_part():
    photo = images.read(EXAMPLES / "biden.jpg")
    face = find_faces([photo])[0][0]
    eye, mouth = face.landmarks[0], np.mean(face.landmarks[3:], axis=0)
    for cover in (*MASKS.values(), *GLASSES.values()):
        drawn = draw_cover(photo, face, cover)
        changed = [
            drawn.getpixel(at) != photo.getpixel(at) for at in (tuple(map(round, eye)), tuple(map(round, mouth)))
        ]
        assert changed == [cover in GLASSES.values(), cover in MASKS.values()]


def test_a_photo_always_gets_the_same_kind_of_cover():
    photo = images.read(EXAMPLES / "biden.jpg")
    face = find_faces([photo])[0][0]
    assert COVERS["mask"](photo, face) == COVERS["mask"](photo, face)
    others = [photo.crop((0, 0, photo.width - k, photo.height)) for k in range(20)]
    assert len({id(degraded._choose(MASKS, other)) for other in others}) > 3


def test_features_of_degraded_photographs():
    model = load()
    features = degraded.embed_degraded(model, Photographs(), list(PHOTOS))
    assert list(features) == ["none", *DEGRADATIONS]
    z = model.embed(PHOTOS.values())
    for row, file in zip(z, PHOTOS, strict=True):
        expected = model.network.head(torch.from_numpy(features["none"][file].embedding[None]))[0]
        assert np.linalg.norm(expected.numpy() - row) < 0.02
        whole, blurred, masked = (features[name][file] for name in ("none", "blur", "mask"))
        assert np.linalg.norm(blurred.embedding) < np.linalg.norm(whole.embedding)
        assert masked.changes[1] < 0.55 < min(whole.changes[1], masked.changes[0])


@pytest.fixture
def made_up():
    """Features of 40 people with two photographs each; every degradation moves them along one of two axes."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(40, 30))
    people[:, :2] = 0
    files = {f"P{k}/P{k}_{n}.jpg": people[k] + 0.3 * rng.normal(size=30) for k in range(40) for n in (1, 2)}
    for row in files.values():
        row[:2] = 0
    features = {"none": files}
    for number, name in enumerate(DEGRADATIONS):
        shift = np.eye(30)[number % 2] * 12
        features[name] = {file: 0.4 * row + shift for file, row in files.items()}
    features["blur"]["P0/P0_1.jpg"] = np.full(30, np.nan)
    changes = np.ones(2, np.float32)
    rows = {
        name: {file: Features(row.astype(np.float32), changes) for file, row in part.items()}
        for name, part in features.items()
    }
    genuine = [LfwPair(f"P{k}/P{k}_1.jpg", f"P{k}/P{k}_2.jpg", True) for k in range(40)]
    impostor = [LfwPair(f"P{k}/P{k}_1.jpg", f"P{j}/P{j}_2.jpg", False) for k in range(40) for j in range(40) if k != j]
    return rows, genuine + impostor


def network(monkeypatch, features) -> SiameseNetwork:
    monkeypatch.setattr(degraded, "NUISANCE_DIM", 2)
    made = SiameseNetwork("tutorial", 30, unit=True, reference_norm=5.0, nuisance_dim=2).eval()
    made.nuisance = torch.from_numpy(degraded.nuisance_directions(features))
    return made


def test_nuisance_directions_are_those_of_the_degradations(made_up, monkeypatch):
    directions = network(monkeypatch, made_up[0]).nuisance.double()
    assert directions[:, 2:].abs().max() < 0.2
    torch.testing.assert_close(directions @ directions.T, torch.eye(2).double(), atol=1e-4, rtol=0)


def test_pairs_with_both_and_with_one_photograph_degraded(made_up, monkeypatch):
    features, pairs = made_up
    kinds = degraded.degraded_pairs(network(monkeypatch, features), features, pairs)
    assert [(kind.degradation, kind.both) for kind in kinds[:3]] == [
        ("none", True),
        ("40 pixels", True),
        ("40 pixels", False),
    ]
    assert len(kinds) == 1 + 2 * len(DEGRADATIONS)
    for kind in kinds:
        missing = 0 if kind.degradation != "blur" else 40  # P0's first photograph is the first of 40 pairs
        assert (kind.total, len(kind.scored.same)) == (len(pairs), len(pairs) - missing)
        poor = np.median(kind.scored.quality, axis=0) < 0.8
        assert poor.tolist() == [kind.degradation != "none", kind.degradation != "none" and kind.both]


def test_covered_faces_have_a_lower_quality(made_up, monkeypatch):
    features, pairs = made_up
    hidden = {file: row._replace(changes=np.array([1, 0.2], np.float32)) for file, row in features["mask"].items()}
    kinds = degraded.degraded_pairs(network(monkeypatch, features), features | {"mask": hidden}, pairs)
    (masked,) = (kind.scored for kind in kinds if kind.degradation == "mask" and kind.both)
    (gray,) = (kind.scored for kind in kinds if kind.degradation == "gray" and kind.both)
    np.testing.assert_allclose(masked.quality, COVERED * gray.quality, rtol=0.05)


def test_calibration_and_its_metrics(made_up, monkeypatch):
    features, pairs = made_up
    made = network(monkeypatch, features)
    fitted = degraded.fit_calibration(degraded.degraded_pairs(made, features, pairs), with_people=True)
    assert len(fitted.covariance) == 10
    folds = [pairs[::2], pairs[1::2]]
    results = degraded.judge(made, features, folds, [fitted, fitted])
    assert [result.degradation for result in results[::2]] == ["none", *DEGRADATIONS]
    for result in results:
        assert result.pairs == len(pairs) - (40 if result.degradation == "blur" else 0)
        assert result.missing == pytest.approx(1 - result.pairs / len(pairs))
        assert 0 <= result.confident_errors <= result.errors <= 0.5
    assert results[0].errors < 0.05
    undecided = degraded.judge(made, features, folds, [fitted.__class__(1e-6, 1e-6)] * 2)
    assert all(result.unsure == pytest.approx(1) for result in undecided)
