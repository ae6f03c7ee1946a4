"""The README's snippets print what it says, and its numbers are those of the files that the commands wrote."""

import contextlib
import io
import json
import re
import shlex

import pytest
import yaml

from siamese import cli, datasets

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
        assert record["recipe"] == {"epochs": 100, "batch_size": 64, "lr": 5e-4, "margin": 2.0, "seed": seed}
        folds, pooled = record["folds"]["each"], record["folds"]["pooled"]
        cells = [f"{record['test']['auc']:.3f}", *(f"{fold['auc']:.3f}" for fold in folds), f"{pooled['auc']:.3f}"]
        cells += [f"{pooled['eer']:.1%}", f"{pooled['tar_at_far_1e-2']:.1%}", f"{pooled['balanced_accuracy']:.1%}"]
        assert f"| {seed} | {' | '.join(cells)} |" in README


def test_the_calibration_errors_and_the_shipped_weights():
    shipped = json.loads((ROOT / "weights" / "att" / "metrics.json").read_text())
    assert shipped == result("att-seed0.json")
    errors = [result(f"att-seed{seed}.json")["folds"]["pooled"]["calibration_error"] for seed in range(3)]
    assert "errs by {:.1%}, {:.1%} and {:.1%} (expected calibration error".format(*errors) in TEXT


def test_the_numbers_on_ordinary_photographs():
    wild = result("in_the_wild.json")
    assert f"AUC of {wild['auc']:.2f}, where 0.5 is a guess, and their probabilities err by " in TEXT
    assert f"err by {wild['calibration_error']:.0%} (`python benchmarks/in_the_wild.py`)" in TEXT
    assert (wild["genuine"], wild["impostor"]) == (3000, 3000)


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


def test_the_time_to_the_first_answer():
    measured = result("first_answer.json")
    assert f"first answer {measured['seconds']} s after `python app.py`, on the same two cores" in TEXT
    assert measured["seconds"] < 15
    assert measured["cores"] == 2


def test_the_front_matter_is_what_the_space_runs():
    import gradio

    front = yaml.safe_load(README.split("---")[1])
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == gradio.__version__
    assert (ROOT / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60


def test_what_it_points_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
    for name in re.findall(r"^      (\w+\.py) ", README, re.MULTILINE):
        assert (ROOT / "siamese" / name).is_file(), name
    assert datasets.ATT_URL.startswith("https://github.com/maticvl/dataHacker/")
