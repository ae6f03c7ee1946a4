"""Two clicks in quick succession on a slow network, and what the page does without a server."""

import json
from functools import cache

import pytest
from playwright.sync_api import expect

import siamese

from .browser import ANSWER, expect_verdict, needs_chromium, upload
from .conftest import EXAMPLES

pytestmark = needs_chromium
LATENCY, GAP = 200, 50  # ms
FILES = {file.name: file for file in EXAMPLES.rglob("*.jpg")}
GROUP_EXAMPLE = "#compare [data-example]:nth-child(4)"


@cache
def expected(photos, faces, fmr):
    return siamese.load().compare(*(FILES[name] for name in photos), face=faces, fmr=fmr or None)


def choose_example(tab):
    tab.locator("#compare [data-example]:nth-child(3)").click()
    return lambda choice, other: other == "upload" or choice["photos"] == ("obama-speaking.jpg", "biden.jpg")


def choose_face(tab):
    """Choose a face that is not chosen, if the page shows any."""
    button = tab.locator("#compared .box[aria-pressed=false]").first
    if not button.is_visible():
        return lambda *_: True
    face = int(button.get_attribute("data-face"))
    button.click()
    return lambda choice, other: choice["faces"] == (None, face)


COUNT_UPLOADS = """() => {
  const send = window.fetch;
  window.uploading = 0;
  window.fetch = async (address, ...more) => {
    const isUpload = String(address.url ?? address).includes("/upload?");
    if (isUpload) window.uploading++;
    try { return await send(address, ...more); }
    finally { if (isUpload) setTimeout(() => window.uploading--, 300); }
  };
}"""


def add_photo(tab):
    upload(tab, None, EXAMPLES / "collins.jpg")
    return lambda choice, other: (choice is None) if other == "clear" else choice["photos"][1] == "collins.jpg"


def choose_strictness(tab):
    radio = tab.locator("#strictness input:not(:checked)").first
    if not radio.is_visible():
        return lambda *_: True
    value = float(radio.get_attribute("value"))
    radio.click()
    return lambda choice, other: choice["fmr"] == value


def clear(tab):
    button = tab.locator("#photos .photo-input").first.get_by_label("Remove image")
    if button.is_visible():
        button.click()
    return lambda choice, other: other in ("upload", "example") or choice is None


def change_tab(tab):
    for name in ("Find", "Compare"):
        tab.get_by_role("tab", name=name).click()
    return lambda *_: True


ACTIONS = {
    "example": choose_example,
    "face": choose_face,
    "upload": add_photo,
    "strictness": choose_strictness,
    "clear": clear,
    "tab": change_tab,
}


@pytest.fixture(scope="module")
def slow_network(browser, page):
    tab = browser.new_page(viewport={"width": 1280, "height": 1600})
    tab.goto(page)
    expect(tab.locator(ANSWER)).to_contain_text("Add two photos")
    tab.locator(GROUP_EXAMPLE).click()
    expect_verdict(tab, "same")
    tab.get_by_role("button", name="Strictness").click()
    tab.evaluate(COUNT_UPLOADS)
    session = tab.context.new_cdp_session(tab)
    limits = {"offline": False, "latency": LATENCY, "downloadThroughput": -1, "uploadThroughput": -1}
    session.send("Network.emulateNetworkConditions", limits)
    yield tab
    tab.close()


SHOWN = """[
  [...document.querySelectorAll("#photos .image-frame img")].map((image) => image.src),
  document.querySelector("#answer [data-choice]")?.dataset.choice,
]"""


def settled_choice(tab):
    """Wait until nothing is pending. Returns what the answer is for; None if a photo is missing."""
    tab.wait_for_timeout(LATENCY)
    tab.wait_for_function("!window.uploading && !pending && !document.querySelector('#compare.waiting')")
    shown, choice = tab.evaluate(SHOWN)
    if len(shown) < 2:
        expect(tab.locator(ANSWER)).to_contain_text("Add the")
        return None
    choice = json.loads(choice)
    assert choice["photos"] == shown
    return {
        "photos": tuple(photo.split("/")[-1] for photo in shown),
        "faces": tuple(choice["faces"]),
        "fmr": choice["fmr"],
    }


@pytest.mark.parametrize("first", ACTIONS)
def test_two_clicks_end_with_the_answer_to_what_is_chosen(slow_network, first):
    """The second click follows after 50 ms, so the first one is not answered yet."""
    tab = slow_network
    for second in ACTIONS:
        tab.locator(GROUP_EXAMPLE).click()
        expect(tab.locator("#compared .box").first).to_be_visible()
        ACTIONS[first](tab)
        tab.wait_for_timeout(GAP)
        holds = ACTIONS[second](tab)
        choice = settled_choice(tab)
        assert holds(choice, first), (first, second, choice)
        if choice:
            answer = expected(**choice)
            card = tab.locator("#answer .answer")
            expect(card).to_contain_text(f"Dissimilarity {answer.dissimilarity:.2f}")
            expect(card).to_have_class(f"answer {answer.verdict}")


def test_an_answer_to_an_earlier_choice_is_asked_for_again(tab):
    """The first request is changed, so that its answer is marked as one to another strictness."""
    sent = []

    def change(route):
        sent.append(route.request.post_data)
        body = sent[0].replace(r"\"fmr\":0}", r"\"fmr\":1}") if len(sent) == 1 else None
        route.continue_(post_data=body)

    tab.route("**/queue/join*", change)
    tab.locator("#compare [data-example]").first.click()
    expect_verdict(tab, "same")
    assert len(sent) == 2
    assert r"\"fmr\":0}" in sent[0]


def test_a_pair_of_a_group_is_answered_although_its_request_overtakes_another(tab):
    tab.get_by_role("tab", name="Group").click()
    tab.locator("#group [data-example]").click()
    faces = tab.locator("#group [data-face]")
    expect(faces).to_have_count(10)
    held = []

    def hold_the_first(route):
        held.append(route)
        if len(held) != 1:
            route.continue_()

    tab.route("**/queue/join*", hold_the_first)
    for number in (0, 1):
        faces.nth(number).click()
    tab.wait_for_timeout(1000)
    held[0].continue_()
    tab.wait_for_timeout(1000)
    expect(tab.locator("#pair .verdict")).to_be_visible()
    tab.get_by_role("button", name="Close").click()
    expect(tab.locator("#pair .answer")).to_have_count(0)


def test_a_lost_server_is_named(tab):
    tab.route("**/queue/join*", lambda route: None)
    tab.route("**/startup-events", lambda route: route.abort())
    tab.locator("#compare [data-example]").first.click()
    expect(tab.locator(".problem >> visible=true")).to_contain_text("does not answer")
    tab.unroute_all(behavior="ignoreErrors")
    tab.reload()
    expect(tab.locator("#note")).to_contain_text("loaded again")
    tab.locator("#compare [data-example]").first.click()
    expect(tab.locator("#note")).to_be_hidden()
    expect_verdict(tab, "same")
