"""The strong recipe: its batches, its variations, its loss in use, and what it learns."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from siamese import SiameseNetwork
from siamese.data import dataset as data
from siamese.evaluation import metrics
from siamese.evaluation.pairs import score_all_pairs
from siamese.network import LocalContrast
from siamese.training import modern as strong
from siamese.training import trainer as loop
from siamese.training.config import TrainConfig

CPU = torch.device("cpu")


def config(out, **settings) -> TrainConfig:
    return TrainConfig("…", out, recipe="modern", **settings)


@settings(deadline=None)
@given(st.lists(st.integers(1, 11), min_size=2, max_size=9), st.integers(8, 70), st.randoms())
def test_an_epoch_shows_each_image_in_groups_of_one_person(sizes, batch_size, random):
    identity = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(identity)
    batches = strong.epoch_batches(identity, config("…", batch_size=batch_size), 0)
    assert len(batches) == len(strong.epoch_batches(identity, config("…", batch_size=batch_size), 1))
    rows = np.concatenate([rows for rows, _ in batches])
    assert set(rows.tolist()) == set(range(len(identity)))
    times = np.bincount(rows, minlength=len(identity))
    for person, size in enumerate(sizes):
        assert times[identity == person].sum() == -(-size // strong.IMAGES) * strong.IMAGES
        assert np.ptp(times[identity == person]) <= 1
    for rows, people in batches:
        assert np.array_equal(people, identity[rows])
        assert len(rows) <= max(batch_size, strong.IMAGES)
        assert all(len(set(group)) == 1 for group in people.reshape(-1, strong.IMAGES).tolist())


def test_a_batch_holds_as_many_people_as_it_can():
    even = np.repeat(np.arange(8), 12)
    batches, again, other = (strong.epoch_batches(even, config("…", batch_size=32), epoch) for epoch in (0, 0, 1))
    assert [len(np.unique(people)) for _, people in batches] == [8, 8, 8]
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(batches, again, strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(batches, other, strict=True))
    # One has as many images as a hundred others.
    uneven = np.concatenate([np.zeros(400, int), np.repeat(np.arange(1, 101), 4)])
    assert min(len(np.unique(people)) for _, people in strong.epoch_batches(uneven, config("…"), 0)) > 4


def test_two_people_at_least_are_in_a_batch():
    with pytest.raises(ValueError, match="batch_size must be at least 8, got 7"):
        config("…", batch_size=7)


def test_a_process_without_a_share_varies_nothing():
    assert vary(torch.empty(0, 3, 48, 48, dtype=torch.uint8)).shape == (0, 3, 48, 48)


def augment(x, flip=False, seed=0):
    draws = torch.rand(strong.DRAWS, len(x), generator=torch.Generator().manual_seed(seed))
    return strong.augment(x, draws, config("…", flip=flip))


def test_each_image_is_varied_on_its_own_and_a_little():
    x = torch.randint(256, (1, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x = torch.nn.functional.interpolate(x.float(), size=(48, 48), mode="bicubic").clamp(0, 255).byte()
    x = x.repeat(16, 1, 1, 1)
    varied = vary(x)
    assert varied.shape == x.shape
    assert varied.dtype == torch.float32
    assert len({image.numpy().tobytes() for image in varied}) == 16
    assert torch.equal(varied, vary(x))
    assert not torch.equal(varied, vary(x, seed=1))
    difference = (varied - x / 255).abs().mean((1, 2, 3))
    assert (difference > 0).all()
    assert (difference < 0.3).all()


def test_in_the_middle_of_all_draws_an_image_stays_as_it_is():
    x = torch.randint(256, (32, 3, 48, 48), dtype=torch.uint8)
    draws = torch.full((strong.DRAWS, 32), 0.5)
    torch.testing.assert_close(strong.augment(x, draws, config("…")), x / 255, atol=1e-4, rtol=0)
    draws[0] = torch.arange(32) % 2
    varied = strong.augment(x, draws, config("…", flip=True))
    torch.testing.assert_close(varied[0::2], x[0::2] / 255, atol=1e-4, rtol=0)
    torch.testing.assert_close(varied[1::2], x[1::2].flip(3) / 255, atol=1e-4, rtol=0)


def test_a_shift_moves_by_its_share_of_the_width(monkeypatch):
    for name in ("TURN", "ZOOM", "LIGHT", "CONTRAST"):
        monkeypatch.setattr(strong, name, 0.0)
    x = torch.zeros(200, 1, 48, 48, dtype=torch.uint8)
    x[:, :, 24, 24] = 255
    seen = vary(x)
    middle = (
        (seen.sum((1, 2)) * torch.arange(48)).sum(1) / seen.sum((1, 2, 3)),
        (seen.sum((1, 3)) * torch.arange(48)).sum(1) / seen.sum((1, 2, 3)),
    )
    for place in middle:
        assert (place - 24).abs().max() == pytest.approx(strong.SHIFT * 48, rel=0.1)


def test_the_pace_rises_on_a_line_and_falls_on_a_cosine():
    assert strong.lr_scale(strong.WARM_UP / 2) == pytest.approx(0.5)
    assert strong.lr_scale(strong.WARM_UP) == 1
    assert strong.lr_scale((1 + strong.WARM_UP) / 2) == pytest.approx(0.5)
    assert strong.lr_scale(1) == pytest.approx(0)


def test_nobody_is_trained_on_who_validates(dataset, monkeypatch):
    assert strong.split(dataset, 0) == (dataset, None)
    monkeypatch.setattr(strong, "SPARE", 10)
    training, validation = strong.split(dataset, 0)
    assert (len(training.names), len(validation.names)) == (8, 2)
    assert not set(training.names) & set(validation.names)


@pytest.fixture(scope="module")
def dataset(digits):
    return data.load(digits, (3, 48, 48))


def fit(dataset, config, checkpoint):
    return loop.fit(loop.first_network(config)[0], dataset, config, CPU, checkpoint, "test")


def test_learns_to_tell_digits_it_has_not_seen(tmp_path):
    pixels, identity = load_digits(return_X_y=True)
    pixels = torch.from_numpy(pixels[:400] * 15.9).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    pixels = torch.nn.functional.interpolate(pixels, size=(48, 48), mode="bilinear").byte()
    dataset = data.IdentityDataset(pixels, identity[:400], tuple("0123456789"))
    start, _ = loop.first_network(config(tmp_path))
    fitted = fit(dataset.select("0123456"), config(tmp_path), tmp_path / "checkpoint.pt")
    assert fitted.validation == []  # seven are too few to spare any

    def auc(network):
        return metrics.auc(*score_all_pairs(network, dataset.select("789"))[:2])

    assert auc(fitted.network) > max(0.85, auc(start))


def test_the_best_epoch_among_the_validation_people_is_kept(dataset, tmp_path, monkeypatch):
    """Nobody who validates is trained on, and the weights are those of the epoch with the lowest error."""
    monkeypatch.setattr(strong, "SPARE", 8)
    monkeypatch.setattr(loop, "PATIENCE", 3)
    errors = iter([0.3, 0.1, 0.2, 0.2, 0.2, 0.0])
    seen, weights = [], []

    def score(network, people):
        seen.append(people.names)
        weights.append(network.state_dict()["backbone.1.weight"].clone())
        return score_all_pairs(network, people)

    monkeypatch.setattr(loop, "score_all_pairs", score)
    monkeypatch.setattr(metrics, "eer", lambda *_: next(errors))
    drawn = []
    batches = strong.epoch_batches
    monkeypatch.setattr(
        strong, "epoch_batches", lambda identity, *rest: drawn.append(identity) or batches(identity, *rest)
    )
    fitted = fit(dataset, config(tmp_path, epochs=9), tmp_path / "checkpoint.pt")
    assert fitted.validation == [0.3, 0.1, 0.2, 0.2, 0.2]
    assert set(seen) == {strong.split(dataset, 0)[1].names}
    assert all(len(np.unique(identity)) == 8 for identity in drawn)
    assert torch.equal(fitted.network.state_dict()["backbone.1.weight"], weights[1].half().float())


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_killed_and_resumed_ends_as_if_unbroken(dataset, tmp_path, monkeypatch, epoch):
    """Wherever the run is killed: before, at, or after its best epoch, or when it has ended."""
    monkeypatch.setattr(strong, "SPARE", 8)
    monkeypatch.setattr(loop, "PATIENCE", 3)
    settings = config(tmp_path, epochs=6, flip=True, batch_size=32)
    unbroken = fit(dataset, settings, tmp_path / "unbroken.pt")
    write_atomically = loop.write_atomically

    def killed(target, write):
        write_atomically(target, write)
        if torch.load(target, weights_only=True)["epoch"] == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_atomically", killed)
    try:
        fit(dataset, settings, tmp_path / "killed.pt")
    except KeyboardInterrupt:
        monkeypatch.setattr(loop, "write_atomically", write_atomically)
    resumed = fit(dataset, settings, tmp_path / "killed.pt")
    assert (resumed.losses, resumed.validation) == (unbroken.losses, unbroken.validation)
    ours, theirs = (fitted.network.state_dict() for fitted in (resumed, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_loss_that_is_no_number_stops_with_the_step(dataset, tmp_path):
    with pytest.raises(RuntimeError, match=r"at step \d+ .* learning rate 1e\+30 is probably too high"):
        fit(dataset, config(tmp_path, epochs=3, lr=1e30), tmp_path / "checkpoint.pt")


def test_the_command_line_trains_by_it_and_the_result_is_used(digits, tmp_path, siamese):
    out = tmp_path / "run"
    run = siamese("train", "--data", digits, "--epochs", 2, "--flip", "--out", out)
    assert run.returncode == 0, run.stderr
    card = (out / "README.md").read_text()
    assert "--recipe modern --epochs 2" in card
    assert "--flip\n" in card
    run = siamese("evaluate", out, "--data", digits, "--folds", 2)
    assert run.returncode == 0, run.stderr
    same = siamese("compare", digits / "0" / "0.png", digits / "0" / "0.png", "--weights", out)
    assert "Dissimilarity: 0.000" in same.stdout


def test_a_saved_small_network_answers_the_same(tmp_path):
    network = SiameseNetwork("small", strong.EMBEDDING_DIM, mirror=True, unit=True).eval()
    network.save_pretrained(tmp_path)
    x = torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(SiameseNetwork.from_pretrained(tmp_path).embed(x), network.embed(x))


def embeddings(nuisance: float, people: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Five points each of some people, who differ in all directions, and each of whom varies most in the first."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(people), 5)
    z = rng.normal(size=(people, 16))[identity] + 0.1 * rng.normal(size=(5 * people, 16))
    z[:, 0] += nuisance * rng.normal(size=len(z))
    return torch.from_numpy(z), torch.from_numpy(identity)


@pytest.mark.parametrize("batch", [1, 3, 5, 28, 100])
def test_whitening_evens_out_what_varies_within_people(batch):
    z, identity = embeddings(3.0)
    weight, bias = strong._whitening(zip(z.split(batch), identity.split(batch), strict=True), shrinkage=0.01)
    means = np.stack([z[identity == person].mean(0) for person in range(20)])
    within = z.numpy() - means[identity]
    covariance = within.T @ within / len(z)
    covariance += 0.01 * np.trace(covariance) / 16 * np.eye(16)
    evened = weight.numpy() @ covariance @ weight.numpy().T
    np.testing.assert_allclose(evened, evened[0, 0] * np.eye(16), atol=1e-9)
    np.testing.assert_allclose(means.mean(0) @ weight.numpy().T + bias.numpy(), 0, atol=1e-9)


def test_whitening_leaves_alone_what_does_not_vary():
    """Where each person's images are one image, what is left of the covariance is rounding."""
    z, identity = torch.randn(6, 16, dtype=torch.float64).repeat_interleave(2, 0), torch.arange(6).repeat_interleave(2)
    weight, bias = strong._whitening([(z, identity)], shrinkage=0.03)
    assert torch.equal(weight, torch.eye(16, dtype=torch.float64))
    assert not bias.any()


@pytest.mark.parametrize(("nuisance", "people", "helps"), [(3.0, 20, True), (3.0, 3, False), (0.0, 20, False)])
def test_weights_are_whitened_only_where_that_helps_others(nuisance, people, helps, monkeypatch, tmp_path):
    """Where one direction misleads; not where too few people show it, nor where none does."""
    z, identity = embeddings(nuisance, people)
    network = SiameseNetwork("small", 16, unit=True, whiten=True)
    monkeypatch.setattr(SiameseNetwork, "embed", lambda network, x: z[x[:, 0, 0, 0].long()].float())
    rows = torch.arange(len(z), dtype=torch.uint8)[:, None, None, None]
    dataset = data.IdentityDataset(rows, identity.numpy(), tuple(map(str, range(people))))
    strong.fit_whitening(network, dataset, config(tmp_path, init="weights/faces"))
    assert torch.equal(network.whitening.weight, torch.eye(16)) != helps
    assert bool(network.whitening.bias.any()) == helps


def test_of_very_many_a_sample_decides_how_strongly_and_all_are_whitened(monkeypatch, tmp_path):
    z, identity = embeddings(3.0)
    network = SiameseNetwork("small", 16, unit=True, whiten=True)
    monkeypatch.setattr(SiameseNetwork, "embed", lambda network, x: z[x[:, 0, 0, 0].long()].float())
    monkeypatch.setattr(data.IdentityDataset, "sample", lambda dataset: dataset.select(dataset.names[:12]))
    asked = []
    monkeypatch.setattr(strong, "_error", lambda z, identity, shrinkage: asked.append(len(z)) or abs(shrinkage - 3))
    rows = torch.arange(len(z), dtype=torch.uint8)[:, None, None, None]
    dataset = data.IdentityDataset(rows, identity.numpy(), tuple(map(str, range(20))))
    strong.fit_whitening(network, dataset, config(tmp_path, init="weights/faces"))
    assert set(asked) == {12 * 5}
    expected, _ = strong._whitening([(z.float().double(), identity)], 3.0)
    torch.testing.assert_close(network.whitening.weight, expected.float())


def test_a_layer_that_was_there_stays_in_front(tmp_path, monkeypatch):
    """A network that was whitened before answers as before where nothing helps, and the new layer is put after it."""
    start = SiameseNetwork("small", 16, unit=True, whiten=True).eval()
    torch.nn.init.normal_(start.whitening.weight)
    torch.nn.init.normal_(start.whitening.bias)
    x = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    dataset = data.IdentityDataset(x, np.array([0, 0, 1, 1]), ("a", "b"))
    settings = config(tmp_path, init="weights/faces")
    with torch.no_grad():
        before = start.embed(x)
        strong.fit_whitening(start, dataset, settings)
        torch.testing.assert_close(start.embed(x), before)
        monkeypatch.setattr(strong, "STRENGTHS", (1.0,))
        unscaled = deepcopy(start)
        unscaled.unit = False
        z = unscaled.embed(x).double()
        weight, bias = strong._whitening([(z, torch.from_numpy(dataset.identity))], 1.0)
        strong.fit_whitening(start, dataset, settings)
        expected = torch.nn.functional.normalize(z @ weight.T + bias).float()
        torch.testing.assert_close(start.embed(x), expected, atol=1e-4, rtol=1e-3)


def test_local_contrast_agrees_with_a_loop_over_pixels():
    x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    seen = LocalContrast(9, window=5)(x)
    first = torch.empty_like(x)
    for row, column in np.ndindex(9, 9):
        window = (..., slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3))
        first[..., row, column] = x[..., row, column] - x[window].mean((1, 2, 3))[:, None]
    for row, column in np.ndindex(9, 9):
        window = (..., slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3))
        expected = first[..., row, column] / (first[window].square().mean((1, 2, 3)).sqrt() + 0.03)[:, None]
        torch.testing.assert_close(seen[..., row, column], expected)
    torch.testing.assert_close(LocalContrast(9, window=5)(x + 0.5), seen, atol=1e-4, rtol=1e-3)
