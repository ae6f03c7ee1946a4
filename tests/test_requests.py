"""Limits on requests to the page."""

import os
import shutil
import stat
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import anyio
import gradio as gr
import pytest
from gradio.route_utils import MultiPartException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from siamese.page import limits, server, uploads

UPLOAD = "/gradio_api/upload"


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "FILE_BYTES", 0)
    monkeypatch.setattr(limits, "FILE_BYTES", 0)
    folder = uploads.UploadFolder(tmp_path / "uploads")
    folder.hold()
    monkeypatch.setattr(uploads, "folder", folder, raising=False)
    yield folder
    folder.delete()


def client_of(folder, app=count, address="192.0.2.1"):
    routes = [Route("/{path:path}", app, methods=["GET", "POST"])]
    page = Starlette(routes=routes, middleware=[Middleware(limits.RequestLimits, folder)])
    return TestClient(page, client=(address, 5))


@pytest.fixture
def client(folder):
    return client_of(folder)


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/mcp/"])
def test_bodies_are_limited(client, monkeypatch, path):
    for name in ("MAX_BODY_BYTES", "MAX_UPLOAD_BYTES", "MAX_MCP_BYTES"):
        monkeypatch.setattr(limits, name, 1000)
    assert client.post(path, content=bytes(1000)).text == "1000"
    assert client.post(path, content=bytes(1001)).status_code == 413
    read = []

    def parts():  # without a Content-Length
        for _ in range(100):
            read.append(100)
            yield bytes(100)

    assert client.post(path, content=parts()).status_code == 413


def test_an_ordinary_request_may_not_be_as_large_as_an_upload(client):
    body = bytes(limits.MAX_BODY_BYTES + 1)
    assert client.post("/gradio_api/queue/join", content=body).status_code == 413
    assert client.post("/gradio_api/upload", content=body).text == str(len(body))


@pytest.mark.parametrize(
    "path",
    [
        "file=https://example.com/a.png",
        "file=http://localhost/",
        "proxy=https://a.hf.space/",
        "process_recording",
        "vibe-code/",
        "profiling/traces",
    ],
)
def test_other_addresses_are_not_fetched(client, path):
    assert client.get(f"/gradio_api/{path}").status_code == 403


def test_uploads_of_a_visitor_are_limited_until_they_are_deleted(folder, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_VISITOR_BYTES", 1000)
    visitor, other = client_of(folder), client_of(folder, address="192.0.2.2")
    for _ in range(2):
        assert visitor.post(UPLOAD, content=bytes(500)).status_code == 200
    assert visitor.post(UPLOAD, content=bytes(1)).status_code == 503
    assert other.post(UPLOAD, content=bytes(500)).status_code == 200
    assert visitor.get("/").status_code == 200
    folder.clean_up(100)
    assert visitor.post(UPLOAD, content=bytes(1)).status_code == 503
    folder.clean_up(0)
    assert visitor.post(UPLOAD, content=bytes(500)).status_code == 200


def test_all_uploads_are_limited(folder, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_STORED_BYTES", 1000)
    assert client_of(folder).post(UPLOAD, content=bytes(600)).status_code == 200
    other = client_of(folder, address="192.0.2.2")
    assert other.post(UPLOAD, content=bytes(401)).status_code == 503
    assert other.post(UPLOAD, content=(bytes(100) for _ in range(5))).status_code == 503  # without a Content-Length
    folder.clean_up(0)
    assert other.post(UPLOAD, content=bytes(1000)).status_code == 200


def test_uploads_at_the_same_time_are_counted_before_they_are_read(folder, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_VISITOR_BYTES", 1000)
    waits = threading.Event()

    async def slow(request: Request) -> PlainTextResponse:
        await anyio.to_thread.run_sync(waits.wait)
        return await count(request)

    client = client_of(folder, slow)
    with client, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.post, UPLOAD, content=bytes(300)) for _ in range(8)]
        while sum(answer.done() for answer in answers) < 5:
            time.sleep(0.01)
        waits.set()
    assert Counter(answer.result().status_code for answer in answers) == {200: 3, 503: 5}


def test_files_count_in_addition_to_their_bytes(folder, monkeypatch):
    monkeypatch.setattr(limits, "FILE_BYTES", 100_000)
    monkeypatch.setattr(uploads, "MAX_VISITOR_BYTES", 1_000_000)
    stored = []

    async def parse(request: Request) -> PlainTextResponse:
        parser = limits.FilesOnly(request.headers, request.stream(), upload_dir=folder.path, max_file_size=10**6)
        stored.append(len((await parser.parse()).getlist("files")))
        return PlainTextResponse("")

    client = client_of(folder, parse)
    files = [("files", (f"{number}.jpg", b"a")) for number in range(8)]
    assert client.post(UPLOAD, files=files).status_code == 200
    assert len(list(folder.path.iterdir())) == 8
    assert client.post(UPLOAD, files=files).status_code == 503
    assert len(list(folder.path.iterdir())) == 8  # nothing is left of the second upload
    monkeypatch.setattr(uploads, "MAX_VISITOR_BYTES", 10**12)
    with pytest.raises(MultiPartException, match="files"):
        client.post(UPLOAD, files=files * 26)
    monkeypatch.setattr(limits, "MAX_OPEN_FILES", 28)
    client = client_of(folder, parse)
    assert client.post(UPLOAD, files=files).status_code == 503
    assert client.post(UPLOAD, files=files[:7]).status_code == 200
    assert stored == [8, 7]


def test_requests_of_a_visitor_at_the_same_time_are_limited(folder, monkeypatch):
    monkeypatch.setattr(limits, "MAX_VISITOR_REQUESTS", 2)
    waits = threading.Event()

    async def slow(request: Request) -> PlainTextResponse:
        await anyio.to_thread.run_sync(waits.wait)
        return PlainTextResponse("")

    client = client_of(folder, slow)
    with client, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.get, "/") for _ in range(3)]
        while not any(answer.done() for answer in answers):
            time.sleep(0.01)
        waits.set()
    assert Counter(answer.result().status_code for answer in answers) == {200: 2, 429: 1}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "user-name.hf.space.evil.example", "a..", "[::"])
def test_other_names_of_the_page_are_refused(client, host):
    assert client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "192.168.1.5", "server:80"])
def test_addresses_and_names_without_a_dot_are_served(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


def test_names_are_set_in_the_environment(client, monkeypatch):
    monkeypatch.setattr(limits, "HOSTS", ["user-name.hf.space", "*.example.org"])
    for host in ("user-name.hf.space", "faces.example.org:443"):
        assert client.get("/", headers={"host": host, "origin": "https://other.example"}).status_code == 200
        assert client.post("/", headers={"host": host, "origin": f"https://{host}"}).status_code == 200
    assert client.post("/", headers={"host": "localhost", "origin": "https://a.example.org"}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[", "https://localhost.evil.example"])
def test_other_sites_cannot_upload(client, origin):
    assert client.post(UPLOAD, content=bytes(9), headers={"host": "localhost", "origin": origin}).status_code == 403
    own = {"host": "localhost:7860", "origin": "http://localhost:7860"}
    assert client.post(UPLOAD, content=bytes(9), headers=own).status_code == 200


def test_an_archive_is_stored_with_the_uploads_and_limited(folder, monkeypatch, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(bytes(600))
    entries = [(f"person {number}/photo.jpg", str(photo)) for number in (1, 2)]
    file = server.write_archive(entries, "visitor")
    assert file.is_relative_to(folder.path)
    with zipfile.ZipFile(file) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {name: bytes(600) for name, _ in entries}
    for module, limit, says in (
        (server, "MAX_UPLOAD_BYTES", "The archive"),
        (uploads, "MAX_STORED_BYTES", "too many photos"),
        (uploads, "MAX_VISITOR_BYTES", "You uploaded"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, 1000)
            with pytest.raises(ValueError, match=says):
                server.write_archive(entries, "visitor")
    photo.unlink()
    with pytest.raises(FileNotFoundError):
        server.write_archive(entries, "visitor")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_a_folder_that_was_deleted_is_created_again_with_its_mode_and_lock(folder, client):
    lock = folder.path.with_name(f"{folder.path.name}.lock")
    shutil.rmtree(folder.path)
    lock.unlink()
    client.post(UPLOAD, content=bytes(9))
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.path, lock)] == [0o700, 0o600]
    uploads.UploadFolder(folder.path).delete()  # as the next page does, if no other one holds the lock
    assert folder.path.is_dir()


def test_the_clean_up_deletes_files_of_any_name_and_time(folder):
    for name in ("lock", f"{folder.path.name}.lock", "a/b/c.jpg", "future.jpg"):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_bytes(b"a face")
    os.utime(folder.path / "future.jpg", (time.time() + 9000,) * 2)  # before the clock was set back
    folder.clean_up(100)
    assert {path.name for path in folder.path.iterdir()} == {"lock", f"{folder.path.name}.lock", "a"}
    folder.clean_up(0)
    assert not list(folder.path.iterdir())


def test_the_clean_up_goes_on_if_uploads_disappear_meanwhile(folder, monkeypatch):
    for name in ("a", "b", "c"):
        (folder.path / name / "d").mkdir(parents=True)
    scan, scanned = os.scandir, []

    def disappear(path):
        scanned.append(path)
        if len(scanned) == 2:  # the folder that is walked next
            shutil.rmtree(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", disappear)
    folder.clean_up(0)
    assert len(scanned) > 2
    assert not list(folder.path.iterdir())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory"), RuntimeError("a fault")])
def test_too_little_memory_is_said_and_not_logged(monkeypatch, error):
    async def fail(*_):
        raise error

    monkeypatch.setattr(gr.Blocks, "call_function", fail)
    is_fault = "fault" in str(error)
    with pytest.raises(RuntimeError if is_fault else gr.Error, match="fault" if is_fault else "memory") as raised:
        anyio.run(server.Page.call_function, server.Page())
    assert is_fault or not raised.value.print_exception


def test_a_stream_that_ends_with_an_http_error_is_not_logged(folder):
    """The client raises what uvicorn would log."""

    async def stream(request: Request) -> StreamingResponse:
        async def parts():
            yield b"unknown event"
            raise HTTPException(404)

        return StreamingResponse(parts())

    assert client_of(folder, stream).get("/").text == "unknown event"


def test_browsers_are_told_what_the_page_may_do(client):
    headers = client.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]
