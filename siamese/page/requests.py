"""Limits on requests to the page: their types, their size, and what they make the server do."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gradio as gr
from gradio import route_utils
from gradio.processing_utils import client_utils
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_PHOTO_BYTES = 10 * 1024**2
MAX_UPLOAD_BYTES = 440_000_000  # 40 photos and their headers
MAX_MCP_BYTES = 30_000_000  # two photos in base64
MAX_BODY_BYTES = 300_000  # any other request; the names of 40 photos have up to 100 kB
MAX_VISITOR_BYTES = 1_000_000_000  # of uploads in `PERIOD`
MAX_STORED_BYTES = 5_000_000_000  # uploads of all visitors
FORBIDDEN = "/proxy=", "/file=http:", "/file=https:", "/process_recording"  # parts of a path
PERIOD = 1800  # seconds; uploads are deleted after that, see `siamese.page.cleanup`

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
    """Replace the URL of an upload to this page, which MCP clients send, by its path.

    Raises:
        gr.Error: for another URL, which the server would have to fetch.
    """
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
    """ASGI middleware that limits the bodies of requests and the uploads, and forbids to fetch other addresses.

    Args:
        app: the application.
        folder: of all uploads.
    """

    def __init__(self, app: ASGIApp, folder: Path):
        self.app, self.folder = app, folder
        self.uploads: dict[str, list[tuple[float, int]]] = defaultdict(list)  # visitor → (time, bytes) of each upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received, started = 0, False
        is_upload = scope["path"].endswith("/upload")

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

        limit = _limit(scope["path"])
        try:
            refusal = self._refuse(scope, limit)
            await (refusal or self.app)(scope, limited_receive, send_with_headers)
        except TooLargeError:
            if not started:
                await _too_large(limit)(scope, receive, send_with_headers)
        if is_upload:
            self.uploads[_visitor(scope)].append((time.monotonic(), received))

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
        if sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) + length > MAX_STORED_BYTES:
            return PlainTextResponse("This page has too many photos at the moment. Try again in half an hour.", 503)
        if self._uploaded(_visitor(scope)) + length > MAX_VISITOR_BYTES:
            return PlainTextResponse("You uploaded too many photos. Try again in half an hour.", 429)
        return None

    def _uploaded(self, visitor: str) -> int:
        """Return the bytes that a visitor uploaded lately, and forget older uploads of all visitors."""
        since = time.monotonic() - PERIOD
        for other, uploads in list(self.uploads.items()):
            self.uploads[other] = [upload for upload in uploads if upload[0] > since]
            if not self.uploads[other]:
                del self.uploads[other]
        return sum(size for _, size in self.uploads.get(visitor, []))


def _limit(path: str) -> int:
    """Return the limit on the body of a request in bytes."""
    return MAX_UPLOAD_BYTES if path.endswith("/upload") else MAX_MCP_BYTES if "/mcp" in path else MAX_BODY_BYTES


def _too_large(limit: int) -> PlainTextResponse:
    return PlainTextResponse(f"The request is larger than {limit:,} bytes.", 413, {"connection": "close"})


def _visitor(scope: Scope) -> str:
    """Return the address of a visitor. It may be false, so the limit on all uploads does not depend on it."""
    forwarded = Headers(scope=scope).get("x-forwarded-for", "")
    return forwarded.partition(",")[0].strip() or (scope.get("client") or ("",))[0]
