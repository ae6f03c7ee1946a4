"""From a folder of images to a running Space: against a Hub on localhost, in environments of their own."""

import ast
import contextlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from gradio_client import Client, handle_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from siamese import checkpoint
from siamese import files as project
from siamese.hub import space
from siamese.hub.upload import upload

from . import command
from .conftest import EXAMPLES, ROOT, free_port, serving
from .hub_server import Fault, Hub
from .zerogpu import checks

TOKEN = "hf_planted_secret_token"
PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
SPACE = "spaces/USER/SPACE"
LOCK = ROOT / "requirements.lock"


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = Hub(TOKEN, "USER")
    server.connect(monkeypatch, tmp_path / "cache")
    return server


@pytest.fixture
def folder(tmp_path) -> Path:
    """A result folder as training writes it, with pictures that must not be published."""
    folder = tmp_path / "network"
    shutil.copytree(ROOT / "weights" / "att", folder)
    for name in ("pairs.png", "hardest.png"):
        (folder / name).write_bytes(b"photos of the data")
    return folder


def deploy(weights=None, **settings) -> list[str]:
    """Deploy to USER/SPACE. Returns the progress messages."""
    log = []
    space.deploy("USER/SPACE", weights, log=log.append, **settings)
    assert TOKEN not in str(log)
    return log


def front_matter(server: Hub) -> dict:
    return yaml.safe_load(server.files(SPACE)["README.md"].decode().split("---")[1])


# --- Space boots: a page in an environment with only the packages of requirements.txt


class Boot(NamedTuple):
    """A running page."""

    address: str
    python: Path
    environment: dict[str, str]

    def compare(self, pair) -> dict:
        return Client(self.address, verbose=False).predict(*map(handle_file, pair), api_name="/compare")


def find_python(version: str) -> str:
    """Return a Python of this version from the PATH or from pyenv."""
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*/bin/python")
    for candidate in (shutil.which(f"python{version}"), *map(str, sorted(installed))):
        # The one on the PATH may be a shim of pyenv that does not run.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return pytest.skip(f"needs Python {version}")


@contextlib.contextmanager
def boot(server: Hub, folder: Path, version: str):
    """Copy the files of a Space, install its requirements, and start the page like a Space."""
    interpreter, python = find_python(version), folder / "env" / "bin" / "python"
    for name, content in server.files(SPACE).items():
        (folder / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "app" / name).write_bytes(content)
    uv = Path(sys.executable).with_name("uv")
    requirements = "-r", folder / "app" / "requirements.txt", "--constraint", LOCK
    subprocess.run([uv, "venv", "--quiet", "--python", interpreter, folder / "env"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *requirements], check=True)
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
    process = subprocess.Popen([python, "app.py"], cwd=folder / "app", env=environment, stdout=log, stderr=log)
    try:
        yield Boot(serving(process, port), python, environment)
    except AssertionError:
        print((folder / "log").read_text())
        raise
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder / "env")  # gigabytes
    output = (folder / "log").read_text()
    assert "hf_" not in output
    assert PAIR[0].name not in output


def check_base_install(page: Boot, server: Hub) -> None:
    """Check that everything but training, evaluation and export works with the packages of requirements.txt."""
    commands = [
        ["compare", *map(str, PAIR)],
        ["push", "weights/att", "USER/att"],
        ["deploy", "USER/SPACE", "--dry-run", "--weights", "weights/att"],
        ["export", "weights/att", "--onnx", "network.onnx"],
        ["train", "--data", "att"],
    ]
    code = f"from siamese.cli import main; print([main(command) for command in {commands}])"
    environment = page.environment | server.environment(Path(page.environment["HF_HOME"]))
    run = subprocess.run([page.python, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "[0, 0, 0, 2, 2]", run.stderr
    *_, export, train = run.stderr.splitlines()
    assert "pip install 'siamese-faces[onnx]'" in export
    assert "pip install 'siamese-faces[train]'" in train


@pytest.fixture
def run(server, tmp_path, monkeypatch):
    """Run a command in `tmp_path`, connected to the server."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> command.Run:
        done = command.run(*arguments, **server.environment(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        assert "hf_" not in done.stdout + done.stderr
        return done

    return run


def test_from_a_folder_to_a_space(server, run, digits, tmp_path):
    """Train, push and deploy with three commands."""
    shutil.copytree(digits, tmp_path / "FOLDER")
    run("train", "--data", "FOLDER", "--epochs", 2, "--push-to-hub", "USER/trained")
    run("push", "runs/FOLDER", "USER/NAME")
    done = run("deploy", "USER/SPACE", "--weights", "USER/NAME")
    assert done.stdout == f"{server.url}/spaces/USER/SPACE\n"
    assert done.stderr.splitlines()[-3:] == ["building", "app starting", "running"]
    trained, named = (server.files(f"models/USER/{name}") for name in ("trained", "NAME"))
    assert trained.keys() == named.keys() >= {"config.json", "metrics.json", "model.safetensors", "README.md"}
    assert trained["model.safetensors"] == named["model.safetensors"]
    front = front_matter(server)
    assert (front["title"], front["models"]) == ("Siamese network, FOLDER", ["USER/NAME"])
    assert "face-verification" not in front["tags"]
    assert "thumbnail" not in front
    for files in (server.files(SPACE), named):
        assert not [name for name, content in files.items() if TOKEN.encode() in content]


@pytest.mark.slow
def test_space_gives_the_answers_of_the_command_line(server, run, trained, digits, tmp_path):
    run("push", trained, "USER/NAME")
    run("deploy", "USER/SPACE", "--weights", "USER/NAME")
    pair = [str(digits / digit / "0.png") for digit in "47"]
    here = json.loads(run("compare", *pair, "--weights", trained, "--json").stdout)
    (tmp_path / "space").mkdir()
    with boot(server, tmp_path / "space", "3.12") as page:
        there = page.compare(pair)
        check_base_install(page, server)
    assert there.pop("model") == f"USER/NAME@{server.repositories['models/USER/NAME'].branches['main']}"
    assert there["dissimilarity"] == pytest.approx(here["dissimilarity"], rel=1e-3)
    assert there["verdict"] == here["verdict"]


@pytest.mark.slow
def test_face_network_in_a_space_with_the_oldest_python(server, tmp_path):
    """The face network is among the files of the Space, so it starts without the Hub."""
    deploy()
    assert server.repositories[SPACE].variables == {"SIAMESE_WEIGHTS": "weights/faces"}
    server.fault = Fault("", "drop")
    with boot(server, tmp_path, "3.10") as page:
        there = page.compare(PAIR)
        server.fault = None
        check_base_install(page, server)
    here = checkpoint.load(device="cpu").compare(*PAIR)
    assert there["dissimilarity"] == pytest.approx(here.dissimilarity, rel=1e-3)
    assert (there["verdict"], there["model"]) == (here.verdict, "faces")


# --- deployments


def test_dry_run_lists_what_a_deployment_sends(server, folder, siamese, monkeypatch, tmp_path):
    server.connect(monkeypatch, tmp_path / "none", token="", offline=True)
    dry = siamese("deploy", "USER/SPACE", "--weights", folder, "--dry-run")
    assert (dry.returncode, server.asked) == (0, []), dry.stderr
    server.connect(monkeypatch, tmp_path / "cache")
    deploy(folder, private=True)
    files, repository = server.files(SPACE), server.repositories[SPACE]
    listing, front = dry.stdout.split("\n\n", 1)
    listed = dict(reversed(line.split()) for line in listing.splitlines())
    assert {name: int(size.replace(",", "")) for name, size in listed.items()} == {
        name: len(content) for name, content in files.items()
    }
    assert repository.private
    assert repository.variables == {"SIAMESE_WEIGHTS": "runs/network"}
    assert front.startswith("SIAMESE_WEIGHTS=runs/network\n")
    assert yaml.safe_load(front.split("---")[1]) == front_matter(server)
    # No tests, no data and no names.
    assert {name.split("/")[0] for name in files} == {
        *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "app.css", "app.js", "app.py", "hatch_build.py"),
        *("docs", "examples", "pyproject.toml", "requirements.txt", "runs", "siamese", "weights"),
    }
    assert {"siamese/py.typed", "siamese/hub/templates/card_space.md"} <= files.keys()
    assert not [name for name in files if "pairs.png" in name or "hardest.png" in name]
    assert json.loads(files["runs/network/metrics.json"])["people"]["test"] == [35, 36, 37]
    assert not [name for name, content in files.items() if bytes(ROOT) in content or bytes(tmp_path) in content]


def test_files_of_the_user_and_targets_of_links_are_not_published(server, folder, monkeypatch, tmp_path):
    """Neither beside the code, nor in a result folder."""
    clone, secret = tmp_path / "clone", tmp_path / "id_rsa"
    secret.write_text("private")
    for name, file in project.project_files().items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, clone / name)
    for name in ("docs/private-notes.md", "siamese/my_secrets.py", "siamese/hub/templates/mine.md", "examples/me.jpg"):
        (clone / name).write_text("private")
    monkeypatch.setattr(project, "PACKAGE", clone / "siamese")
    monkeypatch.setattr(project, "PROJECT", clone)
    assert space.plan("USER/SPACE").files.keys() == {*project.project_files()}
    for place, publish in ((clone, lambda: deploy()), (folder, lambda: upload(folder, "USER/NAME"))):
        (place / "LICENSE").unlink(missing_ok=True)
        (place / "LICENSE").symlink_to(secret)
        with pytest.raises(ValueError, match="LICENSE is missing, a link"):
            publish()
        (place / "LICENSE").unlink()
    shutil.copytree(clone / "docs", tmp_path / "docs")
    shutil.rmtree(clone / "docs")
    (clone / "docs").symlink_to(tmp_path / "docs")
    with pytest.raises(ValueError, match="a link"):
        deploy()
    assert server.repositories == {}


def test_examples_of_the_page_are_deployed():
    import app

    examples = app.FACE_PAIRS + app.FIND_EXAMPLE + app.GROUP_EXAMPLE
    examples = {photo.relative_to(ROOT).as_posix() for _, photos in examples for photo in photos}
    assert examples <= space.plan("USER/SPACE").files.keys()


def test_second_deployment_keeps_the_network_and_other_files(server, folder):
    deploy(folder)
    repository, first = server.repositories[SPACE], server.files(SPACE)
    server.put(SPACE, {"NOTES.md": b"mine", "siamese/old.py": b"gone"})
    deploy()  # like the workflow
    assert server.files(SPACE) == first | {"NOTES.md": b"mine"}
    assert repository.variables == {"SIAMESE_WEIGHTS": "runs/network"}
    deploy(ROOT / "weights" / "faces", hardware="zero-a10g")
    assert (repository.hardware, repository.variables) == ("zero-a10g", {"SIAMESE_WEIGHTS": "weights/faces"})
    assert server.files(SPACE).keys() >= space.plan("USER/SPACE").files.keys()
    project = yaml.safe_load((ROOT / "README.md").read_text().split("---")[1])
    thumbnail = f"{server.url}/spaces/USER/SPACE/resolve/main/{project['thumbnail']}"
    assert front_matter(server) == project | {"thumbnail": thumbnail}


def test_another_network_replaces_the_previous_one(server, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    deploy(folder)
    previous = {name for name in server.files(SPACE) if name.startswith("runs/network/")}
    deploy(tmp_path / "other")
    files, (*_, changed) = server.files(SPACE), server.repositories[SPACE].changed
    assert {name.split("/")[1] for name in files if name.startswith("runs/")} == {"other"}
    assert previous < set(changed)  # in the commit that adds the other network
    upload(folder, "USER/NAME")
    deploy("USER/NAME")
    assert not [name for name in server.files(SPACE) if name.startswith("runs/")]


def test_paused_space_is_restarted(server, folder):
    deploy(folder)
    server.repositories[SPACE].stages = ["PAUSED"]
    assert deploy(folder)[-1] == "running"


def test_free_accounts_use_zerogpu(server, folder):
    server.free = True
    assert [line for line in deploy(folder) if "zero-a10g" in line]
    assert server.repositories[SPACE].hardware == "zero-a10g"


def test_private_network_needs_a_secret(server, folder):
    upload(folder, "USER/NAME", private=True)
    assert [line for line in deploy("USER/NAME") if "secret HF_TOKEN" in line]


def test_refusals(server, folder, monkeypatch, tmp_path):
    cats = {"app.py": b"cats", "README.md": b"---\nsdk: gradio\n---\n# Cats"}
    server.create("spaces/USER/cats", cats)
    for name, settings, connection, error, reason in (
        ("SPACE", {}, {}, ValueError, "named USER/NAME, got 'SPACE'"),
        ("USER/SPACE", {"hardware": "t4"}, {}, ValueError, "unknown hardware 't4'"),
        ("USER/SPACE", {"weights": tmp_path}, {}, FileNotFoundError, "holds no trained network"),
        ("USER/SPACE", {"weights": "USER/nothing"}, {}, FileNotFoundError, "no repository USER/nothing"),
        ("USER/SPACE", {}, {"token": ""}, ValueError, "no Hugging Face token"),
        ("USER/SPACE", {}, {"url": "http://127.0.0.1:9"}, ConnectionError, "cannot be reached"),
        ("else/SPACE", {}, {}, ConnectionError, "no write access.*run `siamese deploy else/SPACE` again"),
        ("USER/cats", {}, {}, ValueError, "USER/cats has other content"),
    ):
        server.connect(monkeypatch, tmp_path / "cache", **connection)
        with pytest.raises(error, match=reason):
            space.deploy(name, **{"weights": folder, **settings})
    assert server.files("spaces/USER/cats") == cats
    server.free = True
    with pytest.raises(ConnectionError, match="does not include this hardware"):
        deploy(folder, hardware="t4-small")
    assert SPACE not in server.repositories


def test_interrupted_deployment_changes_nothing_and_can_be_repeated(server, folder):
    deploy()
    repository, first = server.repositories[SPACE], server.files(SPACE)
    for part in ("/runtime", "GET /api/spaces/USER/SPACE/variables", "/commit/"):
        server.fault = Fault(part, "drop")
        with pytest.raises(ConnectionError, match="run `siamese deploy USER/SPACE` again"):
            deploy(folder)
        assert (server.files(SPACE), repository.variables) == (first, {"SIAMESE_WEIGHTS": "weights/faces"})
    # If only the variable cannot be set, the Space still shows the previous network.
    server.fault = Fault("POST /api/spaces/USER/SPACE/variables", "drop")
    with pytest.raises(ConnectionError):
        deploy(folder)
    assert server.files(SPACE).keys() > first.keys()
    server.fault = None
    deploy(folder)
    assert repository.variables == {"SIAMESE_WEIGHTS": "runs/network"}


@pytest.mark.slow
def test_deployment_that_loses_the_hub_at_any_request_is_complete_or_changes_nothing(
    server, folder, monkeypatch, tmp_path
):
    server.asked.clear()
    server.stages = ("RUNNING",)
    deploy(folder)
    complete, requests = server.files(SPACE), len(server.asked)
    monkeypatch.setattr(space, "TIMEOUT_MINUTES", 0.001)
    for answered in range(requests):
        server.repositories.clear()
        server.large.clear()
        server.asked.clear()
        server.fault = Fault("", "drop", answered)
        with contextlib.suppress(ConnectionError, RuntimeError):
            deploy(folder)
        assert server.repositories.get(SPACE) is None or server.files(SPACE) in ({}, complete)
        server.fault = None
    monkeypatch.undo()
    server.connect(monkeypatch, tmp_path / "again")
    deploy(folder)
    assert server.files(SPACE) == complete
    assert server.repositories[SPACE].variables == {"SIAMESE_WEIGHTS": "runs/network"}


def test_failed_start_names_the_log(server, folder):
    server.stages = ("BUILDING", "BUILD_ERROR")
    with pytest.raises(RuntimeError, match=re.escape("(BUILD_ERROR): ") + r".*/spaces/USER/SPACE\?logs=build"):
        deploy(folder)


# --- the page in a Space


def test_page_falls_back_to_the_cached_copy_or_the_bundled_network(server, folder, monkeypatch):
    upload(folder, "USER/NAME")
    monkeypatch.setenv("SIAMESE_WEIGHTS", "USER/NAME")
    for cached in (False, True):
        if cached:
            server.fault = None
            checkpoint.load("USER/NAME")
        server.fault = Fault("", "drop")
        page = runpy.run_path(str(ROOT / "app.py"))
        assert page["model"].id.split("@")[0] == ("USER/NAME" if cached else "faces")
        notice = "cached copy of USER/NAME" if cached else "there is no cached copy"
        assert notice in str(page["demo"].get_config_file()["components"])


@pytest.mark.parametrize(
    "check", [checks.networks_run_inside_gpu_functions, checks.networks_are_on_the_gpu_from_the_start]
)
def test_zerogpu(check):
    process = command.forks.Process(target=check)
    process.start()
    process.join(120)
    assert process.exitcode == 0


# --- files of the repository that a Space or GitHub reads


def imported(*modules: str) -> set[str]:
    """Return the packages that modules of this project import, directly or through other modules of it."""
    modules, packages = list(modules), set()
    for module in modules:  # grows in the loop
        if module == "siamese":  # its imports are lazy
            continue
        base = ROOT / module.replace(".", "/")
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if not file.is_file():  # a name in a module
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            packages |= {name.split(".")[0] for name in names}
            modules += [name for name in names if name.split(".")[0] == "siamese" and name not in modules]
    return packages - sys.stdlib_module_names - {"siamese"}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_dependencies_are_what_the_package_and_the_page_import():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, extras = project["dependencies"], project["optional-dependencies"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [*base, *extras["page"], *extras["heic"]]
    library = imported("siamese.cli.search", "siamese.hub.space")
    # huggingface_hub imports jinja2, and only torchvision's library is loaded.
    modules = {"pillow": "PIL", "pyyaml": "yaml", "markdown-it-py": "markdown_it"}
    installed = {modules.get(name, name) for name in names(base)} | {"onnxruntime", "timm"}  # of some networks only
    assert library == installed - {"jinja2", "torchvision"}
    assert imported("app") - installed == {modules.get(name, name) for name in names(extras["page"])}


def test_locked_packages_fit_the_dependencies():
    lines = [Requirement(line) for line in LOCK.read_text().splitlines() if line[0] != "#"]
    # The oldest and the newest Python of the tests.
    for python in ("3.10", "3.12"):
        here = {"python_version": python, "python_full_version": f"{python}.0"}
        locked = {line.name: line.specifier for line in lines if not line.marker or line.marker.evaluate(here)}
        for wanted in map(Requirement, (ROOT / "requirements.txt").read_text().splitlines()[1:]):
            ((operator, version),) = [(each.operator, each.version) for each in locked[canonicalize_name(wanted.name)]]
            assert operator == "=="
            assert wanted.specifier.contains(version)


def test_workflows_run_fixed_actions_and_hide_the_token_from_others():
    for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        jobs = yaml.safe_load(file.read_text())["jobs"].values()
        steps = [step for job in jobs for step in job["steps"]]
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step)
        if "secrets." in file.read_text():
            installs = [step["run"] for step in steps if " install " in step.get("run", "")]
            assert installs
            assert all("--constraint requirements.lock" in run for run in installs)


def test_front_matter():
    front = yaml.safe_load((ROOT / "README.md").read_text().split("---")[1])
    assert (front["sdk"], front["sdk_version"]) == ("gradio", version("gradio"))
    assert front["python_version"] == "3.12"
    assert len(front["short_description"]) <= 60
    assert not front.get("models")  # the weights are in the repository
    assert "siamese-network" in front["tags"]
    assert front["suggested_hardware"] == space.FREE_HARDWARE.value
    for file in (front["app_file"], front["thumbnail"]):
        assert (ROOT / file).is_file()


def test_workflow_deploys_main_once_it_is_switched_on():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "space.yml").read_text())
    assert workflow[True]["push"] == {"branches": ["main"]}  # YAML reads "on" as true
    job = workflow["jobs"]["deploy"]
    assert job["if"] == "vars.SPACE != '' && github.ref == 'refs/heads/main'"  # also if started by hand
    last = job["steps"][-1]
    assert last["run"] == 'python -m siamese deploy "$SPACE"'
    assert last["env"] == {"SPACE": "${{ vars.SPACE }}", "HF_TOKEN": "${{ secrets.HF_TOKEN }}"}
