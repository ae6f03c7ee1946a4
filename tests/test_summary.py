"""What `siamese train` says at its end, and the picture of the loss."""

import math
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from siamese import summary
from siamese.calibration import Calibration, OperatingPoint
from siamese.evaluation import metrics, plots
from siamese.record import Folds, Record
from siamese.summary import describe_accuracy, describe_rates, summarise, warnings


@pytest.fixture
def record(trained) -> Record:
    """The record of a good result on ten held-out people, without folds."""
    record = Record.from_json((trained / "metrics.json").read_bytes())
    people = replace(record.people, test=list("0123456789"))
    curves = curves_of(np.linspace(0, 1, 50), np.linspace(1, 2, 50))
    return replace(record, people=people, folds=None, test=replace(record.test, auc=0.99), curves=curves)


def curves_of(genuine, impostor):
    same = np.arange(len(genuine) + len(impostor)) < len(genuine)
    return metrics.compute_curves(np.concatenate([genuine, impostor]), same, np.where(same, 0.9, 0.1))


@pytest.mark.parametrize(
    ("accuracy", "number", "word"),
    [
        *[(1.0, "100%", 0), (0.9999, "99.9%", 0), (0.99, "99%", 0), (0.98999, "98.9%", 1), (0.9499, "94.9%", 2)],
        *[(0.84, "84%", 3), (0.7, "70%", 3), (0.6, "60%", 4), (0.599, "59.9%", 5), (0.3, "30%", 5)],
    ],
)
def test_result_has_the_word_of_its_balanced_accuracy_rounded_down(record, accuracy, number, word):
    first = describe_accuracy(replace(record, test=replace(record.test, balanced_accuracy=accuracy)))
    assert f" {number} of" in first
    assert first.endswith(f": {summary.WORDS[word][1]}.")


def test_result_of_folds_is_that_of_all_people(record):
    worse, before = replace(record.test, balanced_accuracy=0.6), replace(record.test, balanced_accuracy=0.55)
    text = describe_accuracy(replace(record, folds=Folds([worse, worse], worse, before)))
    assert " 60% of" in text
    assert "55%" in text


def test_too_few_held_out_people_give_auc_and_eer(record):
    test = replace(record.test, auc=0.9512, eer=0.1234, balanced_accuracy=None, calibration_error=None)
    text = describe_accuracy(replace(record, test=test, before=replace(test, auc=0.6789)))
    assert all(number in text for number in ("0.951", "12.3%", "0.679"))
    assert not any(word in text for _, word in summary.WORDS)


def test_weights_that_training_left_as_they_were_are_named(record):
    record = replace(record, before=replace(record.test, balanced_accuracy=0.55))
    assert "55%" in describe_accuracy(record)
    assert "55%" not in describe_accuracy(replace(record, unchanged=True))


def test_rates_and_how_many_more_people_the_next_one_takes(record):
    """Of 100 people, 10 are held out, with 4,500 impostor pairs. Twice as many people have four times as many pairs."""
    people = replace(record.people, training=[str(number) for number in range(90)])
    record = replace(record, people=people, test=replace(record.test, impostor=4500))
    one, all_four = [OperatingPoint(1e-2, 0.0, 0.1)], [OperatingPoint(10.0**-k, float(k), 0.1) for k in (2, 3, 4, 5)]
    texts = [
        describe_rates(record, Calibration(1.0, 1.0, operating_points=tuple(points))) for points in (one, all_four, [])
    ]
    more = math.ceil(100 * (math.sqrt(10_000 / 4500) - 1))
    assert [f"{more} more" in text for text in texts] == [True, False, False]
    assert [text.count("1 in ") for text in texts] == [2, 4, 0]
    few = replace(record, test=replace(record.test, impostor=250))
    assert "100 more" in describe_rates(few, Calibration(1.0, 1.0))


def test_reasons_to_distrust_a_result_are_named(record):
    few = replace(record, people=replace(record.people, training=list("abcdefg"), test=list("012")))
    low, useless = (replace(record, test=replace(record.test, auc=auc)) for auc in (0.79, 0.52))
    assert warnings(record) == []
    assert ["--folds" in warning for warning in warnings(few)] == [True]
    assert ["--folds" in warning for warning in warnings(replace(few, people=replace(few.people, training=[])))] == [
        False
    ]
    folds = Folds([record.test] * 2, record.test)
    assert warnings(replace(few, folds=folds)) == []  # all ten are held out once
    assert ["0.79" in warning for warning in warnings(low)] == [True]
    assert ["useless" in warning for warning in (*warnings(low), *warnings(useless))] == [False, True]
    assert len(warnings(replace(low, people=few.people))) == 2


@pytest.mark.parametrize(
    ("genuine", "impostor", "collapsed"),
    [
        ([0, 0], [0, 0], True),
        ([0.999, 1], [0.9995, 0.99], True),
        ([0, 0.001], [0.001, 0.002], True),
        ([0, 0], [1, 1], False),
        ([0.9, 1], [1, 1.1], False),
    ],
)
def test_collapsed_embeddings_are_named_instead_of_a_low_auc(record, genuine, impostor, collapsed):
    record = replace(record, curves=curves_of(genuine, impostor), test=replace(record.test, auc=0.5))
    assert ["--lr" in warning for warning in warnings(record)] == [collapsed]


@pytest.mark.parametrize("name", ["plain", "anna's people", 'a "b" $HOME'])
def test_commands_can_be_pasted(record, tmp_path, name):
    out = tmp_path / name
    text = summarise(record, Calibration(1.0, 1.0), out)
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("  ")]
    assert [command[0] for command in commands] == ["siamese"] * 4
    assert all(str(out) in command for command in commands if command[0] == "siamese")


def test_pictures_of_the_result_are_named(record, trained):
    text = summarise(record, Calibration(1.0, 1.0), trained)
    assert {picture.name for picture in trained.glob("*.png")} == set(re.findall(r"^  (\w+\.png) ", text, re.MULTILINE))


@pytest.mark.parametrize(("losses", "epochs", "errors"), [(1, 1, []), (4, 2, [0.3, 0.2]), (600, 1, [0.0])])
def test_loss_picture_shows_both_curves(tmp_path, losses, epochs, errors):
    plots.plot_loss(np.linspace(1, 0, losses).tolist(), epochs, errors, tmp_path / "loss.png")
    pixels = np.asarray(Image.open(tmp_path / "loss.png").convert("RGB")).astype(int)

    def pixels_of(color: str) -> int:
        rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
        return int((np.abs(pixels - rgb).max(2) < 30).sum())

    assert pixels_of(plots.ACCENT) > (10 if losses == 1 else 300)
    assert (pixels_of(plots.IMPOSTOR) > 30) == bool(errors)
