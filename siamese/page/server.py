"""Limits on what visitors may send, and the clean-up of what they sent."""

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

import gradio as gr
from gradio import route_utils, routes
from gradio.processing_utils import client_utils
from gradio.utils import get_upload_folder
from jinja2 import ChoiceLoader, DictLoader
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_PHOTO_BYTES = 10 * 1024**2
MAX_UPLOAD_BYTES = 440_000_000  # 40 photos and their headers
MAX_MCP_BYTES = 30_000_000  # two photos in base64
MAX_BODY_BYTES = 300_000  # any other request; the names of 40 photos have up to 100 kB
MAX_VISITOR_BYTES = 1_000_000_000  # of uploads in `PERIOD`
MAX_STORED_BYTES = 5_000_000_000  # uploads of all visitors
FULL = "This page has too many photos at the moment. Try again in half an hour"
FORBIDDEN = "/proxy=", "/file=http:", "/file=https:", "/process_recording"  # parts of a path
PERIOD = 1800  # seconds; what visitors sent is deleted after that, see `start_cleanup`

# Other pages may show this one, as the Hugging Face Hub does. Gradio needs inline scripts and styles.
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'"
    ),
}


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
    """Blocks that answer a request with values of the wrong types with a sentence, and log nothing of it."""

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **settings: Any) -> list[Any]:
        try:
            inputs = client_utils.traverse(inputs, _own_upload, client_utils.is_file_obj_with_meta)
            return await super().preprocess_data(block_fn, inputs, *args, **settings)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:  # of many types, from pydantic, Gradio and Python
            message = "a value of the request has the wrong type; the API page describes each of them"
            raise gr.Error(message, print_exception=False) from error


def _own_upload(file: dict) -> dict:
    """Replace the URL of an upload to this page, which MCP clients send, by its path. Refuse other URLs."""
    if not client_utils.is_http_url_like(file["path"]):
        return file
    path = unquote(file["path"].partition("/gradio_api/file=")[2])
    if not path or client_utils.is_http_url_like(path):
        raise gr.Error("the page does not fetch photos from a URL; upload the photo", print_exception=False)
    return file | {"path": path}


class FilesOnly(route_utils.GradioMultiPartParser):
    """Parser of uploads that refuses other form fields. Gradio would keep them in memory, without a limit."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings | {"max_fields": 0})


route_utils.GradioMultiPartParser = FilesOnly


class TooLargeError(Exception):
    """The body of a request is larger than its limit."""


class RequestLimits:
    """ASGI middleware that limits the bodies of requests and the uploads, and forbids to fetch other addresses."""

    def __init__(self, app: ASGIApp, folder: Path):
        self.app, self.folder = app, folder
        self.uploads: list[tuple[float, str, int]] = []  # time, visitor and bytes of each

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received, started = 0, False
        is_upload, is_mcp = scope["path"].endswith("/upload"), "/mcp" in scope["path"]
        limit = MAX_UPLOAD_BYTES if is_upload else MAX_MCP_BYTES if is_mcp else MAX_BODY_BYTES

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise TooLargeError
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            refusal = self._refuse(scope, limit)
            await (refusal or self.app)(scope, limited_receive, send_with_headers)
        except TooLargeError:
            if not started:
                await _too_large(limit)(scope, receive, send_with_headers)
        if is_upload:
            self.uploads.append((time.monotonic(), _visitor(scope), received))

    def _refuse(self, scope: Scope, limit: int) -> PlainTextResponse | None:
        """Return an error if the request must not reach Gradio."""
        path = scope["path"]
        length = int(Headers(scope=scope).get("content-length") or 0)
        if any(part in path for part in FORBIDDEN):
            return PlainTextResponse("This page does not fetch other addresses or record videos.", 403)
        if length > limit:
            return _too_large(limit)
        if not path.endswith("/upload"):
            return None
        if _is_full(self.folder, length):
            return PlainTextResponse(f"{FULL}.", 503)
        if self._uploaded(_visitor(scope)) + length > MAX_VISITOR_BYTES:
            return PlainTextResponse("You uploaded too many photos. Try again in half an hour.", 429)
        return None

    def _uploaded(self, visitor: str) -> int:
        """Return the bytes that a visitor uploaded lately, and forget older uploads of all visitors."""
        since = time.monotonic() - PERIOD
        self.uploads = [upload for upload in self.uploads if upload[0] > since]
        return sum(size for _, other, size in self.uploads if other == visitor)


def write_archive(entries: Sequence[tuple[str, str]]) -> Path:
    """Write uploads, each given by a name and its path, into a ZIP archive, which is deleted as they are."""
    size, folder = sum(Path(path).stat().st_size for _, path in entries), Path(get_upload_folder())
    if size > MAX_UPLOAD_BYTES:
        raise ValueError(f"The archive would be larger than {MAX_UPLOAD_BYTES // 10**6} MB. Remove some photos")
    if _is_full(folder, size):
        raise ValueError(FULL)
    file = Path(tempfile.mkdtemp(dir=folder)) / "photos-by-person.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name, path in entries:
            archive.write(path, name)
    return file


def _is_full(folder: Path, added: int) -> bool:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) + added > MAX_STORED_BYTES


def _too_large(limit: int) -> PlainTextResponse:
    return PlainTextResponse(f"The request is larger than {limit:,} bytes.", 413, {"connection": "close"})


def _visitor(scope: Scope) -> str:
    """Return the address of a visitor. It may be false, so the limit on all uploads does not depend on it."""
    forwarded = Headers(scope=scope).get("x-forwarded-for", "")
    return forwarded.partition(",")[0].strip() or (scope.get("client") or ("",))[0]


def start_cleanup(demo: gr.Blocks, interval: float = 600, max_age: float = PERIOD) -> None:
    """Every `interval` seconds, delete the files and sessions of visitors that were not used for `max_age` seconds.

    Gradio's `delete_cache` is not enough. It only knows the files of requests that were completed, so the first half of
    an interrupted upload would stay. Sessions would keep the answers, which contain photos.
    """
    threading.Thread(target=_clean_up, args=(demo, interval, max_age), daemon=True).start()


def limit_memory_growth() -> None:
    """Let all threads share one memory pool. With one per thread, memory use grows with Gradio's many threads."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has mallopt
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX


def _clean_up(demo: gr.Blocks, interval: float, max_age: float) -> None:
    while True:
        time.sleep(interval)
        since, sessions = time.time() - max_age, demo.state_holder
        for path in sorted(Path(demo.GRADIO_CACHE).rglob("*"), reverse=True):  # files before their folder
            with contextlib.suppress(OSError):  # another thread deleted it, or the folder is not empty
                status = path.stat()
                if max(status.st_mtime, status.st_ctime) < since:
                    path.rmdir() if path.is_dir() else path.unlink()
        for session, last_used in list(sessions.time_last_used.items()):
            if last_used.timestamp() < since:
                with sessions.lock:
                    sessions.session_data.pop(session, None)
                    sessions.time_last_used.pop(session, None)
