"""The page in Chromium."""

import csv
import re
import zipfile

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageEnhance, ImageOps
from playwright.sync_api import expect

import siamese

from .browser import ANSWER, needs_chromium, side_by_side, upload
from .conftest import EXAMPLES

pytestmark = needs_chromium


@pytest.fixture
def two(tmp_path):
    """A photo of Biden on the left and Collins on the right."""
    return side_by_side(tmp_path / "two.png", "biden.jpg", "collins.jpg")


def test_about_shows_the_measured_numbers(tab):
    record = siamese.load().record
    tab.get_by_role("tab", name="About").click()
    expect(tab.get_by_text(f"{record.lfw.accuracy:.1%} of its pairs")).to_be_visible()
    for point in record.test_calibration.operating_points:
        distance = record.test_calibration.distance_at(point.score)
        cells = f"1 in {round(1 / point.fmr):,} {distance:.2f} {point.fnmr:.1%}"
        expect(tab.get_by_role("row", name=cells, exact=True)).to_be_visible()


def test_find_marks_the_person_of_the_portrait(tab):
    tab.get_by_role("tab", name="Find").click()
    expect(tab.locator(ANSWER)).to_contain_text("Add a portrait and")
    inputs = tab.locator("#find input[type=file]")
    inputs.last.set_input_files([EXAMPLES / "edited" / "group.jpg", EXAMPLES / "collins.jpg"])
    expect(tab.locator(ANSWER)).to_contain_text("Add a portrait.")
    expect(tab.locator("#find .thumbnails img")).to_have_count(2)
    inputs.first.set_input_files(EXAMPLES / "biden.jpg")
    expect(tab.locator("#find .verdict")).to_have_text("Found in 1 of 2 photos")
    expect(tab.locator(ANSWER)).to_contain_text("group.jpg")
    expect(tab.locator("#find .searched .box")).to_have_count(5)
    script = "boxes => boxes.map(box => [box.title, box.matches('.match.best'), box.matches('.match, .best')])"
    boxes = tab.locator("#find .searched .box").evaluate_all(script)
    assert [text for text, is_best, _ in boxes if is_best] == [">99.9%"]
    assert all(float(text.strip("<%")) < 5 for text, _, is_marked in boxes if not is_marked)
    expect(tab.locator("#find figure.match figcaption")).to_have_text(">99.9% group.jpg")
    expect(tab.get_by_text("collins.jpg").last).to_be_hidden()
    tab.get_by_text("1 other photo").click()
    expect(tab.get_by_text("collins.jpg").last).to_be_visible()
    photo, best = (tab.locator(f"#find {part}").first.bounding_box() for part in (".searched .photo", ".best"))
    assert best["x"] > photo["x"] + 0.75 * photo["width"]  # the last of four parts
    inputs.first.set_input_files(EXAMPLES / "hopper.jpg")
    expect(tab.locator("#find .best")).to_have_attribute("style", re.compile(r"^left: 1?\d\.\d%"))  # the first part
    expect(tab.locator("#find .best")).to_have_attribute("title", ">99.9%")


def test_find_example_and_a_portrait_without_a_face(tab, tmp_path):
    tab.get_by_role("tab", name="Find").click()
    tab.locator("#find [data-example]").click()
    expect(tab.locator("#find .verdict")).to_have_text("Found in 1 of 1 photo")
    Image.effect_noise((300, 300), 80).save(tmp_path / "noise.png")
    tab.get_by_label("Remove image").locator("visible=true").first.click()
    tab.locator("#find input[type=file]").first.set_input_files(tmp_path / "noise.png")
    expect(tab.locator("#find .problem")).to_contain_text("No face was found in the portrait")
    expect(tab.locator("#find .box")).to_have_count(0)


def test_photos_are_grouped_by_person(tab, tmp_path):
    """Nine photos of four people."""
    for name, change in (
        ("biden-bright.jpg", lambda photo: ImageEnhance.Brightness(photo).enhance(1.3)),
        ("biden-small.jpg", lambda photo: photo.reduce(2)),
        ("collins-mirrored.jpg", ImageOps.mirror),
    ):
        change(Image.open(EXAMPLES / f"{name.partition('-')[0]}.jpg").convert("RGB")).save(tmp_path / name)
    photos = sorted([*EXAMPLES.glob("*.jpg"), *tmp_path.glob("*.jpg")])
    assert len(photos) == 9
    (tmp_path / "song.png").write_bytes(b"la la la")
    tab.get_by_role("tab", name="Group").click()
    expect(tab.locator(ANSWER)).to_contain_text("Add up to 40 photos")
    tab.locator("input[type=file]").last.set_input_files([*photos, tmp_path / "song.png"])
    expect(tab.locator(".verdict >> visible=true")).to_have_text("4 people")
    expect(tab.locator(ANSWER)).to_contain_text("9 faces · 9 photos")
    expect(tab.locator("#group .thumbnails img")).to_have_count(9)
    expect(tab.locator("#group .thumbnails figure")).to_have_count(10)
    expect(tab.locator(ANSWER)).to_contain_text("song.png is not an image")
    for row in range(4):
        captions = tab.locator(".person").nth(row).locator("figcaption")
        names = captions.evaluate_all("captions => captions.map(caption => caption.title)")
        assert len({name.replace(".", "-").partition("-")[0] for name in names}) == 1
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download the dissimilarities").click()
    rows = list(csv.reader(download.value.path().read_text().splitlines()))
    assert sorted(rows[0][2:]) == sorted(photo.name for photo in photos)
    assert len({(row[1], re.split("[-.]", row[0])[0]) for row in rows[1:]}) == len({row[1] for row in rows[1:]}) == 4
    at = {name: number for number, name in enumerate(rows[0])}
    expected = siamese.load().compare(EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg").dissimilarity
    assert float(rows[at["biden.jpg"] - 1][at["collins.jpg"]]) == pytest.approx(expected, abs=0.02)
    tab.locator("#group").get_by_role("button", name="Strictness").click()
    tab.locator("#group").get_by_role("radio", name="Very strict").check()
    calibration = siamese.load().calibration
    threshold = calibration.distance_at(calibration.needed(1e-5, 9))
    expect(tab.locator("#group .people")).to_contain_text(f"at most {threshold:.2f}")


def test_two_faces_of_a_group_are_compared_and_the_photos_downloaded(tab):
    tab.get_by_role("tab", name="Group").click()
    tab.locator("#group [data-example]").click()
    expect(tab.locator("#group .verdict >> visible=true")).to_have_text("4 people")
    files = [*EXAMPLES.glob("*.jpg"), EXAMPLES / "edited" / "group.jpg"]
    faces = tab.locator("#group [data-face]")
    expect(faces).to_have_count(10)

    def face_of(name):
        return faces.filter(has=tab.locator(f'img[alt="Face in {name}"]'))

    for name, verdict in (
        ("collins.jpg", "different"),
        ("obama-portrait.jpg", "different"),
        ("biden.jpg", "different"),
    ):
        face_of(name).click()
        if name == "collins.jpg":
            continue
        expect(tab.locator(f"#pair .{verdict}")).to_be_visible()
        expect(tab.locator('#group [aria-pressed="true"]')).to_have_count(2)
    answer = siamese.load().compare(EXAMPLES / "obama-portrait.jpg", EXAMPLES / "biden.jpg")
    expect(tab.locator("#pair")).to_contain_text(f"Dissimilarity {answer.dissimilarity:.2f}")
    face_of("obama-standing.jpg").click()
    face_of("obama-portrait.jpg").click()
    expect(tab.locator("#pair .same")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator("#pair .answer")).to_have_count(0)
    expect(tab.locator('#group [aria-pressed="true"]')).to_have_count(0)
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download the photos by person").click()
    assert download.value.suggested_filename == "photos-by-person.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        names = [name.partition("/") for name in archive.namelist()]
        assert {folder for folder, _, _ in names} == {f"person {number}" for number in range(1, 5)}
        assert sorted({name for _, _, name in names}) == sorted(file.name for file in files)
        assert sum(name == "group.jpg" for _, _, name in names) == 4
        for folder, _, name in names:
            (file,) = [file for file in files if file.name == name]
            assert archive.read(f"{folder}/{name}") == file.read_bytes()


def test_too_many_photos_are_explained(tab, tmp_path):
    photos = [tmp_path / f"{number}.png" for number in range(41)]
    for photo in photos:
        Image.new("RGB", (40, 40)).save(photo)
    tab.get_by_role("tab", name="Group").click()
    tab.locator("input[type=file]").last.set_input_files(photos)
    expect(tab.locator(ANSWER)).to_contain_text("41 photos")
    expect(tab.locator(ANSWER)).to_contain_text("Remove 1")
    expect(tab.locator(ANSWER)).to_contain_text("siamese group")
    tab.get_by_role("button", name="Remove 7.png", exact=True).click()
    expect(tab.locator("#group .thumbnails figure")).to_have_count(40)
    expect(tab.locator(ANSWER)).to_contain_text("No face was found", timeout=60_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_accessibility_and_width(browser, page, two, scheme, width):
    """On each tab: no serious finding of axe-core, alternative text for each image, no horizontal scrolling."""
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab.goto(page)
    upload(tab, two, EXAMPLES / "collins.jpg")
    expect(tab.locator("#answer .verdict")).to_be_visible()
    for name in ("Compare", "Find", "Group", "About"):
        tab.get_by_role("tab", name=name).click()
        if name == "Find":
            tab.locator("#find [data-example]").click()
            expect(tab.locator("#find .verdict")).to_contain_text("Found in")
        elif name == "Group":
            tab.locator("input[type=file]").last.set_input_files([two, EXAMPLES / "collins.jpg"])
            expect(tab.locator(".verdict >> visible=true")).to_have_text("2 people")
            for face in (0, 1):
                tab.locator("#group [data-face]").nth(face).click()
            expect(tab.locator("#pair .verdict")).to_be_visible()
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
        # A saliency map covers an image with text, and an example has a caption.
        untitled = "i.checkVisibility() && !i.alt && !i.matches('.heat img, [data-example] img')"
        without_text = tab.evaluate(f"[...document.images].filter(i => {untitled}).map(i => i.outerHTML)")
        assert not without_text, name
        if width == 390:
            tab.set_viewport_size({"width": 320, "height": 800})
            assert tab.evaluate("document.documentElement.scrollWidth") == 320, name
            tab.set_viewport_size({"width": width, "height": 800})
    tab.close()
