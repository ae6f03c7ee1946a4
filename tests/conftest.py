"""Shared fixtures. Tests that need the AT&T faces are skipped if SIAMESE_DATA does not hold them.

A fixture imports what only some tests need, such as a browser library.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from benchmarks.common import free_port, serving
from siamese import cli

from .command import Run

if TYPE_CHECKING:
    from siamese import Model
    from siamese.data.dataset import IdentityDataset
    from siamese.page.charts import PairDistances

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="session", autouse=True)
def few_bootstrap_samples():
    """Fit calibrations with fewer bootstrap samples than by default: most of the time of a short training run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("siamese.evaluation.calibrate.BOOTSTRAP_SAMPLES", 10)
        yield


@pytest.fixture(scope="session")
def model() -> Model:
    """The face network."""
    import siamese

    return siamese.load()


@pytest.fixture(scope="session")
def pairs(model) -> PairDistances:
    """Test pairs of the face network."""
    from siamese.page.charts import PairDistances

    return PairDistances(model.record.curves)


@pytest.fixture(scope="session")
def att() -> IdentityDataset:
    from siamese.data.att import ATT_FILE
    from siamese.data.dataset import load_dataset

    if not Path(os.environ.get("SIAMESE_DATA", ""), ATT_FILE).is_file():
        pytest.skip(f"needs the AT&T faces: set SIAMESE_DATA to a folder with {ATT_FILE}")
    return load_dataset("att", (1, 100, 100))


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """A folder of ten classes with eight images each, from scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for label in range(10):
        (folder / str(label)).mkdir()
        for number, image in enumerate(images[labels == label][:8]):
            Image.fromarray((image * 15.9).reshape(8, 8).astype("uint8")).save(folder / str(label) / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory) -> Path:
    """The result folder of a short training run on the digits, with two folds."""
    out = tmp_path_factory.mktemp("trained") / "digits"
    arguments = ["--data", str(digits), "--recipe", "tutorial", "--epochs", "3", "--batch-size", "16", "--folds", "2"]
    assert cli.main(["train", *arguments, "--out", str(out)]) == 0
    return out


@pytest.fixture
def siamese(capsys):
    """Run the command line in this process. Returns its exit code and output."""

    def run(*arguments) -> Run:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse exits by itself
            code = exit.code
        return Run(code, *capsys.readouterr())

    return run


def alike(answer, other) -> bool:
    """Whether two JSON answers agree: numbers up to rounding, everything else exactly."""
    if isinstance(other, dict):
        return answer.keys() == other.keys() and all(alike(answer[key], other[key]) for key in other)
    if isinstance(other, list | tuple):
        return len(answer) == len(other) and all(map(alike, answer, other))
    return answer == (pytest.approx(other, rel=1e-3, abs=1e-2) if isinstance(other, float) else other)


@pytest.fixture(scope="session")
def start_page():
    """Start `python app.py`, or Python with other arguments. Returns the address once the page is served."""
    started = []

    def start(*arguments: str, **environment: str) -> str:
        port = free_port()
        environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), **environment}
        process = subprocess.Popen([sys.executable, *(arguments or ["app.py"])], env=environment, cwd=ROOT)
        started.append(process)
        return serving(process, port)

    start.started = started
    yield start
    for process in started:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def page(start_page) -> str:
    return start_page()


@pytest.fixture(scope="module")
def chromium():
    """Start Chromium with more arguments."""
    from playwright.sync_api import sync_playwright

    from .browser import ARGUMENTS, CHROMIUM

    with sync_playwright() as playwright:
        yield lambda *more: playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *more])


@pytest.fixture(scope="module")
def browser(chromium):
    browser = chromium()
    yield browser
    browser.close()


@pytest.fixture
def tab(browser, page):
    """Open a tab. Afterwards, check that it sent no request to another machine and no script failed."""
    from playwright.sync_api import expect

    from .browser import ANSWER

    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    requests, errors = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page)
    expect(tab.locator(ANSWER)).to_contain_text("Add two photos")
    yield tab
    tab.close()
    assert not [url for url in requests if not url.startswith((page, "data:", "blob:"))]
    assert not errors
