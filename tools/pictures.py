"""Take the screenshot of the page in the README. Needs Chromium.

python tools/pictures.py
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parent.parent
PORT = "7998"
ADDRESS = f"http://127.0.0.1:{PORT}"


def wait_until_ready() -> None:
    """Wait until the page answers a request."""
    for _ in range(600):
        try:
            urllib.request.urlopen(ADDRESS).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"{ADDRESS} does not answer")


def take_screenshot(file: Path) -> None:
    """Click the first example and save the photos, the verdict and the faces."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1040, "height": 900})
        tab.goto(ADDRESS)
        tab.locator(".examples button").nth(0).click()
        expect(tab.locator(".answer .verdict")).to_be_visible(timeout=30_000)
        expect(tab.locator("#compared .wipe")).to_be_visible(timeout=30_000)
        tab.wait_for_timeout(1000)  # until the images are drawn
        top, bottom = tab.locator("#photos").bounding_box(), tab.locator("#compared").bounding_box()
        assert top
        assert bottom
        tab.screenshot(
            path=file,
            full_page=True,
            clip={"x": 0, "y": top["y"] - 16, "width": 1040, "height": bottom["y"] + bottom["height"] - top["y"] + 32},
        )
        browser.close()


def main() -> None:
    environment = {**os.environ, "GRADIO_SERVER_PORT": PORT}
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment)
    try:
        wait_until_ready()
        take_screenshot(ROOT / "docs" / "page.png")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
