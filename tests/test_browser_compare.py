"""The Compare tab in Chromium: each state, and what the visitor can do."""

import re

import pytest
from PIL import Image
from playwright.sync_api import expect

import siamese

from .browser import ANSWER, expect_verdict, needs_chromium, side_by_side, upload
from .conftest import EXAMPLES, ROOT

pytestmark = needs_chromium
VERDICT = "#answer .verdict"


@pytest.fixture
def photos(tmp_path):
    """Photos for each state of the page."""
    (tmp_path / "song.jpg").write_bytes(b"la la la")
    Image.effect_noise((300, 300), 80).save(tmp_path / "noise.png")
    standing = Image.open(EXAMPLES / "obama-standing.jpg").convert("RGB")
    standing.reduce(14).resize(standing.size).save(tmp_path / "blurred.png")
    standing.save(tmp_path / "standing.tiff")
    return tmp_path


@pytest.fixture
def three(tmp_path):
    """A photo of Biden, Collins and Obama."""
    return side_by_side(tmp_path / "three.png", "biden.jpg", "collins.jpg", "obama-portrait.jpg")


STATES = {  # name: photos, symbol and words
    "same": ("obama-portrait.jpg", "obama-standing.jpg", "=", "the same person"),
    "different": ("biden.jpg", "obama-speaking.jpg", "≠", "different people"),
    "unsure": ("blurred.png", "obama-portrait.jpg", "?", "Not sure"),
    "problem": ("song.jpg", "biden.jpg", "!", "not an image"),
    "no-face": ("noise.png", "collins.jpg", "", "No face was found in the first photo"),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_state_has_its_own_symbol_color_and_words(browser, page, photos, scheme):
    colors = {}
    for state, (first, second, symbol, words) in STATES.items():
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(page)
        upload(tab, *(photos / name if (photos / name).exists() else EXAMPLES / name for name in (first, second)))
        card = tab.locator(f".answer.{state} >> visible=true")
        expect(card).to_contain_text(words)
        expect(card.locator(".symbol")).to_have_text(symbol)
        expect(card.locator(".symbol svg")).to_have_count(int(state == "no-face"))
        colors[state] = card.evaluate("card => getComputedStyle(card).borderColor")
        tab.close()
    assert len(set(colors.values())) == len(STATES)


def test_the_answer_shows_its_numbers(tab):
    pair = EXAMPLES / "obama-speaking.jpg", EXAMPLES / "biden.jpg"
    upload(tab, *pair)
    answer = siamese.load().compare(*pair)
    expect(tab.locator("#answer")).to_contain_text(f"Dissimilarity {answer.dissimilarity:.2f}")
    for part in ("#answer", "#among"):
        expect(tab.locator(part)).to_contain_text(f"same person up to {answer.threshold:.2f}")
    tab.locator(".chance summary").click()
    expect(tab.locator(".chance")).to_contain_text("equally likely")


def test_an_example_gives_an_answer(tab):
    tab.locator(".examples button").nth(2).click()
    answer = siamese.load().compare(EXAMPLES / "obama-speaking.jpg", EXAMPLES / "biden.jpg")
    expect(tab.locator("#answer")).to_contain_text(f"Dissimilarity {answer.dissimilarity:.2f}")


def test_the_first_screen_holds_photos_examples_and_verdict(tab):
    examples = tab.locator(".examples")
    before = examples.bounding_box()
    examples.get_by_role("button").first.click()
    expect(tab.locator(".seen")).to_be_visible()
    assert examples.bounding_box() == before
    card = tab.locator(ANSWER).bounding_box()
    assert card["y"] + card["height"] < 800
    order = ["#photos", ".examples", "#answer", "#among", "#compared", "#strictness", "#repeat"]
    tops = [tab.locator(selector).bounding_box()["y"] for selector in order]
    assert tops == sorted(tops)
    expect(tab.locator("#strictness").get_by_role("radio").first).to_be_hidden()


def test_unsure_says_what_to_try(tab, photos):
    upload(tab, photos / "blurred.png", EXAMPLES / "obama-portrait.jpg")
    expect(tab.locator(".unsure .advice")).to_contain_text("sharper")


def test_the_aligned_faces_can_be_wiped_with_the_keyboard(tab):
    tab.locator(".examples button").first.click()
    slider = tab.get_by_role("slider", name="Where the first face ends")
    slider.focus()
    shown = "() => getComputedStyle(document.querySelector('.wipe .over')).clipPath"
    assert tab.evaluate(shown) == "inset(0px 0px 0px 50%)"
    for key, clip in (("ArrowRight", "51%"), ("Home", "0%"), ("End", "100%")):
        tab.keyboard.press(key)
        expect(slider).to_have_value(clip.removesuffix("%"))
        assert tab.evaluate(shown).replace("0px)", "0%)") in (
            f"inset(0px 0px 0px {clip})",
            "inset(0px 0px 0%)",
            "inset(0%)",
        )


@pytest.mark.parametrize("device", ["mouse", "keyboard"])
def test_another_face_can_be_chosen(tab, three, device):
    upload(tab, three, EXAMPLES / "obama-speaking.jpg")
    expect_verdict(tab, "same")
    closest = tab.locator("[data-face][aria-pressed=true]")
    number = closest.get_attribute("data-face")
    expect(tab.locator(ANSWER)).to_contain_text(f"face {number} of 3 in the first photo")
    expect(tab.locator(".seen")).to_contain_text("Of 3 pairs of faces")
    expect(closest).to_have_text(number)
    other = tab.get_by_role("button", name=f"Face {'2' if number == '1' else '1'} of 3 in the first photo")

    def press(button):
        if device == "mouse":
            button.click()
        else:
            button.focus()
            tab.keyboard.press("Enter")

    press(other)
    expect(other).to_have_attribute("aria-pressed", "true")
    expect(other).to_be_focused()
    expect_verdict(tab, "different")
    press(tab.get_by_role("button", name="Back to the closest pair"))
    expect_verdict(tab, "same")
    expect(closest).to_have_text(number)
    expect(tab.get_by_role("button", name="Back to the closest pair")).to_be_hidden()


def test_strictness_changes_the_verdict(tab, tmp_path):
    """A blurred photo is "same" at odds of 3 to 1, but not at one false match in 100,000."""
    pair = EXAMPLES / "edited" / "obama-blurred.jpg", EXAMPLES / "obama-portrait.jpg"
    upload(tab, *pair)
    expect_verdict(tab, "same")
    slider = tab.get_by_role("slider", name="Where the first face ends")
    slider.fill("20")
    tab.get_by_role("button", name="Strictness").click()
    point, answer = siamese.load().calibration.operating_points[-1], siamese.compare(*pair, fmr=1e-5)
    name = re.compile(rf"Very strict .*1 in 100,000 .*{point.fnmr:.1%}")
    tab.get_by_role("radio", name=name).check()
    expect_verdict(tab, "unsure")
    expect(tab.locator(VERDICT)).to_contain_text("very strict")
    for part in ("#answer", "#among"):
        expect(tab.locator(part)).to_contain_text(f"same person up to {answer.threshold:.2f}")
    expect(tab.locator("#answer .numbers")).to_contain_text("very strict")
    expect(tab.locator("#repeat pre").first).to_contain_text("fmr=1e-05")
    tab.get_by_role("radio", name="Everyday").check()
    expect_verdict(tab, "same")
    expect(slider).to_have_value("20")


def test_a_single_bad_photo_is_named_on_arrival(tab, photos):
    upload(tab, photos / "song.jpg")
    expect(tab.locator(".problem >> visible=true")).to_contain_text("not an image")
    expect(tab.locator(".image-frame img")).to_be_hidden()  # the browser would show a broken image
    tab.get_by_label("Remove image").click()
    expect(tab.locator(ANSWER)).to_contain_text("Add two photos")
    upload(tab, None, photos / "noise.png")
    expect(tab.locator(".no-face >> visible=true")).to_contain_text("No face was found in the second photo")


def test_missing_photo_is_requested(tab):
    upload(tab, EXAMPLES / "biden.jpg")
    expect(tab.locator(ANSWER)).to_contain_text("Add the second photo")
    upload(tab, None, EXAMPLES / "collins.jpg")
    expect(tab.locator(VERDICT)).to_be_visible()
    tab.get_by_label("Remove image").first.click()
    expect(tab.locator(ANSWER)).to_contain_text("Add the first photo")


def test_invalid_uploads_are_explained(tab, tmp_path):
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    upload(tab, tmp_path / "dot.png", EXAMPLES / "collins.jpg")
    expect(tab.locator(".problem >> visible=true")).to_contain_text("only 1 × 1 pixels")


def test_a_photo_that_the_browser_cannot_draw_has_a_preview(tab, photos):
    upload(tab, photos / "standing.tiff", EXAMPLES / "obama-portrait.jpg")
    expect_verdict(tab, "same")
    photo = tab.get_by_alt_text("First photo", exact=True)
    expect(photo).to_have_attribute("src", re.compile("^data:image/jpeg"))
    expect(photo).to_be_visible()
    tab.get_by_label("Remove image").first.click()
    expect(tab.locator(ANSWER)).to_contain_text("Add the first photo")


def test_a_heic_photo_has_a_preview(tab):
    pytest.importorskip("pi_heif")
    upload(tab, ROOT / "tests" / "photo.heic")
    expect(tab.get_by_alt_text("First photo", exact=True)).to_have_attribute("src", re.compile("^data:image/jpeg"))


def test_too_large_uploads_are_explained(tab, tmp_path):
    (tmp_path / "large.tiff").write_bytes(b"II*\0" + bytes(11_000_000))  # which the browser cannot reduce
    upload(tab, tmp_path / "large.tiff")
    expect(tab.get_by_text("exceed the maximum allowed size of 10.0 Mb")).to_be_visible()
    Image.new("L", (9000, 8000)).save(tmp_path / "wide.png")
    upload(tab, tmp_path / "wide.png", EXAMPLES / "collins.jpg")
    expect(tab.locator(".problem >> visible=true")).to_contain_text("more than 65 million")


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
    tab.wait_for_function("document.querySelector('video')?.videoWidth > 0")  # before that, Gradio takes no photo
    tab.get_by_label("capture photo").click()
    upload(tab, None, EXAMPLES / "biden.jpg")
    expect_verdict(tab, "same")
    browser.close()


def test_compare_works_with_the_keyboard(tab, three):
    upload(tab, three, EXAMPLES / "collins.jpg")
    expect(tab.locator(".seen")).to_be_visible()
    tab.get_by_role("tab", name="Compare").focus()
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText"))
        if "Strictness" in str(reached[-1]):
            break
    reached = "\n".join(filter(None, reached))
    names = ("Remove Image", "Upload file", "Capture from camera", "Paste from clipboard", "same person up to")
    for name in (*names, "Face 1 of 3 in the first photo", "Where the first face ends", "Strictness"):
        assert name in reached
    tab.locator(".examples button").first.focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_alt_text("Second photo", exact=True)).to_have_attribute("src", re.compile("obama-standing"))
    expect_verdict(tab, "same")


def test_reload_clears_the_page(tab):
    upload(tab, EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg")
    expect(tab.locator(VERDICT)).to_be_visible()
    tab.reload()
    expect(tab.locator(ANSWER)).to_contain_text("Add two photos")
