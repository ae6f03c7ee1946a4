"""The page's endpoint, through Gradio's own client, on a server of its own."""

import os
import subprocess
import sys
import urllib.error
import urllib.request

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
