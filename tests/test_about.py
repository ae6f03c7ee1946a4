"""The About tab: text, charts, and the map of the tutorial network."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from siamese import load
from siamese.page import about
from siamese.record import People, Plane
from siamese.summary import describe_accuracy
from siamese.wording import FACES, IMAGES

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


# --- the map


CIRCLE = re.compile(r'<circle cx="([-\d.]+)" cy="([-\d.]+)" r="\d" fill="(#\w{6})"/>')
FEW = Plane(training=[(0, 0.0, 0.0), (0, 1.0, 0.0), (1, 4.0, 3.0)], test=[(0, 2.0, 2.0)])


def draw(embeddings):
    return about.draw_map(FEW, [Image.new("L", (100, 100))] * 2, np.array(embeddings))


def test_map_shows_each_person_in_one_color_and_keeps_distances():
    drawn = draw([[0.0, 3.0], [4.0, 0.0]])
    WellFormed(drawn)
    dots = [(float(x), float(y), color) for x, y, color in CIRCLE.findall(drawn)]
    assert [color for *_, color in dots] == [about.person_color(person) for person in (0, 0, 1, 0)]
    (ax, ay, _), (bx, by, _), (cx, cy, _), _ = dots
    unit = bx - ax
    assert (ay, cx - ax, ay - cy) == (by, pytest.approx(4 * unit, abs=0.1), pytest.approx(3 * unit, abs=0.1))
    assert WellFormed(drawn).texts[-2] == "5.00"


@pytest.mark.parametrize("embeddings", [[[0, 0], [0, 0]], [[1, 1], [1, 1.1]], [[-20, 0], [30, 8]], [[2, 9], [1, -9]]])
def test_faces_on_the_map_are_inside_the_picture_and_apart(embeddings):
    drawn = draw(embeddings)
    left, top, width, height = map(
        float, re.search(r'viewBox="([-\d.]+) ([-\d.]+) ([-\d.]+) ([-\d.]+)"', drawn).groups()
    )
    tiles = [tuple(map(float, place)) for place in re.findall(r'<rect class="tile" x="([-\d.]+)" y="([-\d.]+)"', drawn)]
    assert len(tiles) == 2
    for x, y in tiles:
        assert left < x < left + width - about.TILE
        assert top < y < top + height - about.TILE
    assert max(abs(a - b) for a, b in zip(*tiles, strict=True)) >= about.TILE


def test_people_with_close_numbers_have_different_colors():
    colors = [about.person_color(person) for person in range(40)]
    assert len(set(colors)) == 40
    for first, second in itertools.pairwise(colors):
        channels = [[int(color[place : place + 2], 16) for place in (1, 3, 5)] for color in (first, second)]
        assert np.abs(np.subtract(*channels)).max() > 80


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
