"""The typed content of metrics.json."""

import json
from dataclasses import replace

import pytest

from siamese.record import Confusion, Folds, LossCurve, People, Record, Settings

from .conftest import ROOT

ATT, FACES = (ROOT / "weights" / name / "metrics.json" for name in ("att", "faces"))


@pytest.mark.parametrize("file", [ATT, FACES], ids=["att", "faces"])
def test_json_round_trip(file):
    text = file.read_text("utf-8")
    record = Record.from_json(text)
    assert record.to_json() == text
    assert Record.from_json(record.to_json()) == record


def test_parts_have_types():
    record = Record.from_json(FACES.read_bytes())
    assert record.lfw.images == 7701
    assert record.test_calibration.operating_points[1].fmr == 1e-3
    assert (record.settings, record.loss, record.confused, record.people.seen) == (None, None, [], [])
    record = Record.from_json(ATT.read_bytes())
    assert isinstance(record.folds, Folds)
    assert isinstance(record.loss, LossCurve)
    assert record.confused == [Confusion("s6", "s7", 0.04, 100)]
    assert record.settings == Settings("tutorial", 100, 64, 5e-4, 2.0, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("people", "all"),
        ("people.training", ["Ann", 1]),
        ("people.training", None),
        ("people.pretraining", "Ann"),
        ("test", {}),
        ("test.auc", "high"),
        ("test.auc", float("nan")),
        ("test.genuine", 1.5),
        ("test.unknown", 1),
        ("unknown", 1),
        ("curves", {}),
        ("curves.width", 0),
        ("curves.genuine", [1]),
        ("curves.genuine", [-1, 3]),
        ("curves.impostor", []),
        ("curves.reliability", [[0.1, 0.2, 1.5]]),
        ("test_calibration.slope", -1),
        ("test_calibration.unknown", 1),
        ("test_calibration.operating_points", [{"fmr": 0.1}]),
        ("settings.align", "eyes"),
        ("folds.pooled", None),
        ("data", None),
    ],
)
def test_invalid_values_are_named(key, value):
    record = json.loads(ATT.read_text())
    *path, last = key.split(".")
    part = record
    for name in path:
        part = part[name]
    part[last] = value
    with pytest.raises(ValueError, match=rf"^{key.split('.')[0]}"):
        Record.from_json(json.dumps(record))


@pytest.mark.parametrize("text", [b"", b"[", b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"{}", b"null", b"[]"])
def test_other_content_is_rejected(text):
    with pytest.raises(ValueError):  # noqa: PT011 (the reason differs)
        Record.from_json(text)


def test_anonymise():
    names = [f"Jane Doe {digit}" for digit in "0123456789"]
    people = People([*names[:2], *names[3:9]], [names[2], names[9]], [names[3], "Jane Roe"])
    record = replace(
        Record.from_json(ATT.read_bytes()), people=people, confused=[Confusion(names[2], names[9], 0.25, 64)]
    )
    record = replace(record, settings=replace(record.settings, init="/home/jane/weights"))
    public = record.anonymise("weights")
    assert public.people == People([0, 1, 3, 4, 5, 6, 7, 8], [2, 9], [3])
    assert public.confused == [Confusion(2, 9, 0.25, 64)]
    assert public.settings.init == "weights"
    assert public == replace(record, people=public.people, confused=public.confused, settings=public.settings)
    assert (record.people.anonymous, public.people.anonymous) == (False, True)
    assert record.people.seen == [*people.training, *people.pretraining]
    assert public.people.seen is None
    assert Record.from_json(public.to_json()) == public


def test_anonymise_twice_changes_nothing():
    public = Record.from_json(ATT.read_bytes()).anonymise("")
    assert public.anonymise("") == public


def test_unknown_pretraining_stays_unknown():
    record = Record.from_json(ATT.read_bytes())
    record = replace(record, people=People(["b", "c"], ["a"], None), confused=[])
    assert record.people.seen is None
    assert record.anonymise("").people == People([1, 2], [0], None)
