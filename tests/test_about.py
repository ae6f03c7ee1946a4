"""The About tab: text and charts."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from siamese import load
from siamese.page import about
from siamese.record import People
from siamese.summary import describe_accuracy
from siamese.wording import FACES, IMAGES

from .conftest import ROOT
from .html_checks import WellFormed


@pytest.mark.parametrize("weights", ["weights/faces", "weights/att", "weights/images"])
def test_performance_states_the_measured_accuracy(weights):
    model = load(weights)
    record = model.record
    performance = about.performance(model, FACES if model.align == "faces" else IMAGES)
    assert (f"{record.lfw.accuracy:.1%}" if record.lfw else describe_accuracy(record)) in performance
    report = record.folds.pooled if record.folds else record.test
    assert f"by {report.calibration_error:.1%} on average" in performance
    for point in model.calibration.operating_points:
        assert f"| {model.calibration.distance_at(point.score):.2f} | {point.fnmr:.1%} |" in performance


def test_performance_begins_with_the_rates_of_difficult_pairs_if_they_were_measured(model):
    performance, sentences = about.performance(model, FACES), about.difficult_pairs(model.record)
    assert len(sentences) == 3
    for sentence, rate in zip(sentences, vars(model.record.difficult_pairs).values(), strict=True):
        assert f"{rate:.0%}" in sentence
        assert sentence in performance
        assert performance.index(sentence) < performance.index(f"{model.record.lfw.accuracy:.1%}")
    assert about.difficult_pairs(replace(model.record, difficult_pairs=None)) == []


def test_background_quotes_the_model_card_of_converted_weights(model):
    background = about.background(model, FACES)
    assert "MS-Celeb-1M" in background
    assert all(
        target.startswith("https://") or target.startswith("http://")
        for target in re.findall(r"\]\((.*?)\)", background)
    )


@pytest.mark.parametrize(("weights", "count"), [("faces", 1), ("att", 2), ("images", 2)])
def test_plots_of_the_result_folder_are_shown(weights, count, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the weights that come with the package are found in any directory
    model = load(f"weights/{weights}")
    drawn = about.plots(model, FACES)
    WellFormed(drawn)
    assert drawn.count("<img") == count
    model.name = str(tmp_path)
    assert "<img" not in about.plots(model, FACES)


def test_links_and_huge_files_of_a_result_folder_are_not_served(model, tmp_path):
    folder, secret = tmp_path / "copy", tmp_path / "secret.png"
    shutil.copytree(ROOT / "weights" / "faces", folder)
    secret.write_bytes((folder / "roc.png").read_bytes())
    copy = load(folder, device="cpu")
    assert (about.plot_files(copy), about.model_card(copy)) == ([folder / "roc.png"], folder / "README.md")
    (folder / "roc.png").unlink()
    (folder / "roc.png").symlink_to(secret)
    with (folder / "README.md").open("wb") as sparse:
        sparse.truncate(8_000_000_000)
    assert (about.plot_files(copy), about.model_card(copy)) == ([], None)
    assert "## Training data" not in about.background(copy, FACES)


def test_tutorial_network_travels_with_the_embeddings_of_its_people(att):
    from siamese.evaluation.pairs import embed, measure_plane

    model = load("weights/att", device="cpu")
    training, test = (embed(model.network, people) for people in att.split())
    names = People(list(training.dataset.names), list(test.dataset.names))
    measured = measure_plane(training, test, names)
    saved = model.record.plane
    assert {person for person, *_ in saved.training} == set(range(37))
    for new, old in ((measured.training, saved.training), (measured.test, saved.test)):
        assert np.allclose(new, old, atol=2e-3)
