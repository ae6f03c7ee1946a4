"""How photos get into the page in Chromium, and out of it."""

import base64
import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from .browser import ANSWER, expect_verdict, needs_chromium, side_by_side, upload
from .conftest import EXAMPLES

pytestmark = needs_chromium
HAND_OVER = """([kind, selector, photos]) => {
  const data = new DataTransfer();
  for (const [name, content] of photos) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name, {type: "image/jpeg"}));
  }
  const settings = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
  const event = kind === "paste" ? new ClipboardEvent("paste", settings) : new DragEvent("drop", settings);
  document.querySelector(selector).dispatchEvent(event);
}"""


def hand_over(tab, kind, selector, *names):
    """Drop or paste example photos on a part of the page."""
    photos = [(name, base64.b64encode((EXAMPLES / name).read_bytes()).decode()) for name in names]
    tab.evaluate(HAND_OVER, [kind, selector, photos])


def names_of(tab):
    sources = tab.locator("#photos .image-frame img").evaluate_all("images => images.map((image) => image.src)")
    return [source.split("/")[-1] for source in sources]


def test_two_files_dropped_anywhere_fill_both_photos(tab):
    hand_over(tab, "drop", "body", "biden.jpg", "collins.jpg")
    expect_verdict(tab, "different")
    assert names_of(tab) == ["biden.jpg", "collins.jpg"]
    hand_over(tab, "drop", "#photos .photo-input:nth-of-type(2)", "hopper.jpg")
    expect(tab.get_by_alt_text("Second photo", exact=True)).to_have_attribute("src", re.compile("hopper"))
    hand_over(tab, "drop", "body", "obama-portrait.jpg")
    expect(tab.locator("#note")).to_contain_text("Both photos are there")
    assert names_of(tab) == ["biden.jpg", "hopper.jpg"]


def test_what_belongs_to_an_answer_goes_with_its_photos(tab):
    tab.locator(".examples button").first.click()
    expect(tab.locator("#repeat summary")).to_be_visible()
    tab.get_by_label("Remove image").first.click()
    for part in ("#among", "#compared", "#repeat", "#strictness"):
        expect(tab.locator(part)).to_be_hidden()


def test_pasted_photos_fill_the_empty_input(tab):
    for name, hint in (("obama-portrait.jpg", "second"), ("obama-standing.jpg", None)):
        hand_over(tab, "paste", "body", name)
        if hint:
            expect(tab.locator(ANSWER)).to_contain_text(f"Add the {hint} photo")
    expect_verdict(tab, "same")
    assert names_of(tab) == ["obama-portrait.jpg", "obama-standing.jpg"]


def test_files_dropped_on_find_and_group_go_where_they_belong(tab):
    tab.get_by_role("tab", name="Find").click()
    expect(tab.locator(ANSWER)).to_contain_text("Add a portrait")
    hand_over(tab, "drop", "body", "collins.jpg")
    expect(tab.locator("#find .image-frame img")).to_have_attribute("src", re.compile("collins"))
    hand_over(tab, "drop", "body", "collins.jpg", "biden.jpg")
    expect(tab.locator("#find .verdict")).to_have_text("Found in 1 of 2 photos")
    tab.get_by_role("tab", name="Group").click()
    expect(tab.locator(ANSWER)).to_contain_text("Add up to 40")
    hand_over(tab, "paste", "body", "hopper.jpg")
    expect(tab.locator("#group .thumbnails figure")).to_have_count(1)


def test_a_click_on_a_photo_replaces_it(tab):
    upload(tab, EXAMPLES / "biden.jpg", EXAMPLES / "obama-portrait.jpg")
    expect_verdict(tab, "different")
    with tab.expect_file_chooser() as chooser:
        tab.get_by_alt_text("First photo", exact=True).click()
    chooser.value.set_files(EXAMPLES / "obama-standing.jpg")
    expect_verdict(tab, "same")


def test_a_large_photo_is_reduced_before_it_is_sent(tab, tmp_path):
    photo = Image.open(EXAMPLES / "biden.jpg").convert("RGB").resize((2900, 3600))
    noise = Image.effect_noise(photo.size, 30).convert("RGB")
    Image.blend(photo, noise, 0.1).save(tmp_path / "large.png", compress_level=1)
    assert (tmp_path / "large.png").stat().st_size > 11_000_000
    upload(tab, tmp_path / "large.png", EXAMPLES / "biden.jpg")
    expect_verdict(tab, "same")
    first = tab.get_by_alt_text("First photo", exact=True)
    assert first.evaluate("image => Math.max(image.naturalWidth, image.naturalHeight)") == 2000
    assert names_of(tab)[0] == "large.jpg"


def test_a_camera_that_cannot_be_used_is_explained(browser, page):
    tab = browser.new_page()
    tab.goto(page)
    tab.get_by_label("Capture from camera").first.click()
    tab.get_by_text("Click to Access Webcam").click()
    expect(tab.locator("#note")).to_contain_text("camera")
    tab.close()


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_labels_are_beside_the_photos(browser, page, width):
    tab = browser.new_page(viewport={"width": width, "height": 800}, reduced_motion="reduce")
    tab.goto(page)
    tab.locator(".examples button").first.click()
    expect_verdict(tab, "same")
    for photo in tab.locator("#photos .photo-input").all():
        label, image = (photo.locator(part).bounding_box() for part in ("[data-testid=block-label]", ".image-frame"))
        assert label["y"] >= image["y"] + image["height"] - 1
        icons = photo.locator(".source-selection button").first.bounding_box()
        assert label["x"] + label["width"] <= icons["x"] + 1
        assert image["y"] + image["height"] <= icons["y"]
    crops = tab.locator(".pair img, .both .crop, .wipe .crop")
    for box in (crop.bounding_box() for crop in crops.all()):
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    names = tab.locator("#photos [aria-dropeffect]").evaluate_all("buttons => buttons.map((one) => one.ariaLabel)")
    assert names == ["First photo", "Second photo"]
    tab.close()


def test_single_photos_are_removed(tab):
    """Two quick clicks remove the two photos that were clicked."""
    tab.get_by_role("tab", name="Find").click()
    inputs = tab.locator("#find input[type=file]")
    names = ["biden.jpg", "collins.jpg", "hopper.jpg", "obama-portrait.jpg"]
    inputs.last.set_input_files([EXAMPLES / name for name in names])
    photos = tab.locator("#find .thumbnails figure")
    expect(photos).to_have_count(4)
    for number in (0, 1):
        tab.locator("#find [data-remove]").nth(number).click()
    expect(photos).to_have_count(2)
    inputs.first.set_input_files(EXAMPLES / "collins.jpg")
    expect(tab.locator("#find .verdict")).to_have_text("Found in 1 of 2 photos")
    expect(photos.locator("figcaption")).to_have_text(["collins.jpg", "obama-portrait.jpg"])


REMOVE_AGAIN = """async (gap) => {
  const list = () => document.querySelector("#find .thumbnails"), drawn = list().innerHTML;
  list().querySelector("[data-remove]").click();
  await new Promise((go) => setTimeout(go, gap));
  list().innerHTML = drawn;
  list().querySelectorAll("[data-remove]")[1].click();
}"""


def test_a_late_drawing_of_the_photos_does_not_change_which_one_is_removed(tab):
    """Between two clicks, a photo that was removed is drawn again, as by an answer to an earlier request."""
    tab.get_by_role("tab", name="Find").click()
    names = ["biden.jpg", "collins.jpg", "hopper.jpg", "obama-portrait.jpg"]
    tab.locator("#find input[type=file]").last.set_input_files([EXAMPLES / name for name in names])
    photos = tab.locator("#find .thumbnails figure")
    expect(photos).to_have_count(4)
    tab.evaluate(REMOVE_AGAIN, 50)  # ms
    expect(photos.locator("figcaption")).to_have_text(names[2:])


def test_a_portrait_is_checked_and_its_face_chosen(tab, tmp_path):
    tab.get_by_role("tab", name="Find").click()
    inputs = tab.locator("#find input[type=file]")
    Image.new("RGB", (300, 300)).save(tmp_path / "blank.png")
    inputs.first.set_input_files(tmp_path / "blank.png")
    expect(tab.locator("#find .problem")).to_contain_text("No face")
    inputs.first.set_input_files(side_by_side(tmp_path / "two.png", "biden.jpg", "collins.jpg"))
    faces = tab.locator("#find .seen .box")
    expect(faces).to_have_count(2)
    inputs.last.set_input_files([EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"])
    caption = tab.locator("#find figure.match figcaption")
    found = []
    for _ in range(2):
        expect(caption).to_have_count(1)
        found.append(caption.inner_text().split()[-1])
        tab.locator("#find .seen .box[aria-pressed=false]").click()
        expect(caption).not_to_contain_text(found[-1])
    assert set(found) == {"biden.jpg", "collins.jpg"}


def test_the_overlay_is_dragged_on_the_picture(tab):
    tab.locator(".examples button").first.click()
    crop = tab.locator(".wipe .crop")
    crop.scroll_into_view_if_needed()
    box = crop.bounding_box()
    tab.mouse.move(box["x"] + 100, box["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 40, box["y"] + 50, steps=3)
    tab.mouse.up()
    expect(tab.get_by_role("slider", name="Where the first face ends")).to_have_value("20")


def test_the_verdict_is_in_view_after_another_face_or_strictness(browser, page):
    tab = browser.new_page(viewport={"width": 390, "height": 700})
    tab.goto(page)
    tab.locator(".examples button").nth(3).click()
    tab.locator(".group-photos button").nth(1).click()
    expect_verdict(tab, "different")
    expect(tab.locator(ANSWER)).to_be_in_viewport(ratio=1)
    tab.get_by_role("button", name="Strictness").click()
    tab.get_by_role("radio", name="Very strict").check()
    expect(tab.locator("#answer .numbers")).to_contain_text("very strict")
    expect(tab.locator(ANSWER)).to_be_in_viewport(ratio=1)
    tab.close()
