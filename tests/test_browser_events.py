"""The order of events on the Compare tab in Chromium: an old answer never stands next to new photos."""

import re

import pytest
from playwright.sync_api import expect

from .browser import ANSWER, expect_verdict, needs_chromium, upload
from .conftest import EXAMPLES

pytestmark = needs_chromium
VERDICT = "#answer .verdict"
VERDICTS = {
    ("obama-portrait.jpg", "obama-standing.jpg"): "same",
    ("obama-speaking.jpg", "biden.jpg"): "different",
    ("obama-speaking.jpg", "obama-standing.jpg"): "same",
}

SLOW_PAGE = """
import time, app
read_photos = app.read_photos

def slow(first, second):
    time.sleep(0.7)
    if "collins" in f"{first} {second}":
        raise RuntimeError("as a test")
    return read_photos(first, second)

app.read_photos = slow
app.launch()
"""

# Before each paint, note the photos and the visible cards, if they changed.
LOG_FRAMES = r"""() => {
  window.log = [];
  const visible = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
  const frame = () => {
    const photos = visible("#photos .image-frame img").map((image) => image.src.split("/").at(-1));
    const cards = visible("#compare .answer").map((card) => card.className.replace("answer ", ""));
    const details = visible("#compare :is(.seen, .among)").length;
    const now = JSON.stringify({photos, cards, details});
    if (now !== window.log.at(-1)) window.log.push(now);
    requestAnimationFrame(frame);
  };
  frame();
}"""
FRAMES = "window.log.map(JSON.parse)"


@pytest.fixture(scope="module")
def slow_page(start_page):
    """Serve the page; each comparison takes a while, and those with Collins fail."""
    return start_page("-c", SLOW_PAGE)


@pytest.fixture
def slow_tab(browser, slow_page):
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    tab.goto(slow_page)
    expect(tab.locator(ANSWER)).to_contain_text("Add two photos")
    tab.evaluate(LOG_FRAMES)
    yield tab
    tab.close()


def check_frames(frames):
    """Assert that each frame shows one card, and each verdict and what belongs to it only next to its photos."""
    answered = None
    for frame in frames:
        (card,) = frame["cards"]
        photos = tuple(frame["photos"])
        if card in VERDICTS.values():
            assert card == VERDICTS[photos]
            answered = photos
        assert not frame["details"] or photos == answered


def test_no_frame_shows_an_old_verdict_next_to_new_photos(slow_tab):
    rows = {0: ("obama-portrait.jpg", "obama-standing.jpg"), 2: ("obama-speaking.jpg", "biden.jpg")}
    for row in (0, 2, 0):
        slow_tab.locator(".examples button").nth(row).click()
        expect_verdict(slow_tab, VERDICTS[rows[row]])
        expect(slow_tab.locator(".seen")).to_be_visible()
    frames = slow_tab.evaluate(FRAMES)
    check_frames(frames)
    for before, after in ((0, 2), (2, 0)):
        comparing = [frame["photos"] for frame in frames if frame["cards"] == ["comparing"]]
        assert list(rows[before]) in comparing, "from the click on"
        assert list(rows[after]) in comparing


def test_a_removed_or_replaced_photo_clears_the_card_at_once(slow_tab):
    pair = "obama-speaking.jpg", "biden.jpg"
    upload(slow_tab, *(EXAMPLES / name for name in pair))
    expect_verdict(slow_tab, VERDICTS[pair])
    slow_tab.get_by_label("Remove image").last.click()
    expect(slow_tab.locator(ANSWER)).to_contain_text("Add the second photo")
    new_pair = "obama-speaking.jpg", "obama-standing.jpg"
    upload(slow_tab, None, EXAMPLES / "obama-standing.jpg")
    expect_verdict(slow_tab, VERDICTS[new_pair])
    frames = slow_tab.evaluate(FRAMES)
    check_frames(frames)
    removed = next(n for n, frame in enumerate(frames) if n and frames[n - 1]["photos"] == [*pair] != frame["photos"])
    assert frames[removed] == {"photos": [pair[0]], "cards": ["hint"], "details": 0}
    assert {"photos": [*new_pair], "cards": ["comparing"], "details": 0} in frames[removed:]


def test_a_click_on_the_current_example_keeps_the_answer(slow_tab):
    for _ in range(2):
        slow_tab.locator(".examples button").first.click()
        expect(slow_tab.locator(VERDICT)).to_be_visible()


def test_a_chosen_face_clears_the_card_until_the_answer_is_there(slow_tab):
    slow_tab.locator(".examples button").nth(3).click()
    slow_tab.locator(".group-photos button").nth(1).click()
    expect(slow_tab.locator(ANSWER)).to_have_text("Comparing…", timeout=500)
    expect(slow_tab.locator(VERDICT)).to_be_visible()


def test_another_strictness_is_answered(slow_tab):
    slow_tab.locator(".examples button").first.click()
    slow_tab.get_by_role("button", name="Strictness").click()
    for name, fmr in (("Very strict", "0.00001"), ("Everyday", "0")):
        slow_tab.get_by_role("radio", name=name).check()
        shown = slow_tab.locator("#answer [data-choice]")
        expect(shown).to_have_attribute("data-choice", re.compile(f'"fmr":{fmr}}}$'))
        expect(slow_tab.locator(VERDICT)).to_be_visible()


def test_a_failure_is_explained(slow_tab):
    slow_tab.locator(".examples button").nth(1).click()
    expect(slow_tab.locator(".problem >> visible=true")).to_contain_text("The comparison failed")
    slow_tab.locator(".examples button").first.click()
    expect(slow_tab.locator(VERDICT)).to_be_visible()


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_tap_on_an_example_leaves_the_verdict_in_view_on_a_phone(browser, page, motion):
    context = browser.new_context(viewport={"width": 390, "height": 664}, has_touch=True, reduced_motion=motion)
    tab = context.new_page()
    tab.goto(page)
    tab.locator(".examples button").first.tap()
    expect(tab.locator(".seen")).to_be_visible()
    expect(tab.locator(ANSWER)).to_be_in_viewport(ratio=1)
    context.close()


@pytest.mark.parametrize(
    "pair", [("obama-portrait", "obama-portrait"), ("obama-portrait", "obama-standing"), ("biden", "collins")]
)
def test_labels_of_the_scale_do_not_collide_on_a_phone(browser, page, pair):
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    tab.goto(page)
    upload(tab, *(EXAMPLES / f"{name}.jpg" for name in pair))
    expect(tab.locator("#among .at").first).to_be_visible()
    boxes = [tab.locator("#among :is(.at, .ends, .key) span").nth(n).bounding_box() for n in range(6)]
    for n, box in enumerate(boxes):
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        for other in boxes[:n]:
            across = box["x"] < other["x"] + other["width"] and other["x"] < box["x"] + box["width"]
            down = box["y"] < other["y"] + other["height"] and other["y"] < box["y"] + box["height"]
            assert not (across and down)
    tab.close()
