"""The About tab: text, charts, and the map of the tutorial network."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from siamese import load
from siamese.page import charts, plane, text
from siamese.page.reliability import MIN_PAIRS, Bin, Estimate, estimates, merge, wilson
from siamese.record import Curves, Plane
from siamese.wording import FACES, IMAGES

from .html_checks import WellFormed


@pytest.mark.parametrize("weights", ["weights/faces", "weights/att"])
def test_performance_states_the_measured_accuracy(weights):
    model = load(weights)
    record = model.record
    performance = text.performance(model, FACES if model.align == "faces" else IMAGES)
    accuracy = record.lfw.accuracy if record.lfw else record.folds.pooled.auc
    assert f"{accuracy:.1%}" in performance
    for point in model.calibration.operating_points:
        assert f"| {point.distance:.2f} | {point.fnmr:.1%} |" in performance


def test_performance_begins_with_the_rates_of_difficult_pairs_if_they_were_measured(model):
    performance, sentences = text.performance(model, FACES), text.difficult_pairs(model.record)
    assert len(sentences) == 3
    for sentence, rate in zip(sentences, vars(model.record.difficult_pairs).values(), strict=True):
        assert f"{rate:.0%}" in sentence
        assert sentence in performance
        assert performance.index(sentence) < performance.index(f"{model.record.lfw.accuracy:.1%}")
    assert text.difficult_pairs(replace(model.record, difficult_pairs=None)) == []


def test_background_quotes_the_model_card_of_converted_weights(model):
    background = text.background(model, FACES)
    assert "MS-Celeb-1M" in background
    assert all(
        target.startswith("https://") or target.startswith("http://")
        for target in re.findall(r"\]\((.*?)\)", background)
    )


def test_charts(model, pairs):
    drawn = charts.charts(pairs, estimates(model.record), FACES)
    WellFormed(drawn)
    assert drawn.count("<circle") == len(estimates(model.record))
    few = Curves(width=0.1, genuine=[2, 0, 0], impostor=[0, 1, 3], reliability=[(1.0, 0.5, 0.5)])
    WellFormed(charts.charts(charts.PairDistances(few), [Estimate(0.5, 0.5, 0.1, 0.9, 6)], IMAGES))


@pytest.mark.parametrize("weights", ["weights/faces", "weights/att"])
def test_reliability_keeps_all_pairs_and_holds_the_observed_share(weights):
    record = load(weights).record
    dots = estimates(record)
    assert sum(dot.pairs for dot in dots) == record.test.genuine + record.test.impostor
    for dot in dots:
        assert dot.pairs >= MIN_PAIRS
        assert 0 <= dot.low <= dot.observed <= dot.high <= 1
    assert [dot.predicted for dot in dots] == sorted(dot.predicted for dot in dots)


def test_small_bins_are_merged_with_the_smaller_neighbour():
    counts = [500, 40, 12, 31, 900]
    merged = merge([Bin(0.1 * number, 1.0, count, 0) for number, count in enumerate(counts)])
    assert [each.pairs for each in merged] == [500, 40, 43, 900]
    assert merged[2] == Bin(0.2 + 0.1 * 3, 2.0, 43, 0)
    assert [each.pairs for each in merge([Bin(0.1, 1.0, 2, 1), Bin(0.9, 1.0, 1, 2)])] == [6]


def test_wilson_interval():
    """Compared with the published example of 8 in 10, and with the formulas for none and all of n."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 1.96**2 / (20 + 1.96**2)))
    assert wilson(20, 20) == pytest.approx((20 / (20 + 1.96**2), 1))


def test_reliability_is_as_if_there_were_as_many_genuine_as_impostor_pairs(model):
    """With ten times as many impostor pairs, a bin of 30 genuine and 300 impostor pairs is half genuine."""
    test = replace(model.record.test, genuine=60, impostor=600)
    curves = replace(model.record.curves, reliability=[(0.5, 0.4, 0.5), (0.5, 0.6, 0.5)])
    dots = estimates(replace(model.record, test=test, curves=curves))
    assert [(dot.observed, dot.pairs) for dot in dots] == [(pytest.approx(0.5), 330)] * 2


# --- the map


CIRCLE = re.compile(r'<circle cx="([-\d.]+)" cy="([-\d.]+)" r="\d" fill="(#\w{6})"/>')
FEW = Plane(training=[(0, 0.0, 0.0), (0, 1.0, 0.0), (1, 4.0, 3.0)], test=[(0, 2.0, 2.0)])


def draw(embeddings):
    return plane.draw(FEW, [Image.new("L", (100, 100))] * 2, np.array(embeddings))


def test_map_shows_each_person_in_one_colour_and_keeps_distances():
    drawn = draw([[0.0, 3.0], [4.0, 0.0]])
    WellFormed(drawn)
    dots = [(float(x), float(y), colour) for x, y, colour in CIRCLE.findall(drawn)]
    assert [colour for *_, colour in dots] == [plane.colour(person) for person in (0, 0, 1, 0)]
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
        assert left < x < left + width - plane.TILE
        assert top < y < top + height - plane.TILE
    assert max(abs(a - b) for a, b in zip(*tiles, strict=True)) >= plane.TILE


def test_people_with_close_numbers_have_different_colours():
    colours = [plane.colour(person) for person in range(40)]
    assert len(set(colours)) == 40
    for first, second in itertools.pairwise(colours):
        channels = [[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in (first, second)]
        assert np.abs(np.subtract(*channels)).max() > 80


def test_tutorial_network_travels_with_the_embeddings_of_its_people(att):
    from siamese.evaluation.pairs import measure_plane

    model = load("weights/att", device="cpu")
    measured = measure_plane(model.network, *att.split())
    saved = model.record.plane
    assert {person for person, *_ in saved.training} == set(range(37))
    for new, old in ((measured.training, saved.training), (measured.test, saved.test)):
        assert np.allclose(new, old, atol=2e-3)
