"""The page in a real Chromium, as a visitor uses it."""

import re
import shutil

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

import siamese

from .conftest import EXAMPLES

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt install chromium")
ANSWER = ".answer"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, page):
    """An open tab; afterwards, that nothing was asked of any other machine and no script failed."""
    tab = browser.new_page(viewport={"width": 1100, "height": 1000})
    asked, failed = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: failed.append(str(error)))
    tab.goto(page)
    expect(tab.locator(ANSWER)).to_contain_text("Add two pictures")
    yield tab
    tab.close()
    assert not [url for url in asked if not url.startswith((page, "data:", "blob:"))]
    assert not failed


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
    expect(tab.locator(f"{ANSWER} .verdict")).to_have_text("Probably different people")
    expect(tab.get_by_alt_text("First picture as the network saw it")).to_be_visible()


def test_an_example_gives_an_answer(tab):
    import app

    tab.locator("#examples tbody tr").nth(2).click()
    answer = siamese.load().compare(*(EXAMPLES / name for name in app.PAIRS[2]))
    expect(tab.locator(ANSWER)).to_have_text(shown(answer))


def test_the_page_tells_the_numbers_of_the_weights(tab):
    record = siamese.load().record
    tab.get_by_role("button", name="How it works").click()
    expect(tab.get_by_text(f"{record['folds']['accuracy']:.1%} of the pairs right")).to_be_visible()
    for point in record["test_calibration"]["points"]:
        cells = f"{round(1 / point['fmr']):,} {point['distance']:.2f} {point['fnmr']:.1%}"
        expect(tab.get_by_role("row", name=cells, exact=True)).to_be_visible()


def test_the_tutorials_network_is_there_to_compare_with(tab):
    upload(tab, EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg")
    tab.get_by_text("What the small network of the tutorial says").click()
    people = len(siamese.load("weights/att").record["people"]["training"])
    expect(tab.get_by_text(f"learned from {people} people")).to_be_visible()


def test_a_photo_without_a_face_gives_advice(tab, tmp_path):
    Image.effect_noise((300, 300), 80).save(tmp_path / "noise.png")
    upload(tab, tmp_path / "noise.png", EXAMPLES / "collins.jpg")
    expect(tab.locator(f"{ANSWER}.problem")).to_contain_text("No face was found in the first picture. Try")


def test_several_faces_are_told(tab, tmp_path):
    two = Image.new("RGB", (1000, 500))
    for x, name in ((0, "biden.jpg"), (500, "collins.jpg")):
        two.paste(Image.open(EXAMPLES / name).resize((500, 500)), (x, 0))
    two.save(tmp_path / "two.png")
    upload(tab, tmp_path / "two.png", EXAMPLES / "collins.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("2 faces in the first picture")


def test_one_picture_asks_for_the_other_and_removing_one_too(tab):
    upload(tab, EXAMPLES / "biden.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Add the second picture")
    upload(tab, None, EXAMPLES / "collins.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Dissimilarity")
    tab.get_by_label("Remove image").first.click()
    expect(tab.locator(ANSWER)).to_contain_text("Add the first picture")


def test_something_silly_gives_a_sentence(tab, tmp_path):
    (tmp_path / "song.jpg").write_bytes(b"la la la")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    upload(tab, tmp_path / "song.jpg", EXAMPLES / "collins.jpg")
    expect(tab.locator(f"{ANSWER}.problem")).to_have_text(
        "song.jpg is not a picture that can be read. Save it as JPEG or PNG."
    )
    tab.get_by_label("Remove image").first.click()
    upload(tab, tmp_path / "dot.png")
    expect(tab.locator(f"{ANSWER}.problem")).to_contain_text("only 1 × 1 pixels")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_without_sideways_scroll(browser, page, scheme):
    tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    tab.goto(page)
    tab.locator("#examples tbody tr").first.click()
    expect(tab.locator(ANSWER)).to_contain_text("Dissimilarity")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.close()


def test_a_reload_keeps_nothing(tab):
    upload(tab, EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Dissimilarity")
    tab.reload()
    expect(tab.locator(ANSWER)).to_contain_text("Add two pictures")
