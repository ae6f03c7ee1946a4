"""The modern recipe: batches, augmentation, learning rate, whitening, and what it learns."""

import json
import math
import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from siamese import SiameseNetwork, cli, load
from siamese.data.dataset import IdentityDataset, load_dataset
from siamese.data.pairs import all_pairs
from siamese.evaluation import metrics
from siamese.evaluation.pairs import score_all_pairs
from siamese.files import write_atomically
from siamese.record import Record, Settings, Source
from siamese.training import recipes, trainer, whitening
from siamese.training.config import TrainConfig
from siamese.training.recipes import EMBEDDING_DIM, IMAGES_PER_PERSON, TURNS, WARM_UP, Augmentation, ModernRecipe
from siamese.training.start import decide, initial_network
from siamese.training.trainer import Job, Trainer
from siamese.training.whitening import fit_whitening, whitening_layer

CPU = torch.device("cpu")
SETTINGS = Settings("modern", epochs=8, batch_size=32, lr=2e-3, margin=1.3, seed=0)
RECIPE = ModernRecipe(SETTINGS)
COMMAND = ("--recipe", "modern", "--epochs", "4", "--flip", "--folds", "2", "--tensorboard")


@pytest.fixture(scope="module")
def dataset(digits):
    return load_dataset(digits, (3, 48, 48), progress=False)


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    """The result folder of an uninterrupted run with validation people."""
    out = tmp_path_factory.mktemp("modern") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "MIN_PEOPLE_TO_VALIDATE", 8)
        assert cli.main(["train", "--data", str(digits), "--out", str(out), *COMMAND]) == 0
    return out


def record_of(folder) -> Record:
    return Record.from_json((folder / "metrics.json").read_bytes())


def job_of(config: TrainConfig) -> Job:
    settings, source = decide(config)
    return Job(initial_network(settings, source), settings, CPU, config.out)


def logged(folder) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return what TensorBoard shows: (step, value) of each metric of each run."""
    shown = {}
    for run in sorted(folder.iterdir()):
        events = EventAccumulator(str(run)).Reload()
        tags = events.Tags()["scalars"]
        shown[run.name] = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    return shown


# --- batches


@settings(deadline=None)
@given(st.lists(st.integers(1, 11), min_size=2, max_size=9), st.integers(8, 70), st.randoms())
def test_epoch_has_each_image_in_groups_of_one_person(sizes, batch_size, random):
    identity = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(identity)
    recipe = ModernRecipe(replace(SETTINGS, batch_size=batch_size))
    batches = recipe.epoch_batches(identity, 0)
    assert len(batches) == len(recipe.epoch_batches(identity, 1))
    rows = np.concatenate([rows for rows, _ in batches])
    assert set(rows.tolist()) == set(range(len(identity)))
    times = np.bincount(rows, minlength=len(identity))
    for person, size in enumerate(sizes):
        assert times[identity == person].sum() == -(-size // IMAGES_PER_PERSON) * IMAGES_PER_PERSON
        assert np.ptp(times[identity == person]) <= 1
    for rows, people in batches:
        assert np.array_equal(people, identity[rows])
        assert len(rows) <= max(batch_size, IMAGES_PER_PERSON)
        assert all(len(set(group)) == 1 for group in people.reshape(-1, IMAGES_PER_PERSON).tolist())


def test_batches_have_many_people_and_depend_on_the_epoch():
    even = np.repeat(np.arange(8), 12)
    batches, again, other = (RECIPE.epoch_batches(even, epoch) for epoch in (0, 0, 1))
    assert [len(np.unique(people)) for _, people in batches] == [8, 8, 8]
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(batches, again, strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(batches, other, strict=True))
    # One person has as many images as a hundred others.
    uneven = np.concatenate([np.zeros(400, int), np.repeat(np.arange(1, 101), 4)])
    recipe = ModernRecipe(replace(SETTINGS, batch_size=64))
    assert min(len(np.unique(people)) for _, people in recipe.epoch_batches(uneven, 0)) > 4


def test_validation_people_are_not_trained_on(dataset, monkeypatch):
    assert RECIPE.split(dataset) == (dataset, None)
    monkeypatch.setattr(recipes, "MIN_PEOPLE_TO_VALIDATE", 10)
    training, validation = RECIPE.split(dataset)
    assert (len(training.names), len(validation.names)) == (8, 2)
    assert not set(training.names) & set(validation.names)


# --- augmentation and learning rate


def augment(x, seed=0):
    draws = torch.rand(RECIPE.draws, len(x), generator=torch.Generator().manual_seed(seed))
    return RECIPE.augment(x, draws, torch.zeros(len(x)))


def test_each_image_is_augmented_differently_and_a_little():
    x = torch.randint(256, (1, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x = F.interpolate(x.float(), size=(48, 48), mode="bicubic").clamp(0, 255).byte().repeat(16, 1, 1, 1)
    augmented = augment(x)
    assert (augmented.shape, augmented.dtype) == (x.shape, torch.float32)
    assert len({image.numpy().tobytes() for image in augmented}) == 16
    assert torch.equal(augmented, augment(x))
    assert not torch.equal(augmented, augment(x, seed=1))
    difference = (augmented - x / 255).abs().mean((1, 2, 3))
    assert ((difference > 0) & (difference < 0.3)).all()
    assert augment(x[:0]).shape == (0, 3, 48, 48)


def test_draws_of_one_half_change_nothing_and_flip_mirrors_half_of_the_images():
    x = torch.randint(256, (32, 3, 48, 48), dtype=torch.uint8)
    draws = torch.full((RECIPE.draws, 32), 0.5)
    identity = torch.zeros(32)
    torch.testing.assert_close(RECIPE.augment(x, draws, identity), x / 255, atol=1e-4, rtol=0)
    draws[0, 1::2] = 0.9
    augmented = ModernRecipe(replace(SETTINGS, flip=True)).augment(x, draws, identity)
    torch.testing.assert_close(augmented[::2], x[::2] / 255, atol=1e-4, rtol=0)
    torch.testing.assert_close(augmented[1::2], x[1::2].flip(3) / 255, atol=1e-4, rtol=0)


def test_turned_images_are_further_classes():
    recipe, identity = ModernRecipe(replace(SETTINGS, turned=True)), np.repeat(np.arange(3), 8)
    batches = recipe.epoch_batches(identity, 0)
    rows, turned = (np.concatenate(column) for column in zip(*batches, strict=True))
    assert np.array_equal(turned // TURNS, identity[rows])
    assert (np.bincount(rows) == TURNS).all()
    x = torch.randint(256, (TURNS, 3, 48, 48), dtype=torch.uint8)
    augmented = recipe.augment(x, torch.full((recipe.draws, TURNS), 0.5), torch.arange(TURNS))
    for turn in range(TURNS):
        torch.testing.assert_close(augmented[turn], (x[turn] / 255).rot90(turn, (1, 2)), atol=1e-4, rtol=0)
    assert type(recipe.network().backbone) is not type(RECIPE.network().backbone)


def test_photos_change_their_shape_and_color():
    recipe = ModernRecipe(replace(SETTINGS, init="weights/images"))
    x = torch.full((16, 3, 32, 32), 127, dtype=torch.uint8)
    augmented = recipe.augment(x, torch.rand(recipe.draws, 16), torch.zeros(16))
    assert augmented.mean((2, 3)).std(1).min() > 0  # no longer gray


def test_largest_shift_is_a_share_of_the_width(monkeypatch):
    shift = recipes.ALIGNED.shift
    monkeypatch.setattr(recipes, "ALIGNED", Augmentation(0, 0, shift, 0, 0))
    x = torch.zeros(200, 1, 48, 48, dtype=torch.uint8)
    x[:, :, 24, 24] = 255
    result = augment(x)
    for axes in ((1, 2), (1, 3)):
        middle = (result.sum(axes) * torch.arange(48)).sum(1) / result.sum((1, 2, 3))
        assert (middle - 24).abs().max() == pytest.approx(shift * 48, rel=0.1)


def test_learning_rate_rises_linearly_and_falls_on_a_cosine():
    assert RECIPE.lr_scale(WARM_UP / 2) == pytest.approx(0.5)
    assert RECIPE.lr_scale(WARM_UP) == 1
    assert RECIPE.lr_scale((1 + WARM_UP) / 2) == pytest.approx(0.5)
    assert RECIPE.lr_scale(1) == pytest.approx(0)


# --- training


def test_training_separates_unseen_digits(finished):
    record = record_of(finished)
    assert min(record.test.auc, record.folds.pooled.auc) > 0.8


@pytest.mark.slow
def test_training_without_validation_separates_unseen_digits(tmp_path):
    pixels, identity = load_digits(return_X_y=True)
    pixels = torch.from_numpy(pixels[:400] * 15.9).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    pixels = F.interpolate(pixels, size=(48, 48), mode="bilinear").byte()
    dataset = IdentityDataset(pixels, identity[:400], tuple("0123456789"))
    job = job_of(TrainConfig("digits", tmp_path, recipe="modern", flip=True, epochs=6))
    network, final = Trainer(job, dataset.select("0123456"), "test").train()
    assert final.validation_eer == []  # seven people are too few to validate

    def auc(network):
        scored = score_all_pairs(network, dataset.select("789"))
        return metrics.auc(scored.distance, scored.same)

    assert auc(network) > max(0.85, auc(job.start))


def test_best_epoch_on_the_validation_people_is_kept(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "MIN_PEOPLE_TO_VALIDATE", 8)
    monkeypatch.setattr(trainer, "PATIENCE", 3)
    errors = iter([0.3, 0.1, 0.2, 0.2, 0.2, 0.0])
    validated, weights, trained = [], [], []
    epoch_batches = ModernRecipe.epoch_batches

    def spy_score(network, people):
        validated.append(people.names)
        weights.append(network.state_dict()["backbone.1.weight"].clone())
        return score_all_pairs(network, people)

    def spy_batches(recipe, identity, *arguments):
        trained.append(identity)
        return epoch_batches(recipe, identity, *arguments)

    monkeypatch.setattr(trainer, "score_all_pairs", spy_score)
    monkeypatch.setattr(metrics, "eer", lambda *_: next(errors))
    monkeypatch.setattr(ModernRecipe, "epoch_batches", spy_batches)
    job = job_of(TrainConfig("digits", tmp_path, recipe="modern", flip=True, epochs=9))
    network, final = Trainer(job, dataset, "test").train()
    assert final.validation_eer == [0.3, 0.1, 0.2, 0.2, 0.2]
    assert set(validated) == {RECIPE.split(dataset)[1].names}
    assert all(len(np.unique(identity)) == 8 for identity in trained)
    assert torch.equal(network.state_dict()["backbone.1.weight"], weights[1].half().float())


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(digits, finished, tmp_path, monkeypatch, siamese):
    """It is interrupted when the third epoch is logged but not saved, and in the first fold."""
    monkeypatch.setattr(recipes, "MIN_PEOPLE_TO_VALIDATE", 8)
    out = tmp_path / "run"
    command = ("train", "--data", digits, "--out", out, *COMMAND)
    for name, last, more in (("training.pt", 2, ()), ("fold-1-of-2.pt", 1, ("--resume",))):

        def write(target, write, name=name, last=last):
            saved = target.name == name and target.exists() and torch.load(target, weights_only=True)
            if saved and saved["state"]["epoch"] == last:
                raise KeyboardInterrupt
            write_atomically(target, write)

        monkeypatch.setattr(trainer, "write_atomically", write)
        assert siamese(*command, *more).returncode == 130
    monkeypatch.setattr(trainer, "write_atomically", write_atomically)
    resumed = siamese(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    ours, expected = record_of(out), record_of(finished)
    for name in ("loss", "validation_eer", "test", "people", "settings", "folds", "test_calibration"):
        assert getattr(ours, name) == getattr(expected, name), name

    shown = logged(out / "tensorboard")
    assert list(shown) == ["fold 1 of 2", "fold 2 of 2", "training"]
    for title, numbers in shown.items():
        # The five people of a fold are too few to validate.
        validated = {"validation_eer"} if title == "training" else set()
        assert numbers.keys() == {"loss", "learning_rate", "images_per_second"} | validated
        assert all([step for step, _ in points] == [1, 2, 3, 4] for points in numbers.values())
        assert all(rate > 0 for _, rate in numbers["images_per_second"])
        assert numbers["learning_rate"][-1] == (4, pytest.approx(0, abs=1e-9))
    assert [error for _, error in shown["training"]["validation_eer"]] == pytest.approx(ours.validation_eer)
    # An epoch has one batch, so the first loss that is kept is that of the first epoch.
    assert shown["training"]["loss"][0][1] == pytest.approx(ours.loss.values[0])


def test_result_can_be_used_trained_further_and_replaced(digits, finished, tmp_path, siamese):
    photo = digits / "0" / "0.png"
    assert "Dissimilarity: 0.000" in siamese("compare", photo, photo, "--weights", finished).stdout

    start, out = shutil.copytree(finished, tmp_path / "start"), tmp_path / "run"
    (start / "LICENSE").write_text("Do as you like.")
    origin = Source("package", "file", "0", license="mit")
    (start / "metrics.json").write_text(replace(record_of(start), source=origin).to_json())
    trained = siamese("train", "--data", digits, "--init", start, "--epochs", 3, "--tensorboard", "--out", out)
    assert trained.returncode == 0, trained.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (finished, out))
    assert before.keys() == after.keys()
    layers = [name for name in before if name.startswith("backbone") and before[name].dim() > 1]
    assert len(layers) == 4
    assert not any(torch.equal(before[name], after[name]) for name in layers)
    record = record_of(out)
    assert (record.settings.lr, record.settings.margin, record.source) == (1e-5, 0.6, origin)
    assert (out / "LICENSE").read_text() == "Do as you like."
    card = (out / "README.md").read_text()
    assert ("license: mit" in card, str(tmp_path) in card) == (True, False)
    assert set(record.people.pretraining) == set(record_of(finished).people.training)

    # A new run deletes the log of the previous one, and no other files.
    notes = out / "tensorboard" / "notes" / "thesis.txt"
    notes.parent.mkdir()
    notes.write_text("a year of work")
    assert siamese("train", "--data", digits, "--epochs", 1, "--overwrite", "--out", out).returncode == 0
    assert not (out / "LICENSE").exists()
    assert [file for file in (out / "tensorboard").rglob("*") if file.is_file()] == [notes]


@pytest.mark.parametrize("helps", [False, True])
def test_weights_that_stay_as_they_were_keep_their_rates(helps, digits, finished, tmp_path, monkeypatch, siamese):
    start, out = shutil.copytree(finished, tmp_path / "start"), tmp_path / "run"
    config = json.loads((start / "config.json").read_text())
    points = [{"fmr": 10.0**-k, "score": float(k), "fnmr": 0.1 * k} for k in (2, 3, 4)]
    config["calibration"] |= {"operating_points": points}
    (start / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(whitening, "choose_shrinkage", lambda *_: 1.0 if helps else math.inf)
    assert siamese("train", "--data", digits, "--init", start, "--out", out).returncode == 0
    before, after = load(start), load(out)
    assert after.record.unchanged != helps
    assert (after.calibration == before.calibration) != helps
    test, first = after.record.test, after.record.before
    assert helps or test.balanced_accuracy == pytest.approx(first.balanced_accuracy, abs=0.01)  # rounded differently
    assert (test.balanced_accuracy is None) == helps  # of two held-out classes
    assert [len(model.calibration.operating_points) == 3 for model in (before, after)] == [True, not helps]


# --- whitening


def embeddings(nuisance: float, people: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Return five embeddings of each person, with most variance within people in the first direction."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(people), 5)
    z = rng.normal(size=(people, 16))[identity] + 0.1 * rng.normal(size=(5 * people, 16))
    z[:, 0] += nuisance * rng.normal(size=len(z))
    return torch.from_numpy(z), torch.from_numpy(identity)


@pytest.fixture
def embedded(monkeypatch):
    """Build a dataset with given embeddings, and a network that returns them."""

    def build(z: torch.Tensor, identity: torch.Tensor) -> tuple[SiameseNetwork, IdentityDataset]:
        monkeypatch.setattr(SiameseNetwork, "features", lambda network, x: z[x[:, 0, 0, 0].long()].float())
        rows = torch.arange(len(z), dtype=torch.uint8)[:, None, None, None]
        names = tuple(map(str, range(int(identity.max()) + 1)))
        return SiameseNetwork("small", 16, unit=True, whiten=True), IdentityDataset(rows, identity.numpy(), names)

    return build


@pytest.mark.parametrize("batch", [1, 28, 100])
def test_whitening_equalises_the_variance_within_people(batch):
    z, identity = embeddings(3.0)
    weight, bias = whitening_layer(zip(z.split(batch), identity.split(batch), strict=True), shrinkage=0.01)
    means = np.stack([z[identity == person].mean(0) for person in range(20)])
    within = z.numpy() - means[identity]
    covariance = within.T @ within / len(z)
    covariance += 0.01 * np.trace(covariance) / 16 * np.eye(16)
    whitened = weight.numpy() @ covariance @ weight.numpy().T
    np.testing.assert_allclose(whitened, whitened[0, 0] * np.eye(16), atol=1e-9)
    np.testing.assert_allclose(means.mean(0) @ weight.numpy().T + bias.numpy(), 0, atol=1e-9)


def test_whitening_of_equal_images_is_the_identity():
    z, identity = torch.randn(6, 16, dtype=torch.float64).repeat_interleave(2, 0), torch.arange(6).repeat_interleave(2)
    weight, bias = whitening_layer([(z, identity)], shrinkage=0.03)
    assert torch.equal(weight, torch.eye(16, dtype=torch.float64))
    assert not bias.any()


@pytest.mark.parametrize(("nuisance", "people", "helps"), [(3.0, 20, True), (3.0, 3, False), (0.0, 20, False)])
def test_pretrained_network_is_whitened_only_if_that_helps_other_people(nuisance, people, helps, embedded):
    network, dataset = embedded(*embeddings(nuisance, people))
    ModernRecipe(replace(SETTINGS, init="weights/faces")).finish(network, dataset)
    assert torch.equal(network.whitening.weight, torch.eye(16)) != helps
    assert bool(network.whitening.bias.any()) == helps


def test_large_dataset_chooses_the_shrinkage_on_a_sample(embedded, monkeypatch):
    z, identity = embeddings(3.0)
    network, dataset = embedded(z, identity)
    sizes = []

    def errors(z, identity, shrinkages, folds):
        sizes.append(len(z))
        return np.tile([abs(shrinkage - 3) for shrinkage in shrinkages], (folds, 1))

    monkeypatch.setattr(IdentityDataset, "subsample", lambda dataset: dataset.select(dataset.names[:12]))
    monkeypatch.setattr(whitening, "fold_errors", errors)
    fit_whitening(network, dataset, (1.0, 3.0))
    assert set(sizes) == {12 * 5}
    expected, _ = whitening_layer([(z.float().double(), identity)], 3.0)
    torch.testing.assert_close(network.whitening.weight, expected.float())


def test_errors_of_the_folds_are_of_layers_that_were_fitted_to_the_others():
    z, identity = embeddings(10.0, 7)
    expected = np.empty((3, 2))
    for fold, column in np.ndindex(3, 2):
        test = identity % 3 == fold
        weight, bias = whitening_layer([(z[~test], identity[~test])], (math.inf, 1.0)[column])
        whitened = F.normalize(z[test] @ weight.T + bias)
        first, second, same = all_pairs(identity[test].numpy())
        expected[fold, column] = metrics.eer((whitened[first] - whitened[second]).norm(dim=1).numpy(), same)
    assert expected[:, 0].mean() > expected[:, 1].mean()
    np.testing.assert_allclose(whitening.fold_errors(z, identity, (math.inf, 1.0), 3), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("gains", "chosen"),
    [
        ([0.02, 0.02, 0.02, 0.02, 0.02], 1.0),
        ([0.03, 0.02, 0.01, 0.02, 0.02], 1.0),
        ([0.05, 0.0, 0.0, 0.04, 0.0], math.inf),  # in two folds of five: chance
        ([0.0] * 5, math.inf),
        ([-0.02] * 5, math.inf),
    ],
)
def test_layer_is_fitted_only_if_it_helps_by_more_than_chance(gains, chosen, monkeypatch):
    errors = 0.1 - np.outer(gains, [0, 0.5, 1])
    monkeypatch.setattr(whitening, "fold_errors", lambda z, identity, shrinkages, folds: errors)
    z, identity = embeddings(0.0)
    assert whitening.choose_shrinkage(z, identity, (math.inf, 3.0, 1.0)) == chosen


def test_earlier_whitening_layer_is_applied_first():
    network = SiameseNetwork("small", 16, unit=True, whiten=True).eval()
    torch.nn.init.normal_(network.whitening.weight)
    torch.nn.init.normal_(network.whitening.bias)
    x = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    dataset = IdentityDataset(x, np.array([0, 0, 1, 1]), ("a", "b"))
    with torch.no_grad():
        before = network.embed(x)
        fit_whitening(network, dataset, (float("inf"),))
        torch.testing.assert_close(network.embed(x), before)
        plain = deepcopy(network)
        plain.unit = False
        z = plain.embed(x).double()
        weight, bias = whitening_layer([(z, torch.from_numpy(dataset.identity))], 1.0)
        fit_whitening(network, dataset, (1.0,))
        torch.testing.assert_close(network.embed(x), F.normalize(z @ weight.T + bias).float(), atol=1e-4, rtol=1e-3)


def test_saved_small_network_has_equal_embeddings(tmp_path):
    network = SiameseNetwork("small", EMBEDDING_DIM, mirror=True, unit=True).eval()
    network.save_pretrained(tmp_path)
    x = torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(SiameseNetwork.from_pretrained(tmp_path).embed(x), network.embed(x))
