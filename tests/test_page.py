import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from siamese import load
from siamese.images import read_at_least
from siamese.page import charts
from siamese.page import html as views
from siamese.search import group

from .conftest import EXAMPLES

PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"


@pytest.fixture(scope="module")
def model():
    return load()


@pytest.fixture(scope="module")
def spread(model):
    return charts.Spread(model.record["curves"])


class Whole(HTMLParser):
    """Asserts that every element which is opened is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(text)
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


def test_an_answer_is_whole_and_tells_its_numbers(model, spread):
    answer = model.compare(*PAIR)
    photos = [read_at_least(file, 640) for file in PAIR]
    maps = [np.linspace(-1, 1, 150 * 150).reshape(150, 150)] * 2
    text = " ".join(Whole(views.card(answer, spread, None, True) + views.seen(answer, photos, maps)).texts)
    for number in (f"{answer.dissimilarity:.2f}", f"even odds {answer.threshold:.2f}", "Very likely different people"):
        assert number in text


def test_words_follow_the_verdict(model):
    answer = model.compare(*PAIR)

    def words(verdict, probability, fmr=None, faces=True):
        return views.verdict(replace(answer, verdict=verdict, probability=probability), fmr, faces)

    assert words("same", 0.999) == "Very likely the same person"
    assert words("same", 0.9) == "Probably the same person"
    assert words("unsure", 0.5) == "Could be either"
    assert words("unsure", 0.9, 1e-3) == "Alike, but not enough for one false match in 1,000"
    assert words("different", 0.2) == "Probably different people"
    assert words("different", 0.001, faces=False) == "Very likely different"


def test_a_hostile_name_stays_text(model):
    name = '<img src=x onerror="alert(1)">.jpg'
    found = group.group(model, [(name, PAIR[0]), (name, Image.new("RGB", (300, 300)))])
    drawn = views.people(found, model.calibration.threshold, True)
    Whole(drawn)
    assert "<img src=x" not in drawn
    assert "<script" not in views.message("<script>")


def test_shares_are_those_of_the_pairs(model, spread):
    """At a measured operating point the histogram gives its error rates, to a bin's width."""
    for point in model.calibration.operating_points:
        around = [spread.closer("impostor", point.distance + step * spread.edges[1]) for step in (-1, 1)]
        assert around[0] <= point.fmr <= around[1]
        around = [1 - spread.closer("genuine", point.distance + step * spread.edges[1]) for step in (1, -1)]
        assert around[0] <= point.fnmr <= around[1]
    assert spread.closer("genuine", 0) == 0
    assert spread.closer("impostor", spread.edges[-1]) == 1


def test_shares_in_words():
    assert charts.share(0, 1000) == "none is"
    assert charts.share(0.12, 1000) == "12% are"
    assert charts.share(1 / 3123, 10**6) == "1 in 3,100 is"
    assert charts.share(0.999, 10**6) == "nearly all are"
    assert charts.share(1.0, 10**6) == "all are"


def test_charts_and_scale_are_whole(model, spread):
    Whole(charts.charts(spread, True))
    few = {"width": 0.1, "genuine": [2, 0, 0], "impostor": [0, 1, 3], "reliability": [[1.0, 0.5, 0.5]]}
    Whole(charts.charts(charts.Spread(few), False))
    for distance in (0.0, 0.4, 9.0):
        drawn = charts.scale(spread, distance, model.calibration.threshold, "even odds", True)
        Whole(drawn)
        (here,) = re.findall(r'class="here" style="left: ([\d.]+)%', drawn)
        assert 0 <= float(here) <= 100


def test_the_matrix_is_dark_where_faces_are_alike(model):
    found = group.group(model, [(file.name, file) for file in (*PAIR, PAIR[0])])
    picture = views.matrix(found, [0, 1, 2], model.calibration.threshold)
    side = picture.width // 4
    dark = [[sum(picture.getpixel((side * (x + 1) + 3, side * (y + 1) + 3))) for x in range(3)] for y in range(3)]
    assert dark[0][0] == dark[0][2] < dark[0][1] == dark[1][0]
