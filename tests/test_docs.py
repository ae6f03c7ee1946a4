"""The documentation: its numbers, examples, links and length. And results that belong together."""

import contextlib
import io
import json
import re
import shlex
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from siamese import cli
from siamese.record import Settings
from siamese.training.config import TrainConfig
from siamese.training.start import decide

from .conftest import ROOT

DOCUMENTS = {
    file.relative_to(ROOT).as_posix(): file.read_text("utf-8")
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"))
}
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGE = "http://127.0.0.1:7860"
every_document = pytest.mark.parametrize("name", DOCUMENTS)


@pytest.fixture(autouse=True)
def at_root(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # for the indexes of folders


def test_make_docs_changes_nothing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    contents = import_module("make_docs").contents()
    assert [file for file, text in contents.items() if text != file.read_text("utf-8")] == []


@every_document
def test_python_examples_print_the_output_below_them(name):
    names = {}
    for (language, code), (next_language, expected) in pairwise(FENCED.findall(DOCUMENTS[name])):
        if (language, next_language) == ("python", "text"):
            assert output(lambda code=code: exec(code, names)) == expected


@every_document
def test_console_examples_print_the_output_below_them(name):
    for language, block in FENCED.findall(DOCUMENTS[name]):
        if language == "console":
            command, expected = block.removeprefix("$ siamese ").split("\n", 1)
            assert output(lambda command=command: cli.main(shlex.split(command))) == expected


def test_http_example_answers(page):
    (code,) = (code for _, code in FENCED.findall(DOCUMENTS["docs/api.md"]) if PAGE in code and "predict" in code)
    assert output(lambda: exec(code.replace(PAGE, page), {})).splitlines()[-1] == "different"


def output(do) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        do()
    return out.getvalue()


def test_an_index_can_be_put_into_a_vector_database(tmp_path, monkeypatch):
    pytest.importorskip("lancedb", reason="needs the extra search")
    (code,) = (code for _, code in FENCED.findall(DOCUMENTS["docs/search.md"]) if "import lancedb" in code)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    lines = output(lambda: exec(code, {})).splitlines()
    assert lines[0].split()[0] == "obama-portrait.jpg"
    # The third one is nearly as close as the fourth.
    others = {"obama-standing.jpg", "obama-speaking.jpg", "edited/group.jpg"}
    assert {line.split()[0] for line in lines[1:]} < others


@every_document
def test_links_lead_to_files_and_headings(name):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", DOCUMENTS[name]):
        file = (ROOT / name).parent / target if target else ROOT / name
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], anchor


def test_readme_is_short():
    text = DOCUMENTS["README.md"].split("---\n", 2)[2]
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1100


@pytest.mark.parametrize(
    "command", ["compare", "embed", "find", "group", "train", "import", "evaluate", "export", "push", "deploy", "page"]
)
def test_api_page_lists_every_option_of_a_command(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
    pages = DOCUMENTS["docs/api.md"] + DOCUMENTS["docs/search.md"]
    section = re.search(rf"^### {command}$(.*?)^##", pages, re.DOTALL | re.MULTILINE)[1]
    assert set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) == options


def test_pre_commit_runs_the_checks_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", Path("Makefile").read_text(), re.MULTILINE)[1]
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    hooks = yaml.safe_load(Path(".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == commands


# Results that belong together. What the project promises about them, the benchmarks check when they write them.


def result(name: str):
    return json.loads(Path("benchmarks", "results", f"{name}.json").read_text())


def metrics(name: str) -> dict:
    return json.loads(Path("weights", name, "metrics.json").read_text())


def test_face_network_has_the_calibration_that_was_measured():
    config = json.loads(Path("weights/faces/config.json").read_text())
    assert config["calibration"] == metrics("faces")["test_calibration"]


def test_att_results_belong_to_the_default_settings():
    for recipe, options in (("tutorial", {}), ("modern", {"flip": True})):
        for seed, run in enumerate(result("recipes")[recipe]):
            settings, _ = decide(TrainConfig("att", ROOT, recipe=recipe, seed=seed, **options))
            assert Settings(**run["settings"]) == settings
    settings, _ = decide(TrainConfig("att", ROOT, init="weights/faces", align="faces"))
    assert Settings(**result("fine_tuning")["settings"]) == replace(settings, init="weights/faces")


def test_att_weights_have_the_results_of_seed_0():
    expected = result("recipes")["tutorial"][0]
    assert {key: metrics("att")[key] for key in expected} == expected
