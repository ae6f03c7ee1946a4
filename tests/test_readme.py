"""The README's snippets print what it says, and its numbers are those of the files that the commands wrote."""

import contextlib
import io
import json
import re
import shlex

import pytest

import siamese
from siamese import cli
from siamese.calibration import Calibration
from siamese.data import sources as datasets
from siamese.hub.card import model_card
from siamese.model import SURE
from siamese.page.charts import Spread, rate
from siamese.training.config import TrainConfig

from .conftest import ROOT

README = (ROOT / "README.md").read_text()
TEXT = " ".join(README.split())


def result(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_snippet_prints_what_follows_it():
    code, printed = re.search(r"```python\n(import siamese\n.*?)```\n\n```text\n(.*?)```", README, re.DOTALL).groups()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue() == printed


def test_the_snippet_of_one_against_many_prints_what_follows_it():
    code, printed = re.search(r"```python\n(import numpy.*?)```\n\n```text\n(.*?)```", README, re.DOTALL).groups()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {"model": siamese.load()})
    assert out.getvalue() == printed


def test_the_shell_prints_what_follows_it():
    command, printed = re.search(r"```console\n\$ siamese (.*?)\n(.*?)```", README, re.DOTALL).groups()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(shlex.split(command)) == 0
    assert out.getvalue() == printed


def test_the_http_snippet_answers(page):
    code = re.search(r"```python\n(from gradio_client.*?)```", README, re.DOTALL)[1]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code.replace("http://127.0.0.1:7860", page), {})
    assert out.getvalue().splitlines()[-1] == "different"


def test_the_table_of_results_is_that_of_the_runs():
    for seed in range(3):
        record = result(f"att-seed{seed}.json")
        assert record["recipe"] == TrainConfig("att", ROOT, seed=seed).settings()
        folds, pooled = record["folds"]["each"], record["folds"]["pooled"]
        cells = [f"{record['test']['auc']:.3f}", *(f"{fold['auc']:.3f}" for fold in folds), f"{pooled['auc']:.3f}"]
        cells += [f"{pooled['eer']:.1%}", f"{pooled['tmr_at_fmr_1e_2']:.1%}", f"{pooled['balanced_accuracy']:.1%}"]
        assert f"| {seed} | {' | '.join(cells)} |" in README


def test_the_calibration_errors_and_the_shipped_weights():
    shipped = json.loads((ROOT / "weights" / "att" / "metrics.json").read_text())
    assert shipped == result("att-seed0.json")
    errors = [result(f"att-seed{seed}.json")["folds"]["pooled"]["calibration_error"] for seed in range(3)]
    assert "errs by {:.1%}, {:.1%} and {:.1%} (expected calibration error".format(*errors) in TEXT


def weights(name: str) -> dict:
    return json.loads((ROOT / "weights" / name / "metrics.json").read_text())


def test_the_table_of_systems_is_that_of_the_benchmark():
    peers = result("peers.json")
    assert list(peers["systems"]) == ["siamese", "face_recognition", "AT&T network", "raw pixels"]
    for name, folds in peers["systems"].items():
        pooled = folds["pooled"]
        cells = [f"{folds['accuracy']:.2%} ± {folds['accuracy_std']:.2%}", f"{pooled['auc']:.4f}"]
        cells += [f"{pooled['eer']:.2%}", f"{pooled['tmr_at_fmr_1e_3']:.1%}", f"{pooled['calibration_error']:.1%}"]
        looked = name in ("siamese", "face_recognition")  # for faces; the others take heads as LFW frames them
        assert f"| {name} | {' | '.join(cells)} | {folds['without_face'] if looked else '–'} |" in README
        assert (folds["images"], pooled["genuine"], pooled["impostor"]) == (7701, 3000, 3000)
    speed = peers["speed"]
    assert speed["cores"] == 2
    assert f"in {speed['ours'] * 1000:.0f} ms on two CPU cores, {speed['times_faster']:.1f} times as fast as" in TEXT
    assert f"two 12-megapixel JPEGs in {speed['ours_12_megapixels']:.2f} s" in TEXT


def test_the_shipped_face_network_has_the_numbers_of_its_metrics():
    shipped = weights("faces")
    folds, ours = shipped["folds"], result("peers.json")["systems"]["siamese"]
    assert folds["accuracy"] == pytest.approx(ours["accuracy"], abs=1e-6)
    assert folds["pooled"] == pytest.approx(ours["pooled"], abs=1e-6)
    assert f"errs by {folds['pooled']['calibration_error']:.2%} (expected" in TEXT
    for point in shipped["test_calibration"]["points"]:
        row = f"| 1 in {round(1 / point['fmr']):,} | {point['distance']:.3f} | {point['fnmr']:.1%} |"
        assert row in README
    assert f"all {shipped['impostor_pairs'] / 1e6:.1f} million pairs" in TEXT
    spread, sure = Spread(shipped["curves"]), Calibration.from_dict(shipped["test_calibration"]).distance_at(SURE)
    false, missed = spread.closer("impostor", sure), 1 - spread.closer("genuine", sure)
    assert f"| {rate(false)}, the default | {sure:.3f} | {missed:.1%} |" in README
    # In one photograph no face was found, which leaves 2,999 of the 3,000 genuine pairs.
    assert "pairs of one person in which both faces were found" in TEXT
    for point in shipped["test_calibration"]["points"]:
        assert point["fnmr"] * 2999 == pytest.approx(round(point["fnmr"] * 2999))
    # What the project promises of it.
    assert folds["accuracy"] >= 0.9915
    assert folds["pooled"]["tmr_at_fmr_1e_3"] >= 0.965
    assert folds["pooled"]["calibration_error"] <= 0.01
    assert folds["without_face"] <= 5
    card = (ROOT / "weights" / "faces" / "README.md").read_text()
    assert card == model_card(shipped, "weights/faces")
    config = json.loads((ROOT / "weights" / "faces" / "config.json").read_text())
    assert config["calibration"] == shipped["test_calibration"]


def test_the_numbers_of_hard_photographs():
    hard = result("hard_photos.json")
    says = "{:.1%} of one fold's pairs are told right; of whole ones {:.1%}"
    assert says.format(hard["tight"]["accuracy"], hard["whole"]["accuracy"]) in TEXT
    assert f"{hard['turned']['right']:.1%} of {hard['turned']['images']} photographs" in TEXT
    assert hard["whole"]["accuracy"] - hard["tight"]["accuracy"] <= 0.007
    assert hard["turned"]["right"] >= 0.95


def test_the_numbers_on_att_without_training():
    report = result("att_faces.json")["test"]
    pairs = report["genuine"] + report["impostor"]
    assert f"AUC {report['auc']:.5f}, EER {report['eer']:.2%} over all {pairs:,} pairs" in TEXT


def test_the_numbers_of_fine_tuning():
    fine = result("fine_tuning.json")
    att, lfw = fine["att"], fine["lfw"]
    assert f"takes the EER from {att['before']['eer']:.2%} to {att['after']['eer']:.2%}" in TEXT
    people, held_out = sum(lfw["people"].values()), lfw["people"]["test"]
    before, after = (lfw[when]["eer"] for when in ("before", "after"))
    assert f"with {people:,} people, it changes nothing: {before:.2%} and {after:.2%} on the {held_out} whom" in TEXT
    assert before == pytest.approx(after)
    assert att["after"]["eer"] <= 0.004
    defaults = TrainConfig(data="att", out=ROOT, init="weights/faces", align="faces").settings()
    assert fine["recipe"] == defaults | {"init": "weights/faces"}


def test_the_table_of_the_strong_recipe_is_that_of_the_runs():
    for seed in range(3):
        record = result(f"strong-seed{seed}.json")
        settings = TrainConfig("att", ROOT, recipe="modern", flip=True, seed=seed).settings()
        assert record["recipe"] == settings
        folds, pooled = record["folds"]["each"], record["folds"]["pooled"]
        cells = [*(f"{fold['auc']:.3f}" for fold in folds), f"{pooled['auc']:.3f}"]
        cells += [f"{pooled['eer']:.1%}", f"{pooled['tmr_at_fmr_1e_2']:.1%}", f"{pooled['balanced_accuracy']:.1%}"]
        assert f"| {seed} | {' | '.join(cells)} |" in README
        # What the project promises of it.
        assert pooled["eer"] <= 0.4 * result(f"att-seed{seed}.json")["folds"]["pooled"]["eer"]


def test_the_speed_of_the_strong_recipe():
    speed = result("strong_speed.json")
    assert (speed["device"], speed["threads"], speed["plain_epochs_timed"]) == ("cpu", 2, 5)
    plain, strong = speed["seconds_all_folds"]["plain"], speed["seconds_all_folds"]["strong"]
    assert f"takes {strong:.0f} s for all five folds, where the plain loop takes {plain:,.0f} s" in TEXT
    assert f"**{speed['speedup']:.0f} times as fast**" in TEXT
    assert f"{speed['epoch_to_bare']:.2f} times as long as the bare" in TEXT
    assert speed["pooled_auc"] > result("plain_folds.json")["pooled_auc"]


def test_the_numbers_on_digits():
    digits = result("digits.json")
    assert f"with an AUC of {digits['mean_auc']:.3f}" in TEXT
    assert f"raw pixels: {digits['raw_pixels_auc']:.3f}), in {digits['seconds_each']:.0f} s each" in TEXT


def test_the_memory_that_large_folders_take():
    small, held, filed, million = result("large.json")
    assert [(run["images"], run["in"]) for run in (small, held, filed, million)] == [
        (1_000, "memory"),
        (100_000, "memory"),
        (100_000, "file"),
        (1_000_000, "file"),
    ]
    for says in (
        f"1,000 images takes {small['most_mb']:,} MB of memory. 100,000, which are {held['pixels_mb']} MB, take",
        f"take {held['most_mb']:,} MB, or {filed['most_mb']:,} MB with the images in a file; a million in a file,",
        f"{million['pixels_mb'] / 1000:.1f} GB, take {million['most_mb']:,} MB",
    ):
        assert says in TEXT
    assert held["most_mb"] - small["most_mb"] < 1.5 * held["pixels_mb"]  # once, not twice
    assert filed["most_mb"] < held["most_mb"]
    assert million["most_mb"] - filed["most_mb"] < 0.05 * million["pixels_mb"]


def test_the_table_of_speeds_is_that_of_the_benchmark():
    speed = result("train_speed.json")
    assert (speed["device"], speed["threads"], speed["epochs"]) == ("cpu", 2, 100)
    for name, arm in (("the plain loop", speed["plain"]), ("`siamese train`", speed["ours"])):
        assert f"| {name} | {arm['seconds']:.0f} s | {arm['images_per_second']} | {arm['auc']:.3f} |" in README
    assert f"**{speed['speedup']:.1f} times as fast**" in README
    floor = speed["floor"]
    assert f"{floor['ours_to_bare_distinct']:.2f} times as long as the bare forward" in TEXT
    assert f"or {floor['ours_to_bare_all']:.2f} times as long as those of all 2 × 64 images" in TEXT


def test_the_quality_of_the_plain_loop_on_the_folds():
    plain = result("plain_folds.json")
    ours = [result(f"att-seed{seed}.json")["folds"]["pooled"]["auc"] for seed in range(3)]
    assert f"comes to an AUC of {plain['pooled_auc']:.3f} over all folds" in TEXT
    assert min(ours) - 0.03 < plain["pooled_auc"] < max(ours) + 0.03


def test_the_speed_of_the_page():
    page = result("page.json")
    assert page["cores"] == 2
    for says in (
        f"ready {page['ready_s']:.1f} s after its start and answers {page['click_to_verdict_s']:.2f} s after the click",
        f"12 megapixels are sorted in {page['forty_photos_s']:.1f} s",
        f"takes one visitor {page['alone_median_s']:.2f} s",
        f"{page['together_per_second']:.1f} are answered a second and 95% within {page['together_p95_s']:.1f} s",
        f"takes {page['resident_mb'] / 1000:.1f} GB of memory, and {page['memory_growth']:.0%} more",
    ):
        assert says in TEXT
    # What the project promises of it.
    assert page["ready_s"] < 12
    assert page["click_to_verdict_s"] < 0.5
    assert page["forty_photos_s"] < 20
    assert page["memory_growth"] < 0.1


def test_how_true_the_heat_maps_are():
    change = result("explain.json")["change"]["blurred"]
    mean = {kind: {name: values["mean"] for name, values in change[kind].items()} for kind in change}
    assert mean["genuine"]["apart"] > 0  # further apart, not closer
    assert all(mean[kind]["together"] > 0.02 > mean[kind]["random"] - 0.01 for kind in mean)
    assert mean["impostor"]["apart"] < 3 * mean["impostor"]["random"] < 0
    genuine, impostor = ({name: change[kind][name]["size"] for name in ("hottest", "random")} for kind in change)
    assert f"genuine pair moves by {genuine['hottest']:.3f} on average, by {genuine['random']:.3f} where" in TEXT
    assert f"impostor pair by {impostor['hottest']:.3f} and {impostor['random']:.3f} (" in TEXT
    assert genuine["hottest"] > 2 * genuine["random"]
    assert impostor["hottest"] > 2 * impostor["random"]


def test_what_a_space_installs_and_how_fast_it_is_up():
    measured = result("space.json")
    assert measured["cores"] == 2
    for says in (
        f"It sends {measured['uploaded_mb']:.0f} MB",
        f"{measured['installed_mb'] / 1000:.1f} GB with all that they need, of which "
        f"{measured['of_which_for_cuda_mb'] / 1000:.1f} GB are for CUDA",
        f"up {measured['first_start_s']:.0f} s after its first start, and {measured['second_start_s']:.0f} s after a",
    ):
        assert says in TEXT


def test_what_it_points_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
    for name in re.findall(r"^      (\w+\.py) ", README, re.MULTILINE):
        assert (ROOT / "siamese" / name).is_file(), name
    assert datasets.ATT_URL.startswith("https://github.com/maticvl/dataHacker/")
