"""The head of the page, values that are no photos, archives, and the clean-up of what visitors sent."""

import contextlib
import ctypes
import os
import re
import tempfile
import threading
import time
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import getproxies_environment

import gradio as gr
from gradio import routes
from gradio.exceptions import InvalidPathError
from gradio.processing_utils import client_utils
from jinja2 import ChoiceLoader, DictLoader

from siamese.files import lacks_memory
from siamese.page import uploads
from siamese.page.limits import MAX_UPLOAD_BYTES, Queue
from siamese.page.uploads import PERIOD

ICON = (
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Cg fill='none'%3E%3Ccircle cx='3' cy='4' r='2.3' "
    "stroke='%230f766e'/%3E%3Ccircle cx='5' cy='4' r='2.3' stroke='%23a21caf'/%3E%3C/g%3E%3C/svg%3E"
)
# Gradio's own tags for links to a page name Gradio.
TEMPLATE, TAGS = "frontend/index.html", re.compile(r'<meta\s+(?:name|property)="(?:og|twitter):[^>]*>')


def set_page_head(title: str, description: str, picture: str) -> None:
    """Put the icon and what links to the page show into Gradio's template, in place of Gradio's own.

    The picture is a file of the Space, or empty.
    """
    environment = routes.templates.env
    assert environment.loader, "Gradio has templates"
    html, *_ = environment.loader.get_source(environment, TEMPLATE)
    tags = {"description": description, "og:title": title, "og:description": description, "og:type": "website"}
    if picture and (space := os.environ.get("SPACE_ID")):
        tags["og:image"] = f"https://huggingface.co/spaces/{space}/resolve/main/{picture}"
    drawn = "".join(f'<meta property="{name}" name="{name}" content="{escape(text)}">' for name, text in tags.items())
    drawn += f'<link rel="icon" href="data:image/svg+xml,{ICON}">'
    html = TAGS.sub("", html).replace("<head>", f"<head>{drawn}", 1)
    environment.loader = ChoiceLoader([DictLoader({TEMPLATE: html}), environment.loader])


class Page(gr.Blocks):
    """Blocks that answer with a sentence if a value has the wrong type, or memory is missing, and log nothing of it."""

    _queue: Queue  # pyrefly: ignore[bad-override-mutable-attribute]

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **settings: Any) -> list[Any]:
        try:
            inputs = client_utils.traverse(inputs, _own_upload, client_utils.is_file_obj_with_meta)
            return await super().preprocess_data(block_fn, inputs, *args, **settings)
        except gr.Error as error:
            error.print_exception = False
            raise
        except InvalidPathError as error:
            raise gr.Error("this page does not have the photo; upload it again", print_exception=False) from error
        except Exception as error:  # of many types, from pydantic, Gradio and Python
            message = "a value of the request has the wrong type; the API page describes each of them"
            raise gr.Error(message, print_exception=False) from error

    async def call_function(self, *args: Any, **settings: Any) -> Any:
        try:
            return await super().call_function(*args, **settings)
        except Exception as error:
            if not lacks_memory(error):
                raise
            raise gr.Error("the page has too little memory; try again later", print_exception=False) from error


def _own_upload(file: dict) -> dict:
    """Replace the URL of an upload to this page, which MCP clients send, by its path. Refuse other URLs."""
    if not client_utils.is_http_url_like(file["path"]):
        return file
    path = unquote(file["path"].partition("/gradio_api/file=")[2])
    if not path or client_utils.is_http_url_like(path):
        raise gr.Error("the page does not fetch photos from a URL; upload the photo", print_exception=False)
    return file | {"path": path}


def write_archive(entries: Sequence[tuple[str, str]], visitor: str) -> Path:
    """Write uploads, each given by a name and its path, into a ZIP archive, which is deleted as they are.

    Raises:
        ValueError: if it would be too large, or the visitor stores too much.
    """
    size = sum(Path(path).stat().st_size for _, path in entries)
    if size > MAX_UPLOAD_BYTES:
        raise ValueError(f"The archive would be larger than {MAX_UPLOAD_BYTES // 10**6} MB. Remove some photos")
    stored = uploads.Stored(visitor)
    uploads.folder.reserve(stored, size + uploads.FILE_BYTES)
    try:
        file = Path(tempfile.mkdtemp(dir=uploads.folder.path)) / "photos-by-person.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for name, path in entries:
                archive.write(path, name)
        return file
    finally:
        uploads.folder.settle(stored, 0)


def start_cleanup(demo: Page, interval: float = 60, max_age: float = PERIOD) -> None:
    """Every `interval` seconds, delete the files and sessions of visitors that were not used for `max_age` seconds.

    Gradio's `delete_cache` is not enough. It only knows the files of requests that were completed, so the first half of
    an interrupted upload would stay. Sessions would keep the answers, which contain photos.
    """
    threading.Thread(target=_clean_up, args=(demo, interval, max_age), daemon=True).start()


def bypass_proxy() -> None:
    """Send no request of the page to itself through a proxy. Gradio asks whether its server runs."""
    names = getproxies_environment().get("no"), "localhost,127.0.0.1", os.environ.get("GRADIO_SERVER_NAME")
    os.environ["no_proxy"] = ",".join(filter(None, names))


def limit_memory_growth() -> None:
    """Let all threads share one memory pool. With one per thread, memory use grows with Gradio's many threads."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has mallopt
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX


def _clean_up(demo: Page, interval: float, max_age: float) -> None:
    while True:
        time.sleep(interval)
        uploads.folder.clean_up(max_age)
        demo._queue.forget(max_age)
        since, sessions = time.time() - max_age, demo.state_holder
        for session, last_used in list(sessions.time_last_used.items()):
            if last_used.timestamp() < since:
                with sessions.lock:
                    sessions.session_data.pop(session, None)
                    sessions.time_last_used.pop(session, None)
        uploads.return_memory()
