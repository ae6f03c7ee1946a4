"""The page's endpoint, through Gradio's own client, on a server of its own."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import siamese

from .conftest import EXAMPLES, alike

PAIR = EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg"


def test_answers_with_the_fields_of_a_comparison(page):
    answer = Client(page, verbose=False).predict(*map(handle_file, PAIR), api_name="/compare")
    assert alike(answer, siamese.load().compare(*PAIR).to_dict())


def test_says_what_is_wrong_with_an_upload(page, tmp_path):
    client = Client(page, verbose=False)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    for name, says in (("broken.jpg", "not a picture"), ("dot.png", "only 1 × 1 pixels")):
        with pytest.raises(AppError, match=says):
            client.predict(handle_file(tmp_path / name), handle_file(PAIR[0]), api_name="/compare")
    with pytest.raises(AppError, match="second picture is missing"):
        client.predict(handle_file(PAIR[0]), None, api_name="/compare")


def test_takes_a_gif_and_a_sideways_photo(page, tmp_path):
    client = Client(page, verbose=False)
    upright = Image.open(PAIR[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "sideways.png", exif=exif)
    upright.save(tmp_path / "upright.gif")

    def ask(file):
        return client.predict(handle_file(tmp_path / file), handle_file(PAIR[1]), api_name="/compare")["dissimilarity"]

    expected = siamese.load().compare(*PAIR).dissimilarity
    assert ask("sideways.png") == pytest.approx(expected, rel=1e-5)
    assert ask("upright.gif") == pytest.approx(expected, rel=0.2)  # 256 colours


def test_chooses_among_several_faces_and_answers_without_one(page, tmp_path):
    client = Client(page, verbose=False)
    two = Image.new("RGB", (1000, 500))
    for x, file in zip((0, 500), PAIR, strict=True):
        two.paste(Image.open(file).resize((500, 500)), (x, 0))
    two.save(tmp_path / "two.png")
    Image.new("RGB", (300, 300)).save(tmp_path / "blank.png")

    def ask(first, *faces):
        return client.predict(handle_file(first), handle_file(PAIR[1]), *faces, api_name="/compare")

    verdicts = {ask(tmp_path / "two.png", number, 0)["verdict"] for number in (0, 1)}
    assert verdicts == {"same", "different"}
    with pytest.raises(AppError, match="shows 2 faces: choose one from 0 to 1, got 5"):
        ask(tmp_path / "two.png", 5, 0)
    answer = ask(tmp_path / "blank.png")
    assert (answer["dissimilarity"], answer["verdict"], answer["faces"][0]) == (None, "unsure", None)
    assert "No face was found in the first picture" in answer["warnings"][0]


def test_keeps_to_a_false_match_rate_that_was_measured(page):
    client = Client(page, verbose=False)
    pair = [handle_file(EXAMPLES / f"obama-{name}.jpg") for name in ("portrait", "speaking")]
    for rate in (1e-3, 1e-5):
        answer = client.predict(*pair, 0, 0, rate, api_name="/compare")
        assert answer["threshold"] == siamese.load().calibration.operating_point(rate).distance
    with pytest.raises(AppError, match=r"no threshold was measured for a false-match rate of 0\.3"):
        client.predict(*pair, 0, 0, 0.3, api_name="/compare")


def test_groups_photos_by_who_is_in_them(page, tmp_path):
    client = Client(page, verbose=False)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [*sorted(EXAMPLES.glob("*.jpg")), tmp_path / "broken.png"]
    answer = client.predict([handle_file(file) for file in files], api_name="/group")
    people = {face["photo"]: face["person"] for face in answer["faces"]}
    assert len(people) == 5
    assert len(set(people.values())) == 3
    assert {people[name] for name in people if name.startswith("obama")} == {0}
    at = [face["photo"] for face in answer["faces"]]
    expected = siamese.load().compare(*PAIR).dissimilarity
    found = answer["dissimilarities"][at.index(PAIR[0].name)][at.index(PAIR[1].name)]
    assert found == pytest.approx(expected, rel=1e-3)
    assert answer["warnings"] == ["broken.png is not a picture that can be read. Save it as JPEG or PNG."]
    with pytest.raises(AppError, match="Send 1 to 40 photos; there were 41"):
        client.predict([handle_file(PAIR[0])] * 41, api_name="/group")


def test_its_description_explains_every_argument(page):
    endpoints = Client(page, verbose=False).view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/compare", "/group"}
    for says in (
        "do they show the same person?",
        "the order does not matter",
        "dissimilarity (≥ 0, lower is more alike",
    ):
        assert says in endpoints["/compare"]["description"]
    assert "the mean dissimilarity up to which faces were joined" in endpoints["/group"]["description"]
    for name in ("/compare", "/group"):
        assert [value["label"] for value in endpoints[name]["returns"]] == ["Answer"]
        assert all(parameter["parameter_name"] for parameter in endpoints[name]["parameters"])
    labels = [parameter["label"] for parameter in endpoints["/compare"]["parameters"]]
    assert labels == [
        "First photo",
        "Second photo",
        "Which face of the first photo, from 0",
        "Which face of the second photo, from 0",
        "False-match rate, empty for odds of three to one",
    ]


def test_mcp_says_what_to_install_where_it_is_missing():
    code = "import sys; sys.modules['mcp'] = None; import importlib.util as u; u.find_spec = lambda name: None\n"
    run = subprocess.run(
        [sys.executable, "-c", code + "import app; app.launch()"],
        capture_output=True,
        text=True,
        env={**os.environ, "SIAMESE_MCP": "1"},
        cwd=EXAMPLES.parent,
    )
    assert run.returncode == 1
    assert "pip install 'gradio[mcp]'" in run.stderr


def test_no_picture_is_left_after_the_clean_up(start_page, tmp_path):
    """With the clean-up of every ten minutes brought forward; the examples, which are ours, may stay."""
    code = "import app; app.demo.delete_cache = (1, 2); app.launch()"
    ours = {file.read_bytes() for file in EXAMPLES.glob("*.jpg")}
    upload, temporary = tmp_path / "upload.png", tmp_path / "temporary"
    temporary.mkdir()
    Image.open(PAIR[0]).resize((300, 375)).save(upload)

    def left() -> list:
        kept = []
        for file in temporary.rglob("*"):
            with contextlib.suppress(OSError):  # a folder, or swept just now
                kept += [file] if file.read_bytes() not in {b"", *ours} else []
        return kept

    client = Client(start_page("-c", code, TMPDIR=str(temporary)), verbose=False)
    client.predict(handle_file(upload), handle_file(PAIR[1]), api_name="/compare")
    client.predict([handle_file(upload)] * 2, api_name="/group")
    (temporary / "gradio" / "tmp0123").write_bytes(b"the first half of a photo")
    assert [file for file in left() if file.name == upload.name]
    for _ in range(100):
        if not left():
            break
        time.sleep(0.2)
    assert not left()


def test_no_answer_is_left_in_memory_after_the_clean_up_and_no_name_in_the_log(tmp_path):
    """Gradio keeps what a session was shown, photos included; this server sweeps, and counts what is left."""
    (tmp_path / "my secret.jpg").write_bytes(b"la la la")
    code = f"""
import time
import app
from gradio_client import Client, handle_file

def held():
    return sum("base64" in str(session.config_values) for session in app.demo.state_holder.session_data.values())

app.demo.delete_cache = (1, 3)
app.launch(prevent_thread_lock=True)
client = Client(app.demo.local_url, verbose=False)
pair = [handle_file(file) for file in ({str(tmp_path / "my secret.jpg")!r}, {str(PAIR[0])!r})]
app.demo.state_holder["a visitor"]._update_value_in_config(app.seen._id, "data:image/png;base64,")
print("before", held())
try:
    client.predict(*pair, api_name="/compare")
except Exception as error:
    print("refused", "not a picture" in str(error))
time.sleep(8)
print("after", held())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=EXAMPLES.parent)
    for line in ("before 1", "refused True", "after 0"):
        assert line in run.stdout, run.stderr
    assert "secret" not in run.stdout + run.stderr


def test_thirty_two_clients_at_once_lose_no_answer_and_no_memory(start_page):
    """Three hundred comparisons; what memory is taken after the first thirty is nearly all that is ever taken."""
    page, processes = start_page(), start_page.started
    pair = [handle_file(file) for file in PAIR]
    clients = [Client(page, verbose=False) for _ in range(32)]
    expected = siamese.load().compare(*PAIR).dissimilarity

    def ask(number: int) -> float:
        return clients[number % 32].predict(*pair, api_name="/compare")["dissimilarity"]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(30)))
        before = resident(processes[-1].pid)
        answers += pool.map(ask, range(30, 300))
    assert answers == pytest.approx([expected] * 300, rel=1e-3)
    assert resident(processes[-1].pid) < 1.1 * before


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])


def test_other_weights_by_the_environment(trained, tmp_path, start_page):
    page = start_page(SIAMESE_WEIGHTS=str(trained))
    answer = Client(page, verbose=False).predict(*map(handle_file, PAIR), api_name="/compare")
    assert alike(answer, siamese.load(trained).compare(*PAIR).to_dict())


def test_weights_that_are_not_there_stop_it_before_it_serves():
    environment = {**os.environ, "SIAMESE_WEIGHTS": "no-such-folder"}
    command = [sys.executable, "app.py"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=EXAMPLES.parent)
    assert run.returncode == 1
    assert run.stderr.startswith("error: there is no folder no-such-folder")


def test_nothing_is_served_but_the_page(page):
    for path in ("weights/att/config.json", "README.md"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{page}/gradio_api/file={EXAMPLES.parent / path}")
        assert refused.value.code == 403
