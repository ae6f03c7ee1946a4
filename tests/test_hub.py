"""Push and pull through the real client, against a Hub on loopback."""

import contextlib
import functools
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

from siamese.hub import download as pull
from siamese.hub import upload as hub
from siamese.hub.card import model_card

from . import command
from .conftest import EXAMPLES, ROOT
from .hub_server import Fault, Hub

TOKEN = "hf_planted_secret_token"
FILES = ["README.md", "config.json", "distances.png", "loss.png", "metrics.json", "model.safetensors", "roc.png"]
PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
DIGITS = "models/someone/digits"


def siamese(*arguments, **environment) -> command.Run:
    run = command.run(*arguments, **environment)
    assert "hf_" not in run.stdout + run.stderr, "a token was printed"
    return run


def ask(weights, **environment) -> command.Run:
    return siamese("compare", *PAIR, "--weights", weights, "--json", **environment)


@pytest.fixture
def server():
    return Hub(TOKEN)


@pytest.fixture
def pushed(server, trained, tmp_path):
    """The environment of a Hub that holds the digits."""
    environment = server.environment(tmp_path / "cache")
    assert siamese("push", trained, "someone/digits", **environment).returncode == 0
    return environment


def test_pushed_weights_come_back_and_answer_the_same(server, trained, pushed):
    again = siamese("push", trained, "someone/digits", **pushed)
    assert again.stdout.strip() == f"{server.url}/someone/digits"
    repository = server.repositories[DIGITS]
    assert repository.messages == [FILES]  # one commit, without the photographs of pairs.png and hardest.png
    here, there = ask(trained), ask("someone/digits", **pushed)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    answers = [json.loads(run.stdout) for run in (here, there)]
    assert answers[0].pop("model") == trained.name
    assert answers[1].pop("model") == f"someone/digits@{repository.branches['main']}"
    assert answers[0] == answers[1]
    card = ModelCard(server.files(DIGITS)["README.md"].decode())
    assert 'siamese.load("someone/digits")' in card.text
    assert not [name for name, content in server.files(DIGITS).items() if TOKEN.encode() in content]


def test_without_network_the_kept_copy_answers(server, pushed):
    online = ask("someone/digits", **pushed).stdout
    for trouble in ("offline", "gone", "error", "broken off"):
        environment = {**pushed, "HF_HUB_OFFLINE": "1"} if trouble == "offline" else pushed
        if trouble == "gone":
            environment = {**pushed, "HF_ENDPOINT": "http://127.0.0.1:9"}
        server.fault = {"error": Fault("/resolve/", 500), "broken off": Fault("/resolve/", "drop")}.get(trouble)
        run = ask("someone/digits", **environment)
        assert run.stdout == online, trouble
        assert "this is the copy of someone/digits that was kept." in run.stderr, trouble


@pytest.mark.parametrize("broken", ["/large/", "metrics.json", "config.json"])
def test_an_update_that_breaks_off_leaves_the_kept_copy(server, pushed, broken):
    before = ask("someone/digits", **pushed).stdout
    files = server.files(DIGITS)
    config = json.loads(files["config.json"]) | {"weights_sha256": "0"}
    server.put(
        DIGITS,
        {
            "model.safetensors": files["model.safetensors"][:-4] + b"\0\0\0\0",
            "metrics.json": b"{}",
            "config.json": json.dumps(config).encode(),
        },
    )
    server.fault = Fault(("GET " if broken == "/large/" else "/") + broken, "drop")
    run = ask("someone/digits", **pushed)
    assert run.stdout == before, run.stderr


def test_whatever_goes_wrong_while_it_is_fetched_the_kept_copy_answers(server, pushed, monkeypatch, tmp_path):
    """Of the Hub's own protocol for large files, too, which is not HTTP and raises what it likes."""
    assert ask("someone/digits", **pushed).returncode == 0
    monkeypatch.setattr(pull, "_fetch", lambda *_: (_ for _ in ()).throw(RuntimeError("Task error: CAS Client Error")))
    keep = functools.partial(pull.hf_hub_download, cache_dir=tmp_path / "cache" / "hub")
    monkeypatch.setattr(pull, "hf_hub_download", keep)
    note = pull.download("someone/digits").note
    assert note.startswith("Fetching it failed (Task error: CAS Client Error); this is the copy of someone/digits")
    with pytest.raises(ConnectionError, match="fetching it failed"):
        pull.download("someone/else")


def test_a_revision_is_pinned(server, trained, pushed, tmp_path):
    repository = server.repositories[DIGITS]
    first = repository.branches["main"]
    record = json.loads((trained / "metrics.json").read_text())
    shutil.copytree(trained, tmp_path / "other")
    (tmp_path / "other" / "metrics.json").write_text(json.dumps({**record, "minutes": 99}))
    run = siamese("push", tmp_path / "other", "someone/digits", "--revision", "next", **pushed)
    assert run.stdout.strip() == f"{server.url}/someone/digits/tree/next", run.stderr
    assert (repository.branches["main"], len(repository.branches)) == (first, 2)
    assert json.loads(server.files(DIGITS, "next")["metrics.json"])["minutes"] == 99
    for revision in ("next", repository.branches["next"]):
        answer = json.loads(ask(f"someone/digits@{revision}", **pushed).stdout)
        assert answer["model"] == f"someone/digits@{repository.branches['next']}"
    # A commit that is here needs no Hub.
    assert ask(answer["model"], **{**pushed, "HF_HUB_OFFLINE": "1"}).returncode == 0
    assert json.loads(ask("someone/digits", **pushed).stdout)["model"] == f"someone/digits@{first}"
    run = ask("someone/digits@nowhere", **pushed)
    assert (run.returncode, run.stderr) == (2, "error: someone/digits has no branch, tag or commit nowhere\n")


def test_a_pull_request_is_opened_where_one_may_not_write(server, trained, pushed):
    server.create("models/other/digits")
    refused = siamese("push", trained, "other/digits", **pushed)
    assert "the token may not write there" in refused.stderr
    asked = siamese("push", trained, "other/digits", "--create-pr", **pushed)
    assert asked.stdout.strip() == f"{server.url}/other/digits/discussions/1", asked.stderr
    assert server.files("models/other/digits") == {}
    assert sorted(server.files("models/other/digits", "refs/pr/1")) == FILES
    assert ask("other/digits@refs/pr/1", **pushed).returncode == 0


def test_a_private_repository_is_read_by_its_owner_alone(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    assert siamese("push", trained, "someone/digits", "--private", **environment).returncode == 0
    assert server.repositories[DIGITS].private
    assert ask("someone/digits", **environment).returncode == 0
    run = ask("someone/digits", **server.environment(tmp_path / "other", token=""))
    assert "there is no someone/digits on the Hub, or it is private" in run.stderr


def test_what_is_pushed_names_no_people_and_no_path(server, trained, tmp_path):
    folder, environment = tmp_path / "network", server.environment(tmp_path / "cache")
    shutil.copytree(trained, folder)
    record = json.loads((folder / "metrics.json").read_text())
    names = [f"Jane Doe the {name}th" for name in "0123456789"]
    record["people"] = {"training": names[:2] + names[3:9], "test": [names[2], names[9]]}
    record["people"]["pretraining"] = [names[3], "Jane Roe"]
    record["confused"] = [[names[2], names[9], 0.25, 64]]
    for init, known_as in ((ROOT / "weights" / "faces", "faces"), (tmp_path / "gone", "gone"), ("who/it", "who/it")):
        record["recipe"] |= {"init": str(init), "freeze": 5}
        (folder / "metrics.json").write_text(json.dumps(record))
        run = siamese("push", folder, "someone/digits", **environment)
        assert run.returncode == 0, run.stderr
        files = server.files(DIGITS)
        metrics, card = json.loads(files["metrics.json"]), files["README.md"].decode()
        for secret in (b"Jane", bytes(ROOT), bytes(tmp_path)):
            assert not [name for name, content in files.items() if secret in content]
        assert metrics["people"] == {"training": [0, 1, 3, 4, 5, 6, 7, 8], "test": [2, 9], "pretraining": [3]}
        assert metrics["confused"] == [[2, 9, 0.25, 64]]
        assert "| 2 | 9 | 25% | 64 |" in card
        assert metrics["recipe"] == {**record["recipe"], "init": known_as}
        assert card == model_card(metrics, "someone/digits")
        assert f"--init {known_as} --freeze 5" in card
        assert metrics == {**record, **{key: metrics[key] for key in ("people", "confused", "recipe")}}


@pytest.mark.parametrize("name", ["faces", "att"])
def test_the_networks_that_come_along_can_be_pushed_from_anywhere(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    files = hub.published(Path("weights", name), "someone/it")
    assert json.loads(files["metrics.json"])["test"]
    assert b'siamese.load("someone/it")' in files["README.md"]


def test_a_pushed_network_is_still_not_judged_by_people_it_was_trained_on(trained, digits, pushed, tmp_path):
    here = siamese("evaluate", trained, "--data", digits)
    there = siamese("evaluate", "someone/digits", "--data", digits, **pushed)
    assert (there.returncode, "note:" in there.stderr) == (0, False), there.stderr
    assert there.stdout == here.stdout
    # Of other data it cannot know; it says so, and judges by no calibration that may rest on these people.
    shutil.copytree(digits, tmp_path / "more")
    shutil.copy(digits / "3" / "0.png", tmp_path / "more" / "3" / "9.png")
    more = siamese("evaluate", "someone/digits", "--data", tmp_path / "more", **pushed)
    assert (more.returncode, more.stderr.count("note: not all whom this network")) == (0, 1)
    assert "10 in all" in more.stdout


def test_training_pushes_when_asked(server, digits, tmp_path):
    run = siamese(
        *("train", "--data", digits, "--epochs", 1, "--out", tmp_path / "run", "--push-to-hub", "someone/new"),
        **server.environment(tmp_path / "cache"),
    )
    assert run.returncode == 0, run.stderr
    assert sorted(server.files("models/someone/new")) == FILES


@pytest.mark.parametrize(
    ("part", "how"), [("/api/repos/create", "drop"), ("/objects/batch", 500), ("/large/", "drop"), ("/commit/", 500)]
)
def test_an_interrupted_push_changes_nothing_and_can_be_repeated(server, trained, tmp_path, part, how):
    environment = server.environment(tmp_path / "cache")
    server.fault = Fault(part, how)
    refused = siamese("push", trained, "someone/digits", **environment)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: the Hub ")
    assert f"run `siamese push {trained} someone/digits` again" in refused.stderr
    assert DIGITS not in server.repositories or server.files(DIGITS) == {}
    server.fault = None
    assert siamese("push", trained, "someone/digits", **environment).returncode == 0
    assert sorted(server.files(DIGITS)) == FILES


def test_what_others_have_put_there_is_not_written_over(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    weights = {"config.json": b"{}", "model.safetensors": b"cats"}
    for theirs in (
        weights,
        weights | {"README.md": b"---\ntags:\n- cats\n---\n# Cats"},
        weights | {"README.md": b"# Cats"},
        {"README.md": b"# Cats"},
        {"README.md": b"---\ntags: [a\n---\n"} | weights,
        {"README.md": b"---\ntags: 5\n---\n"} | weights,
    ):
        server.create(DIGITS, theirs)
        run = siamese("push", trained, "someone/digits", **environment)
        assert (run.returncode, "someone/digits holds something else" in run.stderr) == (2, True), run.stderr
        assert server.files(DIGITS) == theirs
    # What the Hub itself writes into a new one is nobody's.
    server.create(DIGITS, {".gitattributes": b"", "README.md": b"---\nlicense: mit\n---\n"})
    assert siamese("push", trained, "someone/digits", **environment).returncode == 0
    # And what is public does not become private by being asked to.
    run = siamese("push", trained, "someone/digits", "--private", **environment)
    assert "someone/digits is there already, and public" in run.stderr


def test_what_does_not_load_is_not_pushed(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    record = json.loads((trained / "metrics.json").read_text())
    without = json.dumps({key: value for key, value in record.items() if key != "data"}).encode()
    for file, content in (
        *(("metrics.json", b"{}"), ("metrics.json", b"["), ("metrics.json", without)),
        ("model.safetensors", b"junk"),
    ):
        folder = tmp_path / "broken"
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        (folder / file).write_bytes(content)
        run = siamese("push", folder, "someone/digits", **environment)
        assert (run.returncode, run.stderr.startswith(f"error: {folder}")) == (2, True), run.stderr
    assert server.asked == []


def test_refusals_are_sentences(server, trained, tmp_path):
    good, none = server.environment(tmp_path / "cache"), server.environment(tmp_path / "cache", token="")
    wrong = server.environment(tmp_path / "cache", token="hf_wrong")
    away = {**good, "HF_ENDPOINT": "http://127.0.0.1:9"}
    offline = {**good, "HF_HUB_OFFLINE": "1"}
    for folder, name, environment, says in (
        (trained, "digits", good, "USER/NAME"),
        (trained, "some one/digits", good, "USER/NAME"),
        (tmp_path, "someone/digits", good, "holds no trained network"),
        (trained, "someone/digits", none, "no Hugging Face token"),
        (trained, "someone/digits", wrong, "token is not valid"),
        (trained, "else/digits", good, "may not write there"),
        (trained, "someone/digits", away, "cannot be reached"),
        (trained, "someone/digits", offline, "HF_HUB_OFFLINE is set"),
    ):
        run = siamese("push", folder, name, **environment)
        assert run.returncode == 2
        assert run.stderr.startswith("error: ")
        assert says in run.stderr, run.stderr
    for environment, says in (
        (good, "there is no someone/nothing on the Hub, or it is private"),
        (away, "the Hub cannot be reached, and no copy was kept"),
        (offline, "the Hub is not to be asked (HF_HUB_OFFLINE), and no copy was kept"),
    ):
        run = ask("someone/nothing", **environment)
        assert (run.returncode, run.stdout) == (2, "")
        assert says in run.stderr, run.stderr
    for status, says in ((403, "it answered 403"), (451, "it answered 451")):
        server.fault = Fault("/resolve/", status)
        run = ask("someone/nothing", **good)
        assert (run.returncode, f"the Hub does not give someone/nothing: {says}" in run.stderr) == (2, True), run.stderr
    run = ask("runs/mistyped", **good)
    assert "there is no folder runs/mistyped" in run.stderr
    both = siamese("push", trained, "someone/digits", "--revision", "a", "--create-pr", **good)
    assert "leave out one of" in both.stderr


def test_a_hostile_repository_is_refused_before_anything_is_fetched_or_run(server, pushed, tmp_path):
    good = server.files(DIGITS)
    config = json.loads(good["config.json"])
    pickle = b"cos\nsystem\n(S'touch " + bytes(tmp_path / "owned") + b"'\ntR."
    record = json.loads(good["metrics.json"])
    cases = (
        ({"metrics.json": b" " * (4 << 20) + good["metrics.json"]}, "at most 4,194,304; it was not fetched"),
        ({"metrics.json": b"\xff\xfe"}, "metrics.json is no JSON that `siamese train` writes"),
        ({"metrics.json": b"9" * 5000}, "metrics.json is no JSON that `siamese train` writes"),
        ({"metrics.json": json.dumps({**record, "people": "all"}).encode()}, "lacks what `siamese train` writes"),
        ({"model.safetensors": None, "pytorch_model.bin": pickle}, "model.safetensors is missing there"),
        ({"model.safetensors": pickle}, "is damaged, or not the one"),
        ({"model.safetensors": bytes((64 << 20) + 1)}, "and that of a network at most 67,108,864; it was not fetched"),
        ({"config.json": b" " * (1 << 20) + good["config.json"]}, "at most 1,048,576; it was not fetched"),
        ({"config.json": json.dumps({**config, "backbone": "os.system"}).encode()}, "unknown backbone 'os.system'"),
        ({"config.json": json.dumps({**config, "embedding_dim": 10**9}).encode()}, "whole number from 1 to 1024"),
        ({"config.json": b"[" * 100_000}, "config.json is no JSON that `siamese train` writes"),
        ({"model.safetensors": good["model.safetensors"][:-1] + b"?"}, "is damaged, or not the one"),
    )
    for number, (files, says) in enumerate(cases):
        server.repositories.pop(DIGITS)
        server.create(DIGITS, {"README.md": b""})
        server.put(DIGITS, good | files)
        server.asked.clear()
        run = ask("someone/digits", **server.environment(tmp_path / str(number)))
        assert (run.returncode, run.stdout) == (2, ""), files
        assert says in run.stderr, run.stderr
        if "fetched" in says:
            assert not [asked for asked in server.asked if "GET /someone" in asked]
    assert not (tmp_path / "owned").exists()
    assert not list(tmp_path.rglob("pytorch_model.bin"))


def test_a_damaged_copy_names_what_to_delete(server, pushed, tmp_path):
    assert ask("someone/digits", **pushed).returncode == 0
    (weights,) = (tmp_path / "cache").rglob("model.safetensors")
    kept = weights.resolve()
    kept.write_bytes(kept.read_bytes()[:-4] + b"\1\1\1\1")
    run = ask("someone/digits", **pushed)
    assert (run.returncode, f"delete {weights.parent}, and it is fetched anew" in run.stderr) == (2, True), run.stderr
    shutil.rmtree(weights.parent)
    kept.unlink()
    assert ask("someone/digits", **pushed).returncode == 0
    assert load_file(weights)


def test_cards_are_written_from_the_metrics_beside_them(trained):
    for folder, name in ((ROOT / "weights" / "att", "weights/att"), (trained, "path/to/digits")):
        record = json.loads((folder / "metrics.json").read_text())
        text = (folder / "README.md").read_text()
        assert text == model_card(record, name)
        code, printed = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL).groups()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code.replace(f'"{name}"', f'"{folder}"'), {})
        assert out.getvalue() == printed
        card = ModelCard.load(folder / "README.md")
        assert card.data.license == ("mit" if name == "weights/att" else None)
        values = [result.metric_value for result in card.data.eval_results]
        assert ("face-verification" in card.data.tags) == (name == "weights/att")
        assert values[:2] == [round(record["test"][key], 4) for key in ("auc", "eer")]


def test_the_repository_holds_no_photographs_of_the_data():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "weights/att/model.safetensors" in files
    assert not [name for name in files if name.endswith((".pgm", "pairs.png", "hardest.png"))]
