"""Retake the pictures of the README: the example photographs in pairs, and the page.

python docs/pictures.py
"""

import itertools
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import expect, sync_playwright

import siamese
from siamese import plots

ROOT = Path(__file__).parent.parent
ADDRESS = "http://127.0.0.1:7860"


def pairs() -> None:
    """Draw all pairs of the example photographs, genuine ones first."""
    model = siamese.load()
    files = sorted((ROOT / "examples").glob("*.jpg"))
    rows = []
    for a, b in itertools.combinations(files, 2):
        crops = [np.asarray(Image.open(file).resize((92, 112))) for file in (a, b)]
        same = a.name.split("-")[0] == b.name.split("-")[0]
        rows.append((*crops, model.compare(a, b).dissimilarity, same))
    plots.pairs(sorted(rows, key=lambda row: not row[3]), ROOT / "docs" / "pairs.png")


def page() -> None:
    """Start the page, click an example and take its picture."""
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(ADDRESS).close()
                break
            except OSError:
                time.sleep(0.2)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": 1040, "height": 900})
            tab.goto(ADDRESS)
            tab.locator("#examples tbody tr").nth(2).click()
            expect(tab.locator(".answer .verdict")).to_be_visible()
            tab.wait_for_timeout(1000)
            tab.screenshot(path=ROOT / "docs" / "page.png", full_page=True)
            browser.close()
    finally:
        server.terminate()


if __name__ == "__main__":
    pairs()
    page()
