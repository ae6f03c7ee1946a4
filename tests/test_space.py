"""From a folder of images to a Space that runs: against a Hub on loopback, in environments of its own."""

import ast
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from gradio_client import Client, handle_file

from siamese.hub import space

from . import command
from .conftest import EXAMPLES, ROOT, free_port, serving
from .hub_server import Fault, Hub

TOKEN = "hf_planted_secret_token"
PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
README = (ROOT / "README.md").read_text()
SPACE = "spaces/USER/SPACE"


@pytest.fixture
def server():
    return Hub(TOKEN, "USER")


def siamese(*arguments, **environment) -> command.Run:
    run = command.run(*arguments, **environment)
    assert "hf_" not in run.stdout + run.stderr, "a token was printed"
    return run


def python(version: str) -> str:
    """Return a Python of this version, on the path or of pyenv."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*/bin/python")
    for candidate in (shutil.which(f"python{version}"), *map(str, sorted(kept))):
        # What pyenv puts on the path may only say which version to choose.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return pytest.skip(f"needs Python {version}, which Spaces have: install it")


class Booted(NamedTuple):
    """A page that runs in an environment with only the packages of requirements.txt."""

    address: str
    python: Path
    environment: dict[str, str]


@contextlib.contextmanager
def booted(server: Hub, folder: Path, version: str):
    """Copy a Space's files into an empty folder, install only its requirements, and start the page as a Space does."""
    interpreter, run = python(version), folder / "env" / "bin" / "python"
    for name, content in server.files(SPACE).items():
        (folder / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "app" / name).write_bytes(content)
    uv = Path(sys.executable).with_name("uv")
    requirements = folder / "app" / "requirements.txt"
    subprocess.run([uv, "venv", "--quiet", "--python", interpreter, folder / "env"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", run, "-r", requirements], check=True)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SYSTEM": "spaces",
        "SPACE_ID": "USER/SPACE",
        "SPACE_HOST": "user-space.hf.space",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(port),
        **server.environment(folder / "cache", token=""),
        **server.repositories[SPACE].variables,
    }
    log = (folder / "log").open("w+")
    process = subprocess.Popen([run, "app.py"], cwd=folder / "app", env=environment, stdout=log, stderr=log)
    try:
        yield Booted(serving(process, port), run, environment)
    except AssertionError:
        print((folder / "log").read_text())
        raise
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder / "env")  # gigabytes
    assert "hf_" not in (folder / "log").read_text()
    assert str(PAIR[0].name) not in (folder / "log").read_text()


def check_base_install(space: Booted, hub: dict[str, str]) -> None:
    """Everything that needs no training works with only the packages of requirements.txt."""

    def siamese(*arguments) -> subprocess.CompletedProcess:
        command = [space.python, "-m", "siamese", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=space.environment | hub, capture_output=True, text=True)

    for arguments in (
        ("compare", *PAIR),
        ("push", "weights/att", "USER/att"),
        ("deploy", "USER/SPACE", "--dry-run"),
        ("deploy", "USER/SPACE", "--dry-run", "--weights", "weights/att"),
    ):
        run = siamese(*arguments)
        assert (run.returncode, run.stderr) == (0, ""), arguments
    for arguments, extra in (
        (("export", "weights/att", "--onnx", "network.onnx"), "onnx"),
        (("train", "--data", "att"), "train"),
    ):
        run = siamese(*arguments)
        assert run.returncode == 2
        assert f"pip install '.[{extra}]'" in run.stderr, run.stderr


def test_the_four_commands_of_the_readme(server, digits, trained, tmp_path, monkeypatch):
    block = re.search(r"## From a folder to a Space\n.*?```bash\n(.*?)```", README, re.DOTALL)[1]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [words[:2] for words in commands[:3]] == [["siamese", verb] for verb in ("train", "push", "deploy")]
    assert commands[3] == ["open", "https://huggingface.co/spaces/USER/SPACE"]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits, "FOLDER")
    environment = server.environment(tmp_path / "cache")
    for words in commands[:3]:
        run = siamese(*words[1:], **environment)
        assert run.returncode == 0, run.stderr
    assert run.stdout == commands[3][1].replace("https://huggingface.co", server.url) + "\n"
    assert run.stderr.splitlines()[-3:] == ["building", "app starting", "running"]
    front = yaml.safe_load(server.files(SPACE)["README.md"].decode().split("---")[1])
    assert (front["title"], front["models"]) == ("Siamese network, FOLDER", ["USER/NAME"])
    assert front["tags"] == ["siamese-network", "contrastive-loss"]  # and nothing of faces
    assert "thumbnail" not in front
    for files in (server.files(SPACE), server.files("models/USER/NAME")):
        assert not [name for name, content in files.items() if TOKEN.encode() in content]
    pair = [str(tmp_path / "FOLDER" / digit / "0.png") for digit in "47"]
    here = json.loads(siamese("compare", *pair, "--weights", "runs/FOLDER", "--json").stdout)
    (tmp_path / "space").mkdir()
    with booted(server, tmp_path / "space", "3.12") as space:
        there = Client(space.address, verbose=False).predict(*map(handle_file, pair), api_name="/compare")
    assert there.pop("model") == f"USER/NAME@{server.repositories['models/USER/NAME'].branches['main']}"
    assert there["dissimilarity"] == pytest.approx(here["dissimilarity"], rel=1e-3)
    assert there["verdict"] == here["verdict"]


def test_the_face_network_in_a_space_with_the_oldest_python(server, tmp_path):
    """Deployed as it is; started without the Hub, which it does not need."""
    run = siamese("deploy", "USER/SPACE", **server.environment(tmp_path / "cache"))
    assert run.returncode == 0, run.stderr
    assert server.repositories[SPACE].variables == {"SIAMESE_WEIGHTS": "weights/faces"}
    server.fault = Fault("", "drop")
    with booted(server, tmp_path, "3.10") as space:
        answer = Client(space.address, verbose=False).predict(*map(handle_file, PAIR), api_name="/compare")
        server.fault = None
        check_base_install(space, server.environment(tmp_path / "cache"))
    here = json.loads(siamese("compare", *PAIR, "--json").stdout)
    assert answer["dissimilarity"] == pytest.approx(here["dissimilarity"], rel=1e-3)
    assert (answer["verdict"], answer["model"]) == (here["verdict"], "faces")


def test_a_dry_run_lists_what_a_deployment_sends_and_sends_nothing(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    tokenless = {**server.environment(tmp_path / "none", token=""), "HF_HUB_OFFLINE": "1"}
    dry = siamese("deploy", "USER/SPACE", "--weights", trained, "--dry-run", **tokenless)
    assert (dry.returncode, server.asked) == (0, []), dry.stderr
    run = siamese("deploy", "USER/SPACE", "--weights", trained, "--private", **environment)
    assert run.returncode == 0, run.stderr
    files, repository = server.files(SPACE), server.repositories[SPACE]
    listing, front = dry.stdout.split("\n\n", 1)
    listed = dict(reversed(line.split()) for line in listing.splitlines())
    assert {name: int(size.replace(",", "")) for name, size in listed.items()} == {
        name: len(content) for name, content in files.items()
    }
    assert repository.private
    assert repository.variables == {"SIAMESE_WEIGHTS": "runs/digits"}
    assert front.startswith("SIAMESE_WEIGHTS=runs/digits\n")
    assert yaml.safe_load(front.split("---")[1]) == yaml.safe_load(files["README.md"].decode().split("---")[1])
    # What it needs, and no tests, no data, nobody's names.
    assert {name.split("/")[0] for name in files} == {
        *("LICENSE", "README.md", "app.css", "app.py", "docs", "examples", "pyproject.toml", "requirements.txt"),
        *("runs", "siamese", "weights"),
    }
    assert not [name for name in files if "pairs.png" in name or "hardest.png" in name]
    assert json.loads(files["runs/digits/metrics.json"])["people"]["test"] == [4, 6]
    assert not [name for name, content in files.items() if bytes(ROOT) in content or bytes(tmp_path) in content]


def test_the_examples_that_the_page_shows_go_with_it():
    import app

    files = space.plan("USER/SPACE").files
    assert {f"examples/{name}" for pair in app.PAIRS for name in pair} <= files.keys()


def test_a_second_deployment_keeps_the_network_and_what_is_not_ours(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    assert siamese("deploy", "USER/SPACE", "--weights", trained, **environment).returncode == 0
    repository, first = server.repositories[SPACE], server.files(SPACE)
    server.put(SPACE, {"NOTES.md": b"mine", "siamese/old.py": b"gone"})
    # As the workflow does it: the page is new, the network and its card stay.
    run = siamese("deploy", "USER/SPACE", **environment)
    assert run.returncode == 0, run.stderr
    assert server.files(SPACE) == first | {"NOTES.md": b"mine"}
    assert repository.variables == {"SIAMESE_WEIGHTS": "runs/digits"}
    faces = ROOT / "weights" / "faces"
    run = siamese("deploy", "USER/SPACE", "--weights", faces, "--hardware", "zero-a10g", **environment)
    assert run.returncode == 0, run.stderr
    assert (repository.hardware, repository.variables) == ("zero-a10g", {"SIAMESE_WEIGHTS": "weights/faces"})
    files = server.files(SPACE)
    assert files.keys() >= space.plan("USER/SPACE").files.keys()
    front = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert front["title"] == "How alike are two faces?"
    assert front["thumbnail"] == f"{server.url}/spaces/USER/SPACE/resolve/main/docs/page.png"


def test_a_space_that_is_paused_is_woken(server, tmp_path):
    environment = server.environment(tmp_path / "cache")
    assert siamese("deploy", "USER/SPACE", **environment).returncode == 0
    server.repositories[SPACE].stages = ["PAUSED"]
    run = siamese("deploy", "USER/SPACE", **environment)
    assert (run.returncode, run.stderr.splitlines()[-1]) == (0, "running")


def test_free_accounts_have_their_spaces_on_zerogpu(server, tmp_path):
    server.free = True
    run = siamese("deploy", "USER/SPACE", **server.environment(tmp_path / "cache"))
    assert run.returncode == 0, run.stderr
    assert "the account's plan has no Spaces on a CPU: taking zero-a10g" in run.stderr
    assert server.repositories[SPACE].hardware == "zero-a10g"


def test_a_space_reads_a_private_network_only_with_a_secret(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    assert siamese("push", trained, "USER/NAME", "--private", **environment).returncode == 0
    run = siamese("deploy", "USER/SPACE", "--weights", "USER/NAME", **environment)
    assert (run.returncode, "USER/NAME is private: the Space can only read it with" in run.stderr) == (0, True)


def test_refusals_are_sentences(server, tmp_path):
    good = server.environment(tmp_path / "cache")
    cats = {"app.py": b"cats", "README.md": b"---\nsdk: gradio\n---\n# Cats"}
    server.create("spaces/USER/cats", cats)
    for arguments, environment, says in (
        (("SPACE",), good, "a repository on the Hub is named USER/NAME, got 'SPACE'"),
        (("USER/SPACE", "--hardware", "t4"), good, "the Hub has no hardware 't4'; it has cpu-basic"),
        (("USER/SPACE", "--weights", tmp_path), good, "holds no trained network"),
        (("USER/SPACE", "--weights", "USER/nothing"), good, "there is no USER/nothing on the Hub"),
        (("USER/SPACE",), server.environment(tmp_path / "cache", token=""), "no Hugging Face token"),
        (("USER/SPACE",), {**good, "HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        (("else/SPACE",), good, "may not write there. Once that is mended, run `siamese deploy else/SPACE` again"),
        (("USER/cats",), good, "USER/cats holds something else: its card has no tag 'siamese-network'"),
    ):
        run = siamese("deploy", *arguments, **environment)
        assert (run.returncode, run.stdout) == (2, "")
        assert says in run.stderr, run.stderr
    assert server.files("spaces/USER/cats") == cats
    server.free = True
    run = siamese("deploy", "USER/SPACE", "--hardware", "t4-small", **good)
    assert "the account's plan does not cover that hardware" in run.stderr
    assert SPACE not in server.repositories


def test_a_deployment_that_breaks_off_changes_nothing_and_can_be_repeated(server, trained, tmp_path):
    environment = server.environment(tmp_path / "cache")
    assert siamese("deploy", "USER/SPACE", **environment).returncode == 0
    repository, first = server.repositories[SPACE], server.files(SPACE)
    for part in ("/runtime", "GET /api/spaces/USER/SPACE/variables", "/commit/"):
        server.fault = Fault(part, "drop")
        run = siamese("deploy", "USER/SPACE", "--weights", trained, **environment)
        assert (run.returncode, "With a network, run `siamese deploy USER/SPACE` again" in run.stderr) == (2, True)
        assert (server.files(SPACE), repository.variables) == (first, {"SIAMESE_WEIGHTS": "weights/faces"})
    server.fault = Fault("POST /api/spaces/USER/SPACE/variables", "drop")  # the old network is there still, and shown
    assert siamese("deploy", "USER/SPACE", "--weights", trained, **environment).returncode == 2
    assert server.files(SPACE).keys() > first.keys()
    server.fault = None
    assert siamese("deploy", "USER/SPACE", "--weights", trained, **environment).returncode == 0
    assert repository.variables == {"SIAMESE_WEIGHTS": "runs/digits"}


def test_a_space_that_does_not_come_up_says_where_to_look(server, tmp_path):
    server.stages = ("BUILDING", "BUILD_ERROR")
    run = siamese("deploy", "USER/SPACE", **server.environment(tmp_path / "cache"))
    assert run.returncode == 2
    assert f"does not run (BUILD_ERROR): see {server.url}/spaces/USER/SPACE?logs=build" in run.stderr


def test_a_page_without_its_network_shows_the_one_in_the_repository_and_says_so(server, trained, start_page, tmp_path):
    environment = server.environment(tmp_path / "cache")
    assert siamese("push", trained, "USER/NAME", **environment).returncode == 0
    server.fault = Fault("", "drop")
    environment["SIAMESE_WEIGHTS"] = "USER/NAME"
    notice = "the Hub cannot be reached, and no copy was kept: this is the network that comes with the project."
    for kept in (False, True):
        if kept:
            server.fault = None
            assert siamese("compare", *PAIR, "--weights", "USER/NAME", **environment).returncode == 0
            server.fault = Fault("", "drop")
            notice = "The Hub cannot be reached; this is the copy of USER/NAME that was kept."
        page = start_page(**environment)
        with urllib.request.urlopen(f"{page}/config") as config:
            texts = str(json.load(config)["components"])
        assert notice in texts
        answer = Client(page, verbose=False).predict(*map(handle_file, PAIR), api_name="/compare")
        assert answer["model"].split("@")[0] == ("USER/NAME" if kept else "faces")


def test_what_runs_on_a_zerogpu_runs_in_its_functions():
    code = """
import app
pair = ("examples/obama-speaking.jpg", "examples/obama-standing.jpg")
assert app.compare.duration == 15
assert app.gather.duration(list(pair)) == 7
card, seen = app.show(*pair, 0.0)
assert app.changed(*pair, 0.0) == ((0, 0), card, seen)
assert app.changed(None, None, 0.0)[2] == ""
assert app.judge(*pair, 0.0, (0, 0)) == card
assert app.compare(*pair)["verdict"] == "same"
assert len(app.group_photos(list(pair))["faces"]) == 2
assert len(app.gather(list(pair), 0.0, app.gr.Progress())[0].faces) == 2
assert "tutorial" in app.side_by_side(*pair, (0, 0))
try:
    app.compare(pair[0], None)
except app.gr.Error as error:
    print(error.message)
try:
    app.model.embed(pair)
except RuntimeError as error:
    print(error)
"""
    path = os.pathsep.join([str(ROOT / "tests" / "zerogpu"), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert run.stdout.splitlines() == [
        "The second picture is missing.",
        "a network was run where ZeroGPU has no GPU",
    ], run.stderr


def test_on_a_zerogpu_all_networks_are_on_the_gpu_from_the_start():
    """With the package itself, which takes the place of the GPU until there is one."""
    code = """
import app
networks = app.model.network, app.tutorial.network, *app.mtcnn.networks(app.model.network.device)
print({str(weight.device) for network in networks for weight in network.state_dict().values()})
"""
    zero = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **zero})
    assert run.stdout == "{'cuda:0'}\n", run.stderr


def test_a_page_is_not_started_with_a_record_that_it_cannot_show(trained, tmp_path):
    record = json.loads((trained / "metrics.json").read_text())
    shutil.copytree(trained, tmp_path / "odd")
    for change in ({"curves": {}}, {"test": {}, "folds": None}):
        (tmp_path / "odd" / "metrics.json").write_text(json.dumps(record | change))
        environment = {**os.environ, "SIAMESE_WEIGHTS": str(tmp_path / "odd")}
        command = [sys.executable, "-c", "import app"]
        run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert run.stderr.startswith("error: odd: metrics.json lacks what `siamese train` writes"), run.stderr


def test_a_space_installs_what_the_page_imports_and_nothing_else():
    names = "[name for name in sys.modules if name.split('.')[0] == 'siamese']"
    code = f"import json, sys, app; print(json.dumps({names}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    files = [ROOT / "app.py"]
    for name in json.loads(run.stdout.splitlines()[-1]):
        place = ROOT / name.replace(".", "/")
        files.append(place / "__init__.py" if place.is_dir() else place.with_suffix(".py"))
    imported = set()
    for node in (node for file in files for node in ast.parse(file.read_text()).body):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [re.match(r"(\w+)[>=]=[\d.]+  # \w+", line) for line in lines if not line.startswith("#")]
    assert all(wanted), "each with its reason"
    installed = {match[1].replace("pillow", "PIL") for match in wanted}
    assert imported - sys.stdlib_module_names - {"siamese"} == installed


def test_the_front_matter_is_whole():
    import gradio

    front = yaml.safe_load(README.split("---")[1])
    assert (front["sdk"], front["sdk_version"]) == ("gradio", gradio.__version__)
    assert front["python_version"] == "3.12"
    assert len(front["short_description"]) <= 60
    assert front["models"] == []  # the weights are in the repository
    assert "siamese-network" in front["tags"]
    for file in (front["app_file"], front["thumbnail"]):
        assert (ROOT / file).is_file()


def test_the_workflow_deploys_main_once_it_is_switched_on():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "space.yml").read_text())
    assert workflow[True]["push"] == {"branches": ["main"]}  # YAML takes "on" for true
    job = workflow["jobs"]["deploy"]
    assert job["if"] == "vars.SPACE != ''"
    last = job["steps"][-1]
    assert last["run"] == 'python -m siamese deploy "$SPACE"'
    assert last["env"] == {"SPACE": "${{ vars.SPACE }}", "HF_TOKEN": "${{ secrets.HF_TOKEN }}"}
