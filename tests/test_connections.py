"""Limits on connections to the page, and on its queue."""

import asyncio
import contextlib
import re
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import uvicorn

from siamese.page import limits


async def answer(scope, receive, send):
    """Read the body, and answer with its size."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(str(size)))]})
    await send({"type": "http.response.body", "body": str(size).encode()})


@pytest.fixture
def connect(monkeypatch):
    """Open a connection to a server with short limits."""
    monkeypatch.setattr(limits, "TIMEOUT", 0.5)
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 8)
    server = limits.Server(uvicorn.Config(answer, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    opened = []

    def connect(sent: bytes = b"") -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        opened[-1].sendall(sent)
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()
    server.should_exit = True
    thread.join()


def seconds_until_closed(connection: socket.socket) -> float:
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        assert connection.recv(9) == b""
    return time.monotonic() - began


BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:", BODY, BODY + bytes(999)])
def test_half_a_request_is_not_waited_for(connect, sent):
    assert 0.2 < seconds_until_closed(connect(sent)) < 5


def test_a_slow_request_with_enough_bytes_is_answered(connect, monkeypatch):
    monkeypatch.setattr(limits, "TIMEOUT", 2)
    connection = connect(BODY)
    for _ in range(5):  # longer than the timeout, and enough in each
        time.sleep(0.6)
        connection.sendall(bytes(20_000))
    assert connection.recv(999).startswith(b"HTTP/1.1 200")


def test_the_oldest_half_request_makes_room_for_others(connect, monkeypatch):
    monkeypatch.setattr(limits, "TIMEOUT", 30)
    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    idle = [connect(whole) for _ in range(8)]
    halves = [connect(b"GET / HTTP/1.1\r\n") for _ in range(30)]
    time.sleep(0.3)
    for _ in range(6):
        connection = connect(whole)
        assert connection.recv(999).startswith(b"HTTP/1.1 200")
        connection.close()
    assert seconds_until_closed(halves[0]) < 1
    assert idle[0].recv(999).startswith(b"HTTP/1.1 200")


def test_photos_of_a_group_wait_for_comparisons(monkeypatch):
    monkeypatch.setattr(limits, "MAX_REST", 0.3)
    photo = limits.LastInQueue(SimpleNamespace(read_reduced=lambda size: size))
    photo.comparisons = SimpleNamespace(queue=[], current_concurrency=0)
    for waiting, running in ((0, 0), (1, 0), (0, 1)):
        photo.comparisons.queue, photo.comparisons.current_concurrency = [None] * waiting, running
        began = time.monotonic()
        assert photo.read_reduced(7) == 7
        assert (time.monotonic() - began >= 0.3) == bool(waiting or running)


def test_answers_that_nobody_fetched_are_deleted():
    queue = limits.Queue(True, 4, 1, 100, None)
    for session, asked in (("old", 0), ("new", time.monotonic())):
        queue.asked[session] = asked
        queue.pending_messages_per_session[session] = asyncio.Queue()
    queue.forget(100)
    assert list(queue.pending_messages_per_session) == list(queue.asked) == ["new"]


class Event(SimpleNamespace):
    __hash__ = object.__hash__


def test_visitors_take_turns_in_the_queue(monkeypatch):
    queue = limits.Queue(True, 4, 1, 100, None)
    group = queue.event_queue_per_concurrency_id["group"] = limits.queueing.EventQueue("group", 1)

    async def append(self, body, request, username):
        group.queue.append(Event(_id=body.session_hash, request=request))
        return True, body.session_hash, "success"

    monkeypatch.setattr(limits.queueing.Queue.__mro__[1], "push", append)
    monkeypatch.setattr(limits, "MAX_VISITOR_WAITING", 5)
    told = {}
    monkeypatch.setattr(queue, "send_message", lambda event, message: told.update({event._id: message.log}))

    def push(name: str, address: str) -> bool:
        return asyncio.run(
            queue.push(SimpleNamespace(session_hash=name), SimpleNamespace(scope={"client": (address, 1)}), None)
        )[0]

    assert all([push(f"flood {number}", "192.0.2.1") for number in range(5)])
    assert not push("flood 5", "192.0.2.1")
    assert push("first", "192.0.2.2")
    assert push("second", "192.0.2.2")
    assert push("third", "192.0.2.3")
    names = [event._id for event in group.queue]
    assert names == ["flood 0", "first", "third", "flood 1", "second", "flood 2", "flood 3", "flood 4"]
    assert {name: re.findall(r"\d+", text) for name, text in told.items() if name[0] != "f"} == {
        "second": ["3"],
        "third": ["2"],
    }
    assert "first" not in told
