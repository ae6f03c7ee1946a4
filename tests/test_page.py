"""HTML, charts and text of the page."""

import re

from siamese.page import charts
from siamese.wording import FACES

from .html_checks import WellFormed


def test_histograms_give_the_measured_error_rates(model, pairs):
    """The decision also depends on quality, so the rates by distance alone are a little higher."""
    for point in model.calibration.operating_points:
        distance = model.calibration.distance_at(point.score)
        assert 0.2 * point.fmr <= pairs.fmr_at(distance) <= 1.5 * point.fmr
        assert 0.5 * point.fnmr <= 1 - pairs.tmr_at(distance) <= 4 * point.fnmr
    assert pairs.tmr_at(0) == 0
    assert pairs.fmr_at(pairs.edges[-1]) == 1


def test_shares_in_words():
    assert charts.share(0, 1000) == "none is"
    assert charts.share(0.12, 1000) == "12% are"
    assert charts.share(1 / 3123, 10**6) == "1 in 3,100 is"
    assert charts.share(1 / 3e7, 3 * 10**7) == "only 1 is"
    assert charts.share(0.999, 10**6) == "nearly all are"
    assert charts.share(1.0, 10**6) == "all are"


def test_scale(model, pairs):
    for distance in (0.0, 0.4, 9.0):
        drawn = charts.scale(pairs, distance, model.calibration.threshold, FACES)
        WellFormed(drawn)
        (here,) = re.findall(r'class="here" style="left: ([\d.]+)%', drawn)
        assert 0 <= float(here) <= 100
