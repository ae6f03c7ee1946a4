"""Take the screenshot of the page in the README. Needs Chromium.

python -m tools.pictures
"""

import shutil
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from benchmarks.common import ROOT, running_page

WIDTH, MARGIN = 1040, 16  # pixels


def take_screenshot(address: str, file: Path) -> None:
    """Click the first example and save the photos, the verdict and the faces."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
        tab.goto(address)
        tab.locator(".examples button").nth(0).click()
        expect(tab.locator(".answer .verdict")).to_be_visible(timeout=30_000)
        expect(tab.locator("#compared .wipe")).to_be_visible(timeout=30_000)
        tab.wait_for_timeout(1000)  # until the images are drawn
        top, bottom = tab.locator("#photos").bounding_box(), tab.locator("#compared").bounding_box()
        assert top
        assert bottom
        height = bottom["y"] + bottom["height"] - top["y"] + 2 * MARGIN
        clip = {"x": 0, "y": top["y"] - MARGIN, "width": WIDTH, "height": height}
        tab.screenshot(path=file, full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    with running_page() as (_, address, _):
        take_screenshot(address, ROOT / "docs" / "page.png")
