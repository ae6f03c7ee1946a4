"""The page in Chromium."""

import csv
import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageEnhance, ImageOps
from playwright.sync_api import expect, sync_playwright

import siamese
from siamese.page.tutorial import portrait

from .conftest import EXAMPLES

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt install chromium")
ANSWER = ".answer >> visible=true"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def chromium():
    """Start Chromium with more arguments."""
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
    tab = browser.new_page(viewport={"width": 1100, "height": 1000})
    requests, errors = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page)
    expect(tab.locator(ANSWER)).to_contain_text("Add two photos")
    yield tab
    tab.close()
    assert not [url for url in requests if not url.startswith((page, "data:", "blob:"))]
    assert not errors


def upload(tab, first, second=None):
    for number, file in enumerate((first, second)):
        if file:
            tab.locator("input[type=file]").nth(number).set_input_files(file)


def shown(answer: siamese.Comparison) -> re.Pattern:
    return re.compile(rf"Dissimilarity: {answer.dissimilarity:.2f}\b")


def test_two_uploads_give_an_answer(tab):
    pair = EXAMPLES / "biden.jpg", EXAMPLES / "obama-speaking.jpg"
    upload(tab, *pair)
    expect(tab.locator(ANSWER)).to_have_text(shown(siamese.load().compare(*pair)))
    expect(tab.locator(".verdict")).to_have_text("Very likely different people")
    expect(tab.get_by_alt_text("compared part of the first photo")).to_be_visible()


def test_an_example_gives_an_answer(tab):
    tab.locator("#examples tbody tr").nth(2).click()
    answer = siamese.load().compare(EXAMPLES / "obama-speaking.jpg", EXAMPLES / "biden.jpg")
    expect(tab.locator(ANSWER)).to_have_text(shown(answer))


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
    expect(tab.locator(ANSWER)).to_contain_text("Dissimilarity")
    tab.get_by_role("tab", name="About this model").click()
    this, other = (tab.locator("section.answer").nth(number) for number in (0, 1))
    expect(this).to_contain_text(f"Dissimilarity: {siamese.load().compare(*pair).dissimilarity:.2f}")
    heads = [portrait(file, face.box) for file, face in zip(pair, siamese.load().compare(*pair).faces, strict=True)]
    expect(other).to_contain_text(f"Dissimilarity: {siamese.load('weights/att').compare(*heads).dissimilarity:.2f}")


def test_a_photo_without_a_face_gives_advice(tab, tmp_path):
    Image.effect_noise((300, 300), 80).save(tmp_path / "noise.png")
    upload(tab, tmp_path / "noise.png", EXAMPLES / "collins.jpg")
    expect(tab.locator(".problem")).to_contain_text("No face was found in the first photo")


@pytest.fixture
def two(tmp_path):
    """A photo of Biden on the left and Collins on the right."""
    photo = Image.new("RGB", (1000, 500))
    for x, name in ((0, "biden.jpg"), (500, "collins.jpg")):
        photo.paste(Image.open(EXAMPLES / name).resize((500, 500)), (x, 0))
    photo.save(tmp_path / "two.png")
    return tmp_path / "two.png"


@pytest.mark.parametrize("device", ["mouse", "keyboard"])
def test_another_face_can_be_chosen(tab, two, device):
    upload(tab, two, EXAMPLES / "collins.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("first photo shows 2 faces")
    faces = tab.get_by_role("button", name=re.compile(r"Face \d of 2 in the first photo"))
    expect(faces).to_have_count(2)
    before = tab.locator(".verdict").text_content()
    other = faces.nth(1)
    expect(other).to_have_attribute("aria-pressed", "false")
    if device == "mouse":
        other.click()
    else:
        other.focus()
        tab.keyboard.press("Enter")
    expect(other).to_have_attribute("aria-pressed", "true")
    expect(other).to_be_focused()
    expect(tab.locator(".verdict")).not_to_have_text(before)
    verdicts = sorted((before, tab.locator(".verdict").text_content()), key=lambda verdict: "different" in verdict)
    assert verdicts[0] == "Very likely the same person"
    assert verdicts[1] in ("Very likely different people", "Probably different people")


def test_strictness_changes_the_verdict(tab, tmp_path):
    """A small copy of a photo is "same" at even odds, but not at one false match in 100,000."""
    Image.open(EXAMPLES / "obama-standing.jpg").reduce(8).save(tmp_path / "small.png")
    upload(tab, tmp_path / "small.png", EXAMPLES / "obama-portrait.jpg")
    expect(tab.locator(".verdict")).to_have_text(re.compile("the same person"))
    tab.get_by_label("Show which parts matter").uncheck()
    point = siamese.load().calibration.operating_point(1e-5)
    choice = tab.get_by_role("radio", name=re.compile(rf"Very strict: 1 in 100,000 .* {point.fnmr:.1%} missed"))
    choice.check()
    expect(tab.locator(".verdict")).to_have_text("Similar, but not enough for 1 false match in 100,000")
    expect(tab.locator(ANSWER)).to_contain_text(f"threshold at {point.distance:.2f}")
    tab.get_by_role("radio", name="Default").check()
    expect(tab.locator(".verdict")).to_have_text(re.compile("the same person"))
    expect(tab.get_by_label("Show which parts matter")).not_to_be_checked()


def test_the_webcam_gives_an_answer(chromium, page, tmp_path):
    """Chromium's fake camera shows an example."""
    photo = Image.open(EXAMPLES / "biden.jpg").convert("RGB").resize((640, 800)).crop((0, 0, 640, 480))
    photo.save(tmp_path / "camera.jpg")
    (tmp_path / "camera.mjpeg").write_bytes((tmp_path / "camera.jpg").read_bytes() * 2)
    browser = chromium(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}",
    )
    tab = browser.new_page()
    tab.goto(page)
    tab.get_by_label("Capture from camera").first.click()
    tab.get_by_text("Click to Access Webcam").click()
    tab.get_by_label("capture photo").click()
    upload(tab, None, EXAMPLES / "biden.jpg")
    expect(tab.locator(".verdict")).to_have_text("Very likely the same person")
    browser.close()


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


def test_missing_photo_is_requested(tab):
    upload(tab, EXAMPLES / "biden.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Add the second photo")
    upload(tab, None, EXAMPLES / "collins.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Dissimilarity")
    tab.get_by_label("Remove image").first.click()
    expect(tab.locator(ANSWER)).to_contain_text("Add the first photo")


def test_invalid_uploads_are_explained(tab, tmp_path):
    (tmp_path / "song.jpg").write_bytes(b"la la la")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    upload(tab, tmp_path / "song.jpg", EXAMPLES / "collins.jpg")
    expect(tab.locator(".problem")).to_contain_text("song.jpg is not an image")
    shown = tab.locator(".image-frame img")
    expect(shown.first).to_be_hidden()  # the browser would show a broken image
    expect(shown.last).to_be_visible()
    tab.get_by_label("Remove image").first.click()
    upload(tab, tmp_path / "dot.png")
    expect(tab.locator(".problem")).to_contain_text("only 1 × 1 pixels")


def test_too_large_uploads_are_explained(tab, tmp_path):
    Image.effect_noise((4000, 4000), 80).save(tmp_path / "large.png", compress_level=0)
    upload(tab, tmp_path / "large.png")
    expect(tab.get_by_text("exceed the maximum allowed size of 10.0 Mb")).to_be_visible()
    Image.new("L", (8000, 7000)).save(tmp_path / "wide.png")
    upload(tab, tmp_path / "wide.png", EXAMPLES / "collins.jpg")
    expect(tab.locator(".problem")).to_contain_text("more than 50 million")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_accessibility_and_width(browser, page, two, scheme, width):
    """On each tab: no serious finding of axe-core, alternative text for each image, no horizontal scrolling."""
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab.goto(page)
    upload(tab, two, EXAMPLES / "collins.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Dissimilarity")
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


def test_compare_works_with_the_keyboard(tab, two):
    upload(tab, two, EXAMPLES / "collins.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Dissimilarity")
    tab.get_by_role("tab", name="Compare").focus()
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached += tab.evaluate(
            "[document.activeElement.ariaLabel ?? document.activeElement.closest('label')?.innerText]"
        )
        if tab.evaluate("document.activeElement.closest('#examples') !== null"):
            break
    reached = "\n".join(filter(None, reached))
    for name in ("Remove Image", "Upload file", "Capture from camera", "Paste from clipboard", "Default"):
        assert name in reached
    for name in ("Show which parts matter", "Face 1 of 2 in the first photo", "Face 2 of 2 in the first photo"):
        assert name in reached
    tab.keyboard.press("Enter")
    expect(tab.locator(ANSWER)).to_contain_text("Very likely the same person")


def test_reload_clears_the_page(tab):
    upload(tab, EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Dissimilarity")
    tab.reload()
    expect(tab.locator(ANSWER)).to_contain_text("Add two photos")
