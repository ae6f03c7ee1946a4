"""The page in Chromium."""

import csv
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageEnhance, ImageOps
from playwright.sync_api import expect

import siamese
from siamese.page.tutorial import portrait

from .browser import ANSWER, needs_chromium, side_by_side, upload
from .conftest import EXAMPLES

pytestmark = needs_chromium


@pytest.fixture
def two(tmp_path):
    """A photo of Biden on the left and Collins on the right."""
    return side_by_side(tmp_path / "two.png", "biden.jpg", "collins.jpg")


def test_about_shows_the_measured_numbers(tab):
    record = siamese.load().record
    tab.get_by_role("tab", name="About this model").click()
    expect(tab.get_by_text(f"{record.lfw.accuracy:.1%} of its pairs")).to_be_visible()
    for point in record.test_calibration.operating_points:
        cells = f"1 in {round(1 / point.fmr):,} {point.distance:.2f} {point.fnmr:.1%}"
        expect(tab.get_by_role("row", name=cells, exact=True)).to_be_visible()


def test_about_compares_the_same_pair_with_the_tutorial_network(tab):
    pair = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
    upload(tab, *pair)
    expect(tab.locator("#answer .verdict")).to_be_visible()
    tab.get_by_role("tab", name="About this model").click()
    this, other = (tab.locator("section.answer").nth(number) for number in (0, 1))
    expect(this).to_contain_text(f"Dissimilarity: {siamese.load().compare(*pair).dissimilarity:.2f}")
    heads = [portrait(file, face.box) for file, face in zip(pair, siamese.load().compare(*pair).faces, strict=True)]
    expect(other).to_contain_text(f"Dissimilarity: {siamese.load('weights/att').compare(*heads).dissimilarity:.2f}")


def test_photos_are_grouped_by_person(tab, tmp_path):
    """Eight photos of three people."""
    for name, change in (
        ("biden-bright.jpg", lambda photo: ImageEnhance.Brightness(photo).enhance(1.3)),
        ("biden-small.jpg", lambda photo: photo.reduce(2)),
        ("collins-mirrored.jpg", ImageOps.mirror),
    ):
        change(Image.open(EXAMPLES / f"{name.partition('-')[0]}.jpg").convert("RGB")).save(tmp_path / name)
    photos = sorted([*EXAMPLES.glob("*.jpg"), *tmp_path.glob("*.jpg")])
    assert len(photos) == 8
    (tmp_path / "song.png").write_bytes(b"la la la")
    tab.get_by_role("tab", name="Group").click()
    expect(tab.locator(ANSWER)).to_contain_text("Add up to 40 photos")
    tab.locator("input[type=file]").last.set_input_files([*photos, tmp_path / "song.png"])
    expect(tab.locator(".verdict >> visible=true")).to_have_text("3 people")
    expect(tab.locator(ANSWER)).to_contain_text("8 faces in 8 photos")
    expect(tab.locator(ANSWER)).to_contain_text("song.png is not an image")
    for row in range(3):
        names = tab.locator(".person").nth(row).locator("figcaption").all_text_contents()
        assert len({name.replace(".", "-").partition("-")[0] for name in names}) == 1
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download the numbers").click()
    rows = list(csv.reader(download.value.path().read_text().splitlines()))
    assert sorted(rows[0][2:]) == sorted(photo.name for photo in photos)
    assert len({(row[1], re.split("[-.]", row[0])[0]) for row in rows[1:]}) == len({row[1] for row in rows[1:]}) == 3
    at = {name: number for number, name in enumerate(rows[0])}
    expected = siamese.load().compare(EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg").dissimilarity
    assert float(rows[at["biden.jpg"] - 1][at["collins.jpg"]]) == pytest.approx(expected, abs=0.02)
    tab.get_by_role("radio", name="Very strict").last.check()
    expect(tab.locator(ANSWER)).to_contain_text(
        f"at most {siamese.load().calibration.operating_point(1e-5).distance:.2f}"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_accessibility_and_width(browser, page, two, scheme, width):
    """On each tab: no serious finding of axe-core, alternative text for each image, no horizontal scrolling."""
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab.goto(page)
    upload(tab, two, EXAMPLES / "collins.jpg")
    expect(tab.locator("#answer .verdict")).to_be_visible()
    for name in ("Compare", "Group", "About this model"):
        tab.get_by_role("tab", name=name).click()
        if name == "Group":
            tab.locator("input[type=file]").last.set_input_files([two, EXAMPLES / "collins.jpg"])
            expect(tab.locator(".verdict >> visible=true")).to_have_text("2 people")
        elif name == "About this model":
            expect(tab.locator("section.answer")).to_have_count(2)
        # Text that is still fading in has little contrast.
        still = "one.playState !== 'running' || one.effect.getTiming().iterations === Infinity"
        tab.wait_for_function(f"document.getAnimations().every((one) => {still})")
        found = Axe().run(tab).response["violations"]
        serious = [
            (finding["id"], node["html"][:300])
            for finding in found
            if finding["impact"] in ("serious", "critical")
            and finding["id"] != "nested-interactive"  # in Gradio's upload button
            for node in finding["nodes"]
        ]
        assert not serious, name
        assert tab.evaluate("document.documentElement.scrollWidth") == width, name
        untitled = "i.checkVisibility() && !i.alt && !i.matches('.heat')"  # a saliency map covers an image with text
        without_text = tab.evaluate(f"[...document.images].filter(i => {untitled}).map(i => i.outerHTML)")
        assert not without_text, name
        if width == 390:
            tab.set_viewport_size({"width": 320, "height": 800})
            assert tab.evaluate("document.documentElement.scrollWidth") == 320, name
            tab.set_viewport_size({"width": width, "height": 800})
    tab.close()
