"""The installed package, outside the clone."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from siamese.files import BUNDLED, PACKAGED
from siamese.hub.space import plan

from .conftest import EXAMPLES, ROOT, free_port, serving

PLAN = """
import json
from siamese.files import BUNDLED, PACKAGED
from siamese.hub.space import plan

print(json.dumps({name: str(content) for name, content in plan("USER/SPACE").files.items()}))
"""
PAIR = str(EXAMPLES / "biden.jpg"), str(EXAMPLES / "collins.jpg")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of this clone in which the user has files of their own."""
    folder, clone = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("clone")
    for name in (*PACKAGED, *BUNDLED):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    for name in ("docs/private-notes.md", "siamese/my_secrets.py", "examples/me.jpg", "siamese/photo.jpg"):
        (clone / name).write_text("private")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(command, cwd=clone, check=True)
    (file,) = folder.glob("siamese_faces-*.whl")
    return file


def test_wheel_deploys_the_files_of_the_clone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", PLAN], cwd=tmp_path, env=environment, capture_output=True, text=True)
    theirs, ours = json.loads(run.stdout), plan("USER/SPACE").files
    assert theirs.keys() == ours.keys()
    for name, content in ours.items():
        if isinstance(content, Path):  # README.md is written for each Space
            assert Path(theirs[name]).is_relative_to(tmp_path)
            assert Path(theirs[name]).read_bytes() == content.read_bytes()
    # It holds nothing else, such as photos that a user has put into a folder.
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    expected = {Path(file).relative_to(tmp_path).as_posix() for name, file in theirs.items() if name != "README.md"}
    assert {name for name in files if ".dist-info/" not in name and "__pycache__" not in name} == {
        *expected,
        "siamese/bundled/README.md",
    }


def test_the_listed_files_are_those_of_the_repository():
    """Each module and document is listed; what Git does not know, such as notes of the user, is not published."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the Git repository")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "siamese", "docs/*.md"]
    known = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    listed = {*PACKAGED, *(name for name in BUNDLED if name.startswith("docs/") and name.endswith(".md"))}
    assert listed == set(known)


@pytest.mark.slow
def test_installed_package_compares_finds_deploys_and_opens_the_page(wheel, tmp_path):
    """In an environment with only the dependencies, and then with the extra `page`."""
    uv, binaries = Path(sys.executable).with_name("uv"), tmp_path / "env" / "bin"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GRADIO_SERVER_PORT": str(free_port())}

    def run(*command, code: int = 0) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def install(requirement: str) -> None:
        subprocess.run([uv, "pip", "install", "--quiet", "--python", binaries / "python", requirement], check=True)

    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True)
    install(str(wheel))
    assert len(list(tmp_path.glob("env/lib/*/site-packages/*.dist-info"))) <= 52
    siamese = binaries / "siamese"
    assert "different people" in run(siamese, "compare", *PAIR)
    assert "obama-standing.jpg" in run(siamese, "find", EXAMPLES / "obama-portrait.jpg", EXAMPLES)
    assert re.search(r" app\.py\n", run(siamese, "deploy", "USER/SPACE", "--dry-run"))
    assert "pip install 'siamese-faces[page]'" in run(siamese, "page", code=2)

    install(f"siamese-faces[page] @ file://{wheel}")
    page = subprocess.Popen([siamese, "page", "weights/att"], cwd=tmp_path, env=environment)
    try:
        serving(page, int(environment["GRADIO_SERVER_PORT"]))
    finally:
        page.terminate()
        page.wait()
