"""Helpers of the tests in Chromium."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ANSWER = ".answer >> visible=true"
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt install chromium")
expect.set_options(timeout=20_000)

EXAMPLES = Path(__file__).parent.parent / "examples"


def side_by_side(file, *names):
    """Save a photo that shows several examples. Returns its path."""
    photo = Image.new("RGB", (500 * len(names), 500))
    for number, name in enumerate(names):
        photo.paste(Image.open(EXAMPLES / name).resize((500, 500)), (500 * number, 0))
    photo.save(file)
    return file


def expect_verdict(tab, verdict):
    """Wait until the Compare tab shows this verdict."""
    expect(tab.locator(f"#answer .{verdict} .verdict")).to_be_visible()


def upload(tab, first, second=None):
    """Add photos to the Compare tab."""
    for number, file in enumerate((first, second)):
        if file:
            tab.locator("input[type=file]").nth(number).set_input_files(file)
