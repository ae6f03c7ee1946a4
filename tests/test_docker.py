"""The Dockerfile: what it allows, and, where Docker runs, that the page in it becomes healthy."""

import re
import shutil
import subprocess
import time
import uuid
from fnmatch import fnmatch

import pytest

from siamese.files import BUNDLED

from .conftest import ROOT

DOCKER = shutil.which("docker")
RUNS = bool(DOCKER) and subprocess.run([DOCKER, "info"], capture_output=True, timeout=60).returncode == 0
START_SECONDS = 120


def instructions():
    """Return the (keyword, arguments) of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]


def test_the_image_runs_without_root_and_reports_its_health():
    found = dict(instructions())
    user, _, group = found["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert "urlopen" in found["HEALTHCHECK"]
    keywords = [keyword for keyword, _ in instructions()]
    assert keywords.index("USER") > max(number for number, keyword in enumerate(keywords) if keyword == "RUN")
    assert not {"ADD", "COPY", "VOLUME"} & set(keywords)  # a copied file stays in its layer, even if it is deleted
    assert "HOME=/tmp" in found["ENV"]


def test_the_image_is_built_from_what_the_package_holds_only():
    """All but the listed files and folders is ignored; each bundled file is listed."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert {pattern.split("/")[0] for pattern in BUNDLED} <= kept
    assert all((ROOT / name).exists() for name in kept)
    for private in ("weights/att/pairs.png", "weights/att/hardest.png", "siamese/__pycache__"):
        assert any(fnmatch(private, line) for line in lines[1:] if line[0] != "!")
    assert not kept & {".git", ".venv", "runs", "tests"}


@pytest.mark.slow
@pytest.mark.skipif(not RUNS, reason="needs Docker")
def test_the_page_becomes_healthy_with_a_read_only_file_system():
    name = f"siamese-test-{uuid.uuid4().hex[:8]}"
    run = ["run", "--rm", "--detach", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--name", name, name]
    subprocess.run([DOCKER, "build", "--quiet", "--tag", name, ROOT], check=True)
    try:
        subprocess.run([DOCKER, *run], check=True)
        health = ["inspect", "--format", "{{.State.Health.Status}}", name]
        end = time.monotonic() + START_SECONDS
        while (state := subprocess.check_output([DOCKER, *health], text=True).strip()) != "healthy":
            assert state == "starting"
            assert time.monotonic() < end
            time.sleep(1)
        assert ":7860" in subprocess.check_output([DOCKER, "logs", name], text=True)
    finally:
        subprocess.run([DOCKER, "rm", "--force", name], check=False)
        subprocess.run([DOCKER, "rmi", "--force", name], check=False)
