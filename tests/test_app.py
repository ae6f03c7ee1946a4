"""The API of the page, and what the page keeps of its visitors."""

import gzip
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import siamese
from siamese.page.uploads import Upload

from .conftest import EXAMPLES, ROOT, alike

PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"
PAIR_OF_ONE = EXAMPLES / "obama-portrait.jpg", EXAMPLES / "obama-speaking.jpg"
CHOICE = '{"faces": [null, null]}'  # as app.js sends it
UPLOADS = [Upload(str(photo)) for photo in PAIR]


@pytest.fixture(scope="module")
def client(page):
    return Client(page, verbose=False)


def test_compare_returns_the_fields_of_a_comparison(client, model):
    answer = client.predict(*map(handle_file, PAIR), api_name="/compare")
    assert alike(answer, model.compare(*PAIR).to_dict())


def test_the_document_is_compressed_and_names_the_page_in_links(page):
    request = urllib.request.Request(page, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as response:
        assert response.headers["content-encoding"] == "gzip"
        document = gzip.decompress(response.read()).decode()
    tags = dict(re.findall(r'<meta property="(og:\w+|description)" name="[^"]*" content="([^"]*)">', document))
    assert tags.keys() == {"description", "og:title", "og:description", "og:type"}
    assert "Gradio" not in "".join(tags.values())
    assert document.count('property="og:title"') == 1
    assert "Siamese" in tags["description"]
    assert '<link rel="icon" href="data:image/svg' in document
    assert "data:image/jpeg;base64" not in document  # thumbnails are files


def test_compare_rejects_uploads_that_are_not_photos(client, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    for name, message in (("broken.jpg", "not an image"), ("dot.png", "only 1 × 1 pixels")):
        with pytest.raises(AppError, match=message):
            client.predict(handle_file(tmp_path / name), handle_file(PAIR[0]), api_name="/compare")
    with pytest.raises(AppError, match="second photo is missing"):
        client.predict(handle_file(PAIR[0]), None, api_name="/compare")


def test_compare_accepts_gif_and_exif_orientation(client, model, tmp_path):
    upright = Image.open(PAIR[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "rotated.png", exif=exif)
    upright.save(tmp_path / "upright.gif")

    def dissimilarity(file):
        answer = client.predict(handle_file(tmp_path / file), handle_file(PAIR[1]), api_name="/compare")
        return answer["dissimilarity"]

    expected = model.compare(*PAIR).dissimilarity
    assert dissimilarity("rotated.png") == pytest.approx(expected, rel=1e-5)
    assert dissimilarity("upright.gif") == pytest.approx(expected, rel=0.2)  # 256 colours


def test_compare_with_several_faces_and_with_none(client, tmp_path):
    two = Image.new("RGB", (1000, 500))
    for x, file in zip((0, 500), PAIR, strict=True):
        two.paste(Image.open(file).resize((500, 500)), (x, 0))
    two.save(tmp_path / "two.png")
    Image.new("RGB", (300, 300)).save(tmp_path / "blank.png")

    def compare(file, *numbers):
        return client.predict(handle_file(tmp_path / file), handle_file(PAIR[1]), *numbers, api_name="/compare")

    assert {compare("two.png", number, None)["verdict"] for number in (1, 2)} == {"same", "different"}
    with pytest.raises(AppError, match="must be 1 to 2, got 5"):
        compare("two.png", 5, None)
    answer = compare("blank.png")
    assert (answer["dissimilarity"], answer["verdict"], answer["faces"][0]) == (None, "no face", None)
    assert "No face was found in the first photo" in answer["warnings"][0]


def test_compare_uses_the_requested_false_match_rate(client, model):
    pair = list(map(handle_file, PAIR_OF_ONE))
    for rate in (1e-3, 1e-5):
        answer = client.predict(*pair, None, None, rate, api_name="/compare")
        expected = model.compare(*PAIR_OF_ONE, fmr=rate)
        assert (answer["verdict"], answer["fmr"]) == (expected.verdict, rate)
        assert answer["threshold"] == pytest.approx(expected.threshold, abs=1e-3)
    with pytest.raises(AppError, match="above 0"):
        client.predict(*pair, None, None, 0, api_name="/compare")


def test_stricter_rates_are_never_looser_over_http(client):
    """The blurred photo is "same" at some rates. Each endpoint gets the same photos."""
    portrait, blurred = handle_file(PAIR_OF_ONE[0]), handle_file(EXAMPLES / "edited" / "obama-blurred.jpg")
    compared, found, grouped = [], [], []
    for rate in (1e-9, 1e-5, 1e-3, 0.01):
        compared.append(client.predict(portrait, blurred, None, None, rate, api_name="/compare")["same"] is True)
        found.append(client.predict([blurred], portrait, rate, api_name="/find")["ranked"][0]["match"])
        grouped.append(len(client.predict([portrait, blurred], rate, api_name="/group")["people"]) == 1)
    for same in (compared, found, grouped):
        assert same == sorted(same)
    assert compared == found  # one question
    assert (compared[0], compared[-1]) == (False, True)


@pytest.mark.parametrize(
    ("endpoint", "values"),
    [
        ("/compare", ("photo", "photo")),
        ("/compare", (5, 5)),
        ("/compare", (*map(handle_file, PAIR), "x")),
        ("/compare", (*map(handle_file, PAIR), None, None, "x")),
        ("/compare", (*map(handle_file, PAIR), None, None, [1])),
        ("/group", ("photos",)),
        ("/group", (handle_file(PAIR[0]),)),
        ("/group", ([handle_file(PAIR[0])], "x")),
    ],
)
def test_values_of_a_wrong_type_are_answered_with_a_sentence(client, capfd, endpoint, values):
    with pytest.raises(AppError, match=r"wrong type|is a number"):
        client.predict(*values, api_name=endpoint)
    assert "Traceback" not in capfd.readouterr().err


def test_photos_are_not_fetched_from_an_address(client, capfd):
    address = "https://example.com/photo.jpg"
    photo = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError, match="upload the photo"):
        client.predict(photo, handle_file(PAIR[1]), api_name="/compare")
    with pytest.raises(AppError, match="upload the photo"):
        client.predict([{"nested": photo}], None, api_name="/group")
    assert not capfd.readouterr().err


def test_the_address_of_an_upload_is_accepted(client, page, model):
    """MCP clients send it."""
    boundary = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    body = boundary + PAIR[0].read_bytes() + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with urllib.request.urlopen(urllib.request.Request(f"{page}/gradio_api/upload", body, headers)) as response:
        (path,) = json.load(response)

    def compare(address: str) -> dict:
        photo = {"path": address, "meta": {"_type": "gradio.FileData"}}
        return client.predict(photo, handle_file(PAIR[1]), api_name="/compare")

    assert alike(compare(f"{page}/gradio_api/file={path}"), model.compare(*PAIR).to_dict())
    for other in (__file__, "https://example.com/a.jpg"):
        with pytest.raises(AppError):
            compare(f"{page}/gradio_api/file={other}")


def test_form_fields_that_are_no_files_are_refused(page):
    body = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\n' + bytes(1000) + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(f"{page}/gradio_api/upload", body, headers))


def test_files_that_are_no_photos_are_named_and_left_out(client, tmp_path):
    (tmp_path / "stray.MOV").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(500))
    shutil.copy(PAIR[0], tmp_path / "nosuffix")
    photo = Image.open(PAIR[1]).convert("RGB")
    photo.save(tmp_path / "photo.qoi")
    photo.save(tmp_path / "photo.mpo", save_all=True, append_images=[photo])
    files = [handle_file(tmp_path / name) for name in ("stray.MOV", "nosuffix", "photo.qoi", "photo.mpo")]
    for answer in (
        client.predict(files, api_name="/group"),
        client.predict(files, handle_file(PAIR[0]), api_name="/find"),
    ):
        faces = answer["ranked"] if "ranked" in answer else [face for faces in answer["people"] for face in faces]
        assert {face["photo"] for face in faces} == {"nosuffix", "photo.mpo"}
        assert [warning.split()[0] for warning in answer["warnings"]] == ["stray.MOV", "photo.qoi"]


def test_group_sorts_faces_by_person(client, model, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not an image")
    files = [*sorted(EXAMPLES.glob("*.jpg")), tmp_path / "broken.png"]
    answer = client.predict([handle_file(file) for file in files], api_name="/group")
    row_of = [face["photo"] for faces in answer["people"] for face in faces]
    assert (len(row_of), len(answer["people"]), answer["left_over"]) == (6, 4, [])
    assert [face["photo"].partition("-")[0] for face in answer["people"][0]] == ["obama"] * 3
    found = answer["dissimilarities"][row_of.index(PAIR[0].name)][row_of.index(PAIR[1].name)]
    assert found == pytest.approx(model.compare(*PAIR).dissimilarity, rel=1e-3)
    (warning,) = answer["warnings"]
    assert warning.startswith("broken.png ")
    with pytest.raises(AppError, match="41 photos"):
        client.predict([handle_file(PAIR[0])] * 41, api_name="/group")
    with pytest.raises(AppError, match="missing"):
        client.predict([], api_name="/group")


def test_find_ranks_the_faces_of_several_photos(client, model):
    files = [EXAMPLES / "edited" / "group.jpg", PAIR[1]]
    answer = client.predict([handle_file(file) for file in files], handle_file(PAIR[0]), api_name="/find")
    best, *others = answer["ranked"]
    assert (best["photo"], best["match"]) == ("group.jpg", True)
    assert best["box"][0] > 900  # the last of four parts, each 300 pixels wide
    assert best["probability"] > 0.99
    assert len(others) == 4
    assert all(face["probability"] < 0.1 and not face["match"] for face in others)
    assert {face["number"] for face in answer["ranked"] if face["photo"] == "group.jpg"} == {1, 2, 3, 4}
    for arguments, message in ((([], PAIR[0]), "photos are missing"), (([PAIR[0]], None), "portrait is missing")):
        photos, portrait = arguments
        portrait = portrait and handle_file(portrait)
        with pytest.raises(AppError, match=message):
            client.predict([handle_file(photo) for photo in photos], portrait, api_name="/find")


def test_api_description_has_all_arguments_and_results(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/compare", "/find", "/group"}
    for name, words in (
        ("/compare", ("first:", "second:", "first_face:", "false_match_rate:", "dissimilarity", "confidence_interval")),
        ("/find", ("files:", "portrait:", "probability", "warnings")),
        ("/group", ("files:", "false_match_rate:", "dissimilarities", "person")),
    ):
        assert all(word in endpoints[name]["description"] for word in words)
        assert [value["label"] for value in endpoints[name]["returns"]] == ["Answer"]
        assert all(parameter["parameter_name"] for parameter in endpoints[name]["parameters"])
    labels = [parameter["label"] for parameter in endpoints["/compare"]["parameters"]]
    assert labels[:2] == ["First photo", "Second photo"]
    assert len(set(labels)) == 5


WATCH_A_SESSION = """
import contextlib, json, re, sys, time, urllib.request
from pathlib import Path

import app
from gradio_client import Client, handle_file
from siamese.page import widgets
from siamese.page.server import start_cleanup

folder, secret, *pair = map(Path, sys.argv[1:])


def kept_files():
    kept = []
    for file in folder.rglob("*"):
        if file.parent == Path(widgets._thumbnails.name):  # of the examples
            continue
        with contextlib.suppress(OSError):  # a folder, or deleted just now
            kept += [file.name] if file.read_bytes() else []
    return kept


def kept_sessions():
    return sum("base64" in str(session.config_values) for session in app.demo.state_holder.session_data.values())


def example_is_served():
    example = re.search(r'gradio_api/file=[^"]+-[^"]+', app.example.value)[0]
    for part in (example, f"gradio_api/file={app.PORTRAIT}"):
        urllib.request.urlopen(f"{app.demo.local_url}{part}")
    return True


app.launch(prevent_thread_lock=True, quiet=True)
client = Client(app.demo.local_url, verbose=False)
client.predict(*map(handle_file, pair), api_name="/compare")
client.predict([handle_file(pair[0])] * 2, api_name="/group")
try:
    client.predict(handle_file(secret), handle_file(pair[1]), api_name="/compare")
except Exception as error:
    refusal = str(error)
(Path(app.demo.GRADIO_CACHE) / "tmp0123").write_bytes(b"the first half of a photo")
app.demo.state_holder["a visitor"]._update_value_in_config(app.compared._id, "data:image/png;base64,")
before = {"files": kept_files(), "sessions": kept_sessions(), "refusal": refusal, "example": example_is_served()}
start_cleanup(app.demo, interval=1, max_age=3)
for _ in range(100):
    if not (kept_files() or kept_sessions()):
        break
    time.sleep(0.2)
print(json.dumps([before, {"files": kept_files(), "sessions": kept_sessions(), "example": example_is_served()}]))
"""


def test_clean_up_deletes_all_photos_and_answers(tmp_path):
    """Clean up every second instead of every ten minutes. Examples still work afterwards."""
    upload, temporary, secret = tmp_path / "lock", tmp_path / "temporary", tmp_path / "my secret.jpg"
    temporary.mkdir()
    secret.write_bytes(b"la la la")
    Image.open(PAIR[0]).resize((300, 375)).save(upload, "PNG")
    command = [sys.executable, "-c", WATCH_A_SESSION, temporary, secret, upload, PAIR[1]]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stderr
    before, after = json.loads(run.stdout.splitlines()[-1])
    assert {upload.name, "tmp0123"} < set(before["files"])
    assert before["sessions"] >= 1
    assert "not an image" in before["refusal"]
    assert before["example"]
    assert after == {"files": [], "sessions": 0, "example": True}
    assert "secret" not in run.stderr, "file names must not be logged"


def test_many_clients_at_once(page, model):
    clients = [Client(page, verbose=False) for _ in range(8)]
    pair = [handle_file(file) for file in PAIR]

    def compare(number: int) -> float:
        return clients[number % 8].predict(*pair, api_name="/compare")["dissimilarity"]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(compare, range(32)))
    assert answers == pytest.approx([model.compare(*PAIR).dissimilarity] * 32, rel=1e-3)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_comparisons(start_page):
    """Memory after 300 comparisons by 32 clients is at most 10 % more than after the first 30."""
    page = start_page()
    process = start_page.started[-1]
    clients = [Client(page, verbose=False) for _ in range(32)]
    pair = [handle_file(file) for file in PAIR]

    def compare(number: int) -> None:
        clients[number % 32].predict(*pair, api_name="/compare")

    def resident() -> int:
        return int(Path(f"/proc/{process.pid}/status").read_text().partition("VmRSS:")[2].split()[0])

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(compare, range(30)))
        before = resident()
        list(pool.map(compare, range(30, 300)))
    assert resident() < 1.1 * before


def test_environment_variable_selects_the_weights(trained, monkeypatch):
    monkeypatch.setenv("SIAMESE_WEIGHTS", str(trained))
    app = runpy.run_path(str(ROOT / "app.py"))
    assert alike(app["compare"](*UPLOADS), siamese.load(trained).compare(*PAIR).to_dict())
    (card, *_), (*_, compared, _) = app["on_choice"](*UPLOADS, CHOICE, 0.0, None)
    assert "thing" in card
    assert "crop" in compared


def test_missing_weights_stop_the_page(monkeypatch):
    monkeypatch.setenv("SIAMESE_WEIGHTS", "no-such-folder")
    with pytest.raises(SystemExit, match="no-such-folder"):
        runpy.run_path(str(ROOT / "app.py"))


def test_deleted_photos_are_explained(monkeypatch, tmp_path):
    monkeypatch.delenv("SIAMESE_WEIGHTS", raising=False)
    app = runpy.run_path(str(ROOT / "app.py"))
    gone = Upload(str(tmp_path / "gone.jpg"))
    ((card, *_),) = app["on_choice"](gone, UPLOADS[1], CHOICE, 0.0, None)
    assert "deleted" in card
    assert "gone" not in card


def test_other_files_are_not_served(page):
    for path in ("weights/att/config.json", "README.md"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{page}/gradio_api/file={ROOT / path}")
        assert refused.value.code == 403


HOLD_A_FOLDER = """
import sys, time
import os, pathlib
def refuse(*arguments): raise PermissionError(13, "The process cannot access the file")
os.rename = os.replace = pathlib.Path.rename = pathlib.Path.replace = refuse  # as Windows does if a file is open
from siamese.page.uploads import use_own_uploads_folder

folder = use_own_uploads_folder().path
(folder / "upload").mkdir()
(folder / "upload" / "photo.jpg").write_bytes(b"a face")
print(folder, flush=True)
time.sleep(float(sys.argv[1]))
"""


def test_uploads_of_a_killed_page_are_deleted_at_the_next_start(tmp_path):
    """The page neither renames the folder nor holds a file open in it, which Windows refuses."""

    def start(seconds: int) -> tuple[subprocess.Popen, Path]:
        environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
        command = [sys.executable, "-c", HOLD_A_FOLDER, str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        return process, Path(process.stdout.readline().strip())

    (killed, old), (running, other), (stopped, gone) = start(600), start(600), start(600)
    stopped.terminate()
    assert stopped.wait() == 0
    assert not gone.exists()
    killed.kill()
    killed.wait()
    assert (old / "upload" / "photo.jpg").exists()
    assert not [file for file in psutil.Process(running.pid).open_files() if other in Path(file.path).parents]
    ended, own = start(0)
    ended.wait()
    assert [old.exists(), own.exists(), (other / "upload" / "photo.jpg").exists()] == [False, False, True]
    running.kill()
    running.wait()
    assert sorted(tmp_path.iterdir()) == [other, other.with_name(f"{other.name}.lock")]
