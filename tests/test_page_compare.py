"""HTML of the Compare tab."""

import html
import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from siamese.faces.face import TEMPLATE
from siamese.page import charts, compare
from siamese.page.uploads import Upload
from siamese.saliency import region_means
from siamese.wording import FACES

from .conftest import EXAMPLES, alike
from .html_checks import WellFormed

PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"


@pytest.fixture(scope="module")
def answer(model):
    return model.compare(*PAIR)


def test_answer_shows_its_numbers(model, answer):
    drawn = compare.answer_card(answer, FACES)
    drawn += compare.among_pairs(answer, charts.PairDistances(model.record.curves), FACES)
    words = " ".join(WellFormed(drawn).texts)
    for number in (f"{answer.dissimilarity:.2f}", f"{answer.threshold:.2f}", f"{1 - answer.probability:.1%}"):
        assert number in words
    WellFormed(compare.states(FACES, True))


@pytest.mark.parametrize(
    ("change", "wish"),
    [
        (lambda photo: photo.filter(ImageFilter.GaussianBlur(7)), "sharper"),
        (lambda photo: photo.resize((48, 60)), "larger"),
        (lambda photo: ImageEnhance.Brightness(photo).enhance(0.2), "brighter"),
        (lambda photo: photo, "large, sharp and turned to the camera"),
    ],
    ids=["blurred", "small", "dark", "good"],
)
def test_advice_depends_on_the_cause(model, change, wish):
    photo = Image.open(PAIR[0]).convert("RGB")
    assert wish in compare.advice(model.compare(change(photo), PAIR[1]), FACES)


def test_advice_about_a_covered_face(answer):
    covered = replace(answer.faces[0], covered=("mouth",), causes=("covered",))
    assert "not covered" in compare.advice(replace(answer, faces=(covered, answer.faces[1])), FACES)


def test_a_missing_threshold_is_not_drawn(model):
    pairs = charts.PairDistances(model.record.curves)
    assert 'class="limit"' in charts.scale(pairs, 0.5, 1.0, FACES)
    drawn = charts.scale(pairs, 0.5, None, FACES)
    WellFormed(drawn)
    assert "limit" not in drawn
    assert "up to" not in drawn


def test_a_choice_is_returned_as_it_was_sent():
    sent = json.dumps({"photos": ['a"b'], "faces": [None, 2], "fmr": 0.001})
    numbers, mark = compare.choice_of(sent)
    assert numbers == (None, 2)
    page = WellFormed(compare.for_choice("card", mark))
    assert page.texts == ["card"]
    assert html.unescape(mark) == sent
    assert '"' not in mark


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"faces": 1}', '{"faces": [1]}', '{"faces": ["x", 1]}'])
def test_a_choice_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="not one of this page"):
        compare.choice_of(text)


@pytest.mark.parametrize("fmr", [None, 1e-3])
@pytest.mark.parametrize("chosen", [(None, None), (None, 2)])
def test_the_lines_that_repeat_an_answer_give_it(model, siamese, fmr, chosen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source, name in ((PAIR[0], "it's.jpg"), (EXAMPLES / "edited" / "group.jpg", "b.jpg")):
        shutil.copy(source, name)
    answer = model.compare("it's.jpg", "b.jpg", face=chosen, fmr=fmr)
    drawn = compare.repeat(answer, [Upload("/x/it's.jpg"), Upload("/x/b.jpg")], chosen, model.name)
    python, shell, shown = (html.unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", drawn, re.DOTALL))
    names: dict = {}
    exec(python, names)
    assert alike(names["answer"].to_dict(), answer.to_dict())
    run = siamese(*shlex.split(shell)[1:], "--json")
    assert json.loads(run.stdout)["score"] == pytest.approx(answer.score)
    assert alike(json.loads(shown), answer.to_dict())


def test_less_alike_parts_are_only_drawn_for_other_verdicts(model, answer):
    photos = [(Image.open(file).convert("RGB"), 1) for file in PAIR]
    values = np.full((112, 112), 0.5)
    values[40:60] = -1  # the eyes

    def draw(verdict):
        return compare.compared_faces(
            replace(answer, verdict=verdict), photos, [values] * 2, model.template, (None, None), FACES
        )

    WellFormed(draw("different"))
    assert "less alike" in draw("different")
    assert "Least alike: eyes." in draw("different")
    assert "less alike" not in draw("same")
    assert "Least alike" not in draw("same")


@pytest.mark.parametrize(
    ("region", "x", "y"),
    [("eyebrows", 0.35, 0.35), ("eyes", 0.35, 0.46), ("nose", 0.5, 0.62), ("cheeks", 0.3, 0.65), ("mouth", 0.5, 0.82)],
)
def test_a_hot_spot_is_named_by_its_region(region, x, y):
    rows, columns = np.mgrid[0:112, 0:112] / 112
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 0.06**2))
    means = region_means(spot, TEMPLATE)
    assert max(means, key=means.get) == region
    assert compare.describe_maps([spot, spot], TEMPLATE).startswith(f"Most alike: {region}")
    assert compare.describe_maps([-spot, -spot], TEMPLATE).startswith(f"Least alike: {region}")
    assert compare.describe_maps([0 * spot, 0 * spot], TEMPLATE) == ""


def test_maps_are_only_drawn_if_a_part_stands_out(answer):
    photos = [(Image.open(file).convert("RGB"), 1) for file in PAIR]
    faint, clear = ([np.full((112, 112), value, np.float32)] * 2 for value in (0.02, 0.5))
    drawn = [
        compare.compared_faces(answer, photos, maps, TEMPLATE, compare.ALL_FACES, FACES)
        for maps in (clear, faint, None)
    ]
    for one in drawn:
        WellFormed(one)
        assert 'class="wipe"' in one
    assert ['class="heat"' in one for one in drawn] == [True, False, False]
