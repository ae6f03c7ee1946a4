"""HTML, charts and text of the page."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from siamese import load
from siamese.page import charts, html, text
from siamese.record import Curves
from siamese.search.group import group

from .conftest import EXAMPLES

PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
FACES, IMAGES = text.FACES, text.IMAGES


@pytest.fixture(scope="module")
def model():
    return load()


@pytest.fixture(scope="module")
def answer(model):
    return model.compare(*PAIR)


@pytest.fixture(scope="module")
def pairs(model):
    return charts.PairDistances(model.record.curves)


class WellFormed(HTMLParser):
    """Asserts that every open element is closed, and collects the text."""

    def __init__(self, source: str):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "input", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_data(self, data):
        self.texts.append(data)


def test_file_names_are_escaped(model):
    name = '<img src=x onerror="alert(1)">.jpg'
    found = group(model, [(name, PAIR[0]), (name, Image.new("RGB", (300, 300)))])
    drawn = html.people(found, model.calibration.threshold, FACES)
    WellFormed(drawn)
    assert "<img src=x" not in drawn
    assert "<script" not in html.message("<script>")


def test_histograms_give_the_measured_error_rates(model, pairs):
    """At each operating point, up to the width of a bin."""
    for point in model.calibration.operating_points:
        low, high = point.distance - pairs.edges[1], point.distance + pairs.edges[1]
        assert pairs.fmr_at(low) <= point.fmr <= pairs.fmr_at(high)
        assert 1 - pairs.tmr_at(high) <= point.fnmr <= 1 - pairs.tmr_at(low)
    assert pairs.tmr_at(0) == 0
    assert pairs.fmr_at(pairs.edges[-1]) == 1


def test_shares_in_words():
    assert charts.share(0, 1000) == "none is"
    assert charts.share(0.12, 1000) == "12% are"
    assert charts.share(1 / 3123, 10**6) == "1 in 3,100 is"
    assert charts.share(0.999, 10**6) == "nearly all are"
    assert charts.share(1.0, 10**6) == "all are"


def test_charts_and_scale(model, pairs):
    WellFormed(charts.charts(pairs, FACES))
    few = Curves(width=0.1, genuine=[2, 0, 0], impostor=[0, 1, 3], reliability=[(1.0, 0.5, 0.5)])
    WellFormed(charts.charts(charts.PairDistances(few), IMAGES))
    for distance in (0.0, 0.4, 9.0):
        drawn = charts.scale(pairs, distance, model.calibration.threshold, FACES)
        WellFormed(drawn)
        (here,) = re.findall(r'class="here" style="left: ([\d.]+)%', drawn)
        assert 0 <= float(here) <= 100


def test_matrix_is_dark_for_similar_faces(model):
    found = group(model, [(file.name, file) for file in (*PAIR, PAIR[0])])
    picture = html.matrix(found, [0, 1, 2], model.calibration.threshold)
    side = picture.width // 4
    sums = [[sum(picture.getpixel((side * (x + 1) + 3, side * (y + 1) + 3))) for x in range(3)] for y in range(3)]
    assert sums[0][0] == sums[0][2] < sums[0][1] == sums[1][0]


@pytest.mark.parametrize("weights", ["weights/faces", "weights/att"])
def test_about_states_the_measured_accuracy(weights):
    model = load(weights)
    record = model.record
    about = text.about(model, FACES if model.align == "faces" else IMAGES)
    accuracy = record.lfw.accuracy if record.lfw else record.folds.pooled.auc
    assert f"{accuracy:.1%}" in about
    for point in model.calibration.operating_points:
        assert f"| {point.distance:.2f} | {point.fnmr:.1%} |" in about


def test_about_states_the_rates_of_difficult_pairs_if_they_were_measured(model):
    about, sentences = text.about(model, FACES), text.difficult_pairs(model.record)
    assert len(sentences) == 3
    for sentence, rate in zip(sentences, vars(model.record.difficult_pairs).values(), strict=True):
        assert f"{rate:.0%}" in sentence
        assert sentence in about
    assert text.difficult_pairs(replace(model.record, difficult_pairs=None)) == []


@pytest.mark.parametrize(("weights", "origin"), [("faces", "MS-Celeb-1M"), ("dlib", "Davis King")])
def test_about_quotes_the_model_card_of_converted_weights(weights, origin):
    assert origin in text.about(load(f"weights/{weights}"), FACES)
