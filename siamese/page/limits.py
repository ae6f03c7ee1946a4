"""Limits on connections, on requests, and on the queue, so that no visitor takes the page from the others."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from gradio import http_server, queueing, route_utils
from gradio.context import LocalContext
from gradio.server_messages import LogMessage
from PIL import Image
from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from siamese.images import ReducedReader
from siamese.page.uploads import FILE_BYTES, FullError, Stored, UploadFolder

MAX_PHOTO_BYTES = 10 * 1024**2
MAX_UPLOAD_BYTES = 440_000_000  # 40 photos and their headers
MAX_MCP_BYTES = 4 * 1024**2  # the limit of the package mcp
MAX_BODY_BYTES = 300_000  # any other request; the names of 40 photos have up to 100 kB
MAX_FILES = 200  # of an upload; of more than 40, the page says how many to remove
MAX_VISITOR_REQUESTS = 250  # at the same time; a tab of a browser has up to 6
MAX_WAITING, MAX_VISITOR_WAITING = 256, 32  # events in the queue
MIN_ANNOUNCED = 2  # events before a new one; if there are fewer, its visitor is not told
MAX_CONNECTIONS = 1000
MAX_OPEN_FILES = 4000  # uploads that arrive, of all visitors; one of them may have a quarter
MAX_REST = 3.0  # seconds that each photo of a group waits for comparisons
COMPARISONS = "network"  # `concurrency_id` of the events that come before groups
TIMEOUT = 20  # seconds in which a request has to bring `MIN_BYTES`, if it is not complete
MIN_BYTES = 20_000

# Parts of a path. GRADIO_PROFILING shows events of other visitors, and GRADIO_VIBE_MODE lets them change code.
FORBIDDEN = "/proxy=", "/file=http:", "/file=https:", "/process_recording", "/profiling/", "/vibe-"
# Names of hosts that may serve the page, or show a page that sends it requests; * stands for any characters.
HOSTS = [*filter(None, ",".join(os.environ.get(name, "") for name in ("SPACE_HOST", "SIAMESE_HOSTS")).split(","))]
HOSTS_ADVICE = "To allow it, set the environment variable SIAMESE_HOSTS to this name."

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


class Connection(H11Protocol):
    """A connection that is closed if a request arrives, or its answer leaves, too slowly.

    If there are too many, the one that has waited longest for a request, or the rest of one, is closed.
    """

    config: Any  # with `max_connections` from `Server`

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.latest = self.loop.time()  # at which data came
        self._begin()
        connections = cast("set[Connection]", self.connections)
        if len(connections) > self.config.max_connections:
            oldest = min(filter(Connection._waits, connections), key=lambda other: other.latest, default=self)
            connections.discard(oldest)
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task:  # the next request
            self.timer.cancel()
            self._begin()
        self.latest, self.received = self.loop.time(), self.received + len(data)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.timer.cancel()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self.received, self.unsent = 0, 0  # bytes, those in the buffer
        self.timer = self.loop.call_later(TIMEOUT, self._check)

    def _check(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        slow = self.received < MIN_BYTES and not self.flow.read_paused and not self.timeout_keep_alive_task
        if (slow and self._waits()) or (unsent and unsent == self.unsent):
            self.transport.abort()
            return
        self._begin()
        self.unsent = unsent

    def _waits(self) -> bool:
        """Return whether a request, or a part of it, is missing."""
        return not self.cycle or self.cycle.response_complete or self.cycle.more_body


class Server(http_server.Server):
    """Gradio's server with limits on connections."""

    def __init__(self, config: Any, *args: Any, **settings: Any):
        config.http, config.ws = Connection, "none"
        config.max_connections = min(MAX_CONNECTIONS, open_files_limit() // 4)
        config.backlog = 1 + config.max_connections // 10  # that are accepted at once
        if "SPACE_ID" in os.environ:  # where all connections come from the proxy of the Hub
            config.forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "*")
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # no line for each invalid request
        super().__init__(config, *args, **settings)


http_server.Server = Server


def open_files_limit() -> int:
    """Return how many files and connections this process may have open; the limit is raised first, if possible."""
    wanted = 2 * MAX_OPEN_FILES
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, wanted) if hard > 0 else wanted), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Queue(queueing.Queue):
    """Gradio's queue with a share for each visitor.

    The first event of each visitor comes before the second one of any visitor, and so on.
    """

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self.asked: dict[str, float] = {}  # session -> time of its last event

    async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, Any, Any]:
        queues = [queue.queue for queue in self.event_queue_per_concurrency_id.values()]
        visitors = Counter(visitor_of(event.request.scope) for queue in queues for event in queue)
        if visitors[visitor_of(request.scope)] >= MAX_VISITOR_WAITING:
            return False, "You asked for too much at the same time. Try again when some of it is done.", "queue_full"
        pushed = await super().push(body, request, username)
        self.asked[body.session_hash] = time.monotonic()
        for queue in queues:
            before: Counter[str] = Counter()  # events of each visitor
            turns = {}
            for event in queue:
                turns[event] = before[visitor_of(event.request.scope)]
                before[visitor_of(event.request.scope)] += 1
            queue.sort(key=turns.__getitem__)
            place = next((place for place, event in enumerate(queue) if event._id == pushed[1]), 0)
            if place >= MIN_ANNOUNCED:
                text = f"The page is busy: {place} requests are before yours."
                self.send_message(queue[place], LogMessage(log=text, level="info", title="Info"))
        return pushed

    def forget(self, max_age: float) -> None:
        """Delete the answers that nobody fetched, which contain photos, after `max_age` seconds."""
        for session, asked in list(self.asked.items()):
            if time.monotonic() - asked > max_age:
                for known in (self.asked, self.pending_messages_per_session, self.pending_event_ids_session):
                    known.pop(session, None)

    def compute_analytics_summary(self, records: Any) -> dict:
        """Return nothing: nobody sees the analytics, which take longer with each event."""
        return {}


queueing.Queue = Queue


class LastInQueue:
    """A photo, in a function of the page, that is read when no comparison runs or waits, or after `MAX_REST`."""

    def __init__(self, photo: ReducedReader):
        self.photo, blocks = photo, LocalContext.blocks.get(None)
        self.comparisons = blocks._queue.event_queue_per_concurrency_id.get(COMPARISONS) if blocks else None

    def read_reduced(self, min_long_side: int | None) -> tuple[Image.Image, int]:
        """Read the photo, see `images.read_reduced`."""
        end, queue = time.monotonic() + MAX_REST, self.comparisons
        while queue and (queue.queue or queue.current_concurrency) and time.monotonic() < end:
            time.sleep(0.02)
        return self.photo.read_reduced(min_long_side)


class FilesOnly(route_utils.GradioMultiPartParser):
    """Parser of uploads that counts files, and refuses other form fields, which Gradio would keep in memory."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings | {"max_fields": 0, "max_files": MAX_FILES})

    def on_headers_finished(self) -> None:
        count_file.get()()
        super().on_headers_finished()

    async def parse(self) -> FormData:
        try:
            return await super().parse()
        except BaseException:  # also if the visitor left
            for file in self._files_to_close_on_error:
                file.close()
                Path(file.name).unlink(missing_ok=True)
            raise


route_utils.GradioMultiPartParser = FilesOnly
count_file: ContextVar[Callable[[], None]] = ContextVar("count_file", default=lambda: None)


class RefusedError(Exception):
    """A request is refused. The arguments are the status and a text."""


class RequestLimits:
    """ASGI middleware that limits requests and uploads, and forbids requests from other sites and to other addresses.

    Args:
        app: the page.
        folder: of the uploads.
    """

    def __init__(self, app: ASGIApp, folder: UploadFolder):
        self.app, self.folder = app, folder
        self.max_open_files = min(MAX_OPEN_FILES, open_files_limit() // 2)
        self.running: Counter[str] = Counter()  # requests of each visitor
        self.open: Counter[str] = Counter()  # files of each visitor that arrive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visitor, path = visitor_of(scope), scope["path"]
        is_upload, received, files, started = path.endswith("/upload"), 0, 0, False
        limit = MAX_UPLOAD_BYTES if is_upload else MAX_MCP_BYTES if "/mcp" in path else MAX_BODY_BYTES
        length, stored = int(Headers(scope=scope).get("content-length") or 0), Stored(visitor)

        def reserve(size: int) -> None:
            try:
                self.folder.reserve(stored, size)
            except FullError as error:
                raise RefusedError(503, f"{error}.") from error

        def add_file() -> None:
            nonlocal files
            files += 1
            self.open[visitor] += 1
            if max(4 * self.open[visitor], self.open.total()) > self.max_open_files:
                raise RefusedError(503, "Too many files are uploaded at the same time. Try again in a minute.")
            reserve(FILE_BYTES)

        async def limited_receive() -> Message:
            nonlocal received
            message, before = await receive(), max(length, received)
            received += len(message.get("body", b""))
            if received > limit:
                raise RefusedError(413, TOO_LARGE.format(limit))
            if is_upload and received > before:
                reserve(received - before)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self.running[visitor] += 1
        try:
            _check(scope, self.running[visitor])
            if length > limit:
                raise RefusedError(413, TOO_LARGE.format(limit))
            if is_upload:
                self.folder.hold()
                reserve(length + FILE_BYTES)
                count_file.set(add_file)
            await self.app(scope, limited_receive, send_with_headers)
        except RefusedError as error:
            if not started:
                status, text = error.args
                answer = PlainTextResponse(text, status, {"connection": "close"})
                await answer(scope, receive, send_with_headers)
        except RuntimeError as error:
            if not (started and isinstance(error.__cause__, HTTPException)):
                raise
            await send({"type": "http.response.body"})  # Gradio ends a stream so, as that of an unknown event
        finally:
            self.running[visitor] -= 1
            self.open[visitor] -= files
            self.running, self.open = +self.running, +self.open  # without visitors that have none
            if stored.bytes:
                self.folder.settle(stored, max(length - received, 0))


TOO_LARGE = "The request is larger than {:,} bytes."


def _check(scope: Scope, running: int) -> None:
    """Raise a RefusedError if a request must not reach Gradio.

    Args:
        scope: of the request.
        running: how many of this visitor run.
    """
    headers = Headers(scope=scope)
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _is_own(host):
        raise RefusedError(403, f"This page is not served under the name {_name(f'//{host}')}. {HOSTS_ADVICE}")
    if origin and scope["method"] == "POST" and _name(origin) != _name(f"//{host}") and not _is_listed(origin):
        raise RefusedError(403, f"This page takes no requests from {_name(origin)}. {HOSTS_ADVICE}")
    if any(part in scope["path"] for part in FORBIDDEN):
        raise RefusedError(403, "This page does not fetch other addresses, record videos, or show how it runs.")
    if running > MAX_VISITOR_REQUESTS:
        raise RefusedError(429, "You sent too many requests at the same time.")


def visitor_of(scope: Scope) -> str:
    """Return the address of a visitor; uvicorn takes it from the header X-Forwarded-For of proxies that it trusts."""
    return (scope.get("client") or ("",))[0]


def _is_own(host: str) -> bool:
    """Return whether the page may be served under the header Host.

    Another site can let a name of its own lead to this machine, but not an address or a name without a dot.
    """
    name = _name(f"//{host}")
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return "." not in name or _is_listed(f"//{host}")


def _is_listed(url: str) -> bool:
    return any(fnmatch(_name(url), pattern.strip()) for pattern in HOSTS)


def _name(url: str) -> str:
    """Return the name of the host, in lower case and without the port."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return "."
