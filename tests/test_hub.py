"""Push and pull through the real client, against a Hub on loopback."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from siamese.card import model_card

from .conftest import EXAMPLES, ROOT
from .hub_server import Hub

TOKEN = "hf_planted_secret_token"
FILES = ["README.md", "config.json", "distances.png", "loss.png", "metrics.json", "model.safetensors", "roc.png"]
PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"


def siamese(*arguments, **environment) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own: the client reads its environment when it is imported."""
    command = [sys.executable, "-m", "siamese", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment})


@pytest.fixture
def server():
    return Hub(TOKEN)


def test_pushed_weights_come_back_and_answer_the_same(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    for _ in range(2):  # safe to repeat
        pushed = siamese("push", trained, "someone/digits", **environment)
        assert pushed.returncode == 0, pushed.stderr
        assert f"{server.url}/someone/digits" in pushed.stdout
    assert server.commits == [FILES] * 2  # one commit each, without the photographs of pairs.png and hardest.png
    here = siamese("compare", *PAIR, "--weights", trained, "--json")
    there = siamese("compare", *PAIR, "--weights", "someone/digits", "--json", **environment)
    assert json.loads(there.stdout) == json.loads(here.stdout), there.stderr
    offline = siamese(
        "compare", *PAIR, "--weights", "someone/digits", "--json", **{**environment, "HF_HUB_OFFLINE": "1"}
    )
    assert offline.stdout == there.stdout
    card = ModelCard(server.files["someone/digits"]["README.md"].decode())
    assert 'siamese.load("someone/digits")' in card.text
    assert TOKEN not in "".join([pushed.stdout, pushed.stderr, str(card)])


def test_what_is_pushed_names_no_people_and_no_path(server, trained, tmp_path):
    folder, environment = tmp_path / "network", server.environment(tmp_path / "cache")
    shutil.copytree(trained, folder)
    record = json.loads((folder / "metrics.json").read_text())
    names = [f"Jane Doe the {name}th" for name in "0123456789"]
    record["people"] = {"training": names[:2] + names[3:9], "test": [names[2], names[9]]}
    record["confused"] = [[names[2], names[9], 0.25, 64]]
    for init, published in ((ROOT / "weights" / "faces", "faces"), (tmp_path / "gone", "gone"), ("who/it", "who/it")):
        record["recipe"] |= {"init": str(init), "freeze": 5}
        (folder / "metrics.json").write_text(json.dumps(record))
        pushed = siamese("push", folder, "someone/digits", **environment)
        assert pushed.returncode == 0, pushed.stderr
        files = server.files["someone/digits"]
        metrics, card = json.loads(files["metrics.json"]), files["README.md"].decode()
        for secret in (b"Jane", bytes(ROOT), bytes(tmp_path)):
            assert not [name for name, content in files.items() if secret in content]
        assert metrics["people"] == {"training": [0, 1, 3, 4, 5, 6, 7, 8], "test": [2, 9]}
        assert metrics["confused"] == [[2, 9, 0.25, 64]]
        assert "| 2 | 9 | 25% | 64 |" in card
        assert metrics["recipe"] == {**record["recipe"], "init": published}
        assert card == model_card(metrics, "someone/digits")
        assert f"--init {published} --freeze 5" in card
        assert metrics == {**record, **{key: metrics[key] for key in ("people", "confused", "recipe")}}


def test_a_pushed_network_is_still_not_judged_by_people_it_was_trained_on(server, trained, digits, tmp_path):
    environment = server.environment(tmp_path / "cache")
    assert siamese("push", trained, "someone/digits", **environment).returncode == 0
    here = siamese("evaluate", trained, "--data", digits)
    there = siamese("evaluate", "someone/digits", "--data", digits, **environment)
    assert (there.returncode, "note:" in there.stderr) == (0, False), there.stderr
    assert there.stdout == here.stdout
    # Of other data it cannot know; it says so, and judges by no calibration that may rest on these people.
    shutil.copytree(digits, tmp_path / "more")
    shutil.copy(digits / "3" / "0.png", tmp_path / "more" / "3" / "9.png")
    more = siamese("evaluate", "someone/digits", "--data", tmp_path / "more", **environment)
    assert (more.returncode, more.stderr.count("note: this network's metrics.json numbers the people")) == (0, 1)
    assert "10 in all" in more.stdout


def test_training_pushes_when_asked(server, digits, tmp_path):
    run = siamese(
        *("train", "--data", digits, "--epochs", 1, "--out", tmp_path / "run", "--push-to-hub", "someone/new"),
        **server.environment(tmp_path / "cache"),
    )
    assert run.returncode == 0, run.stderr
    assert sorted(server.files["someone/new"]) == FILES


def test_an_interrupted_push_can_be_repeated(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    server.down = "/commit/"
    refused = siamese("push", trained, "someone/digits", **environment)
    assert refused.returncode == 2
    assert "error: the Hub did not take someone/digits" in refused.stderr
    assert server.files["someone/digits"] == {}
    server.down = None
    assert siamese("push", trained, "someone/digits", **environment).returncode == 0


def test_refusals_are_sentences(server, trained, tmp_path):
    good, none = server.environment(tmp_path / "cache"), server.environment(tmp_path / "cache", token="")
    wrong = server.environment(tmp_path / "cache", token="hf_wrong")
    away = {**good, "HF_ENDPOINT": "http://127.0.0.1:9"}
    for folder, name, environment, says in (
        (trained, "digits", good, "USER/NAME"),
        (trained, "some one/digits", good, "USER/NAME"),
        (tmp_path, "someone/digits", good, "is not a trained network"),
        (trained, "someone/digits", none, "no Hugging Face token"),
        (trained, "someone/digits", wrong, "token is not valid"),
        (trained, "someone/digits", away, "cannot be reached"),
    ):
        run = siamese("push", folder, name, **environment)
        assert run.returncode == 2
        assert run.stderr.startswith("error: ")
        assert says in run.stderr, run.stderr
        assert "hf_" not in run.stderr
    missing = siamese("compare", *PAIR, "--weights", "someone/nothing", **good)
    assert (missing.returncode, "holds no trained network" in missing.stderr) == (2, True)
    unreachable = siamese("compare", *PAIR, "--weights", "someone/nothing", **away)
    assert (unreachable.returncode, "cannot be reached" in unreachable.stderr) == (2, True)


def test_a_repository_with_a_pickle_is_refused(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    assert siamese("push", trained, "someone/digits", **environment).returncode == 0
    files = server.files["someone/digits"]
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    run = siamese("compare", *PAIR, "--weights", "someone/digits", **server.environment(tmp_path / "other"))
    assert (run.returncode, "holds no trained network" in run.stderr) == (2, True)


def test_cards_are_written_from_the_metrics_beside_them(trained):
    for folder, name in ((ROOT / "weights" / "att", "weights/att"), (trained, "path/to/digits")):
        record = json.loads((folder / "metrics.json").read_text())
        assert (folder / "README.md").read_text() == model_card(record, name)
        card = ModelCard.load(folder / "README.md")
        assert card.data.license == ("mit" if name == "weights/att" else None)
        values = [result.metric_value for result in card.data.eval_results]
        assert values[:2] == [round(record["test"][key], 4) for key in ("auc", "eer")]


def test_the_repository_holds_no_photographs_of_the_data():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "weights/att/model.safetensors" in files
    assert not [name for name in files if name.endswith((".pgm", "pairs.png", "hardest.png"))]
