"""The page of a network for other things than faces, in Chromium."""

import re

import pytest
from playwright.sync_api import expect

import siamese
from siamese.page.about import held_out_pairs
from siamese.summary import describe_accuracy, warnings
from siamese.wording import FACES, IMAGES

from .browser import needs_chromium, upload

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def things(start_page, trained):
    dead = "http://127.0.0.1:9"
    return start_page(SIAMESE_WEIGHTS=str(trained), HTTP_PROXY=dead, http_proxy=dead)


@pytest.fixture
def things_tab(browser, things):
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    tab.goto(things)
    yield tab
    tab.close()


def test_example_pairs_are_held_out_images(things_tab, trained):
    model = siamese.load(trained)
    pairs = held_out_pairs(model, IMAGES)
    assert [caption for caption, _ in pairs] == ["The same thing"] * 2 + ["Different things"] * 2
    assert held_out_pairs(siamese.load(), FACES) == []
    for number, (_, photos) in enumerate(pairs):
        things_tab.locator(".examples button").nth(number).click()
        answer = model.compare(*photos)
        expect(things_tab.locator("#answer .answer")).to_contain_text(f"Dissimilarity {answer.dissimilarity:.2f}")


def test_the_page_says_what_training_said(things_tab, trained):
    record = siamese.load(trained).record
    for warning in warnings(record):
        expect(things_tab.locator("blockquote")).to_contain_text(warning)
    things_tab.get_by_role("tab", name="About").click()
    expect(things_tab.get_by_text(describe_accuracy(record))).to_be_visible()


def test_each_image_has_a_number_and_no_tab_speaks_of_photos_or_faces(things_tab, digits):
    images = sorted((digits / "3").iterdir())[:3] + sorted((digits / "1").iterdir())[:3]
    upload(things_tab, images[0], images[3])
    expect(things_tab.locator("#answer .verdict")).to_be_visible()
    things_tab.get_by_role("tab", name="Find").click()
    inputs = things_tab.locator("#find input[type=file]")
    inputs.first.set_input_files(images[0])
    inputs.last.set_input_files(images[1:])
    captions = things_tab.locator("#find .searched figcaption b")
    expect(captions).to_have_count(5)
    assert all(re.fullmatch(r"[<>]?[\d.]+%", text) for text in captions.all_text_contents())
    things_tab.get_by_role("tab", name="Group").click()
    things_tab.locator("#group input[type=file]").set_input_files(images)
    expect(things_tab.locator("#group .people")).to_be_visible()
    for name in ("Compare", "Find", "Group"):
        things_tab.get_by_role("tab", name=name).click()
        expect(things_tab.locator(f"#{name.lower()}")).to_be_visible()
        words = things_tab.locator("main").inner_text().lower()
        assert not re.search(r"photo|portrait|face|person|people", words), name
        for control in things_tab.locator(f"#{name.lower()} .strictness:visible").all():  # it offers a choice
            assert control.locator("input[type=radio]").count() > 1
