"""Retake the picture of the README: the page, with an example.

python docs/pictures.py
"""

import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parent.parent
ADDRESS = "http://127.0.0.1:7860"


def page() -> None:
    """Start the page, click an example and take its picture."""
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(ADDRESS).close()
                break
            except OSError:
                time.sleep(0.2)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": 1040, "height": 900})
            tab.goto(ADDRESS)
            tab.locator("#examples tbody tr").nth(0).click()
            expect(tab.locator(".answer .verdict")).to_be_visible()
            tab.wait_for_timeout(1000)
            tab.screenshot(path=ROOT / "docs" / "page.png", full_page=True)
            browser.close()
    finally:
        server.terminate()


if __name__ == "__main__":
    page()
