"""Limits on requests to the page."""

import zipfile

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from siamese.page import server


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def client(tmp_path):
    routes = [Route("/{path:path}", count, methods=["GET", "POST"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(server.RequestLimits, tmp_path)]))


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/mcp/"])
def test_bodies_are_limited(client, monkeypatch, path):
    for name in ("MAX_BODY_BYTES", "MAX_UPLOAD_BYTES", "MAX_MCP_BYTES"):
        monkeypatch.setattr(server, name, 1000)
    assert client.post(path, content=bytes(1000)).text == "1000"
    assert client.post(path, content=bytes(1001)).status_code == 413
    read = []

    def parts():  # without a Content-Length
        for _ in range(100):
            read.append(100)
            yield bytes(100)

    assert client.post(path, content=parts()).status_code == 413


def test_an_ordinary_request_may_not_be_as_large_as_an_upload(client):
    body = bytes(server.MAX_BODY_BYTES + 1)
    assert client.post("/gradio_api/queue/join", content=body).status_code == 413
    assert client.post("/gradio_api/upload", content=body).text == str(len(body))


@pytest.mark.parametrize(
    "path",
    ["file=https://example.com/a.png", "file=http://localhost/", "proxy=https://a.hf.space/", "process_recording"],
)
def test_other_addresses_are_not_fetched(client, path):
    assert client.get(f"/gradio_api/{path}").status_code == 403


def test_uploads_of_a_visitor_are_limited(client, monkeypatch):
    monkeypatch.setattr(server, "MAX_VISITOR_BYTES", 1000)
    upload = "/gradio_api/upload"
    for _ in range(2):
        assert client.post(upload, content=bytes(500)).status_code == 200
    assert client.post(upload, content=bytes(1)).status_code == 429
    other = {"x-forwarded-for": "203.0.113.7, 10.0.0.1"}
    assert client.post(upload, content=bytes(500), headers=other).status_code == 200
    assert client.get("/").status_code == 200
    monkeypatch.setattr(server, "PERIOD", 0)
    assert client.post(upload, content=bytes(500)).status_code == 200


def test_stored_uploads_are_limited(client, monkeypatch, tmp_path):
    monkeypatch.setattr(server, "MAX_STORED_BYTES", 1000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.jpg").write_bytes(bytes(600))
    assert client.post("/gradio_api/upload", content=bytes(400)).status_code == 200
    assert client.post("/gradio_api/upload", content=bytes(401)).status_code == 503


def test_an_archive_is_stored_with_the_uploads_and_limited(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(bytes(600))
    entries = [(f"person {number}/photo.jpg", str(photo)) for number in (1, 2)]
    file = server.write_archive(entries)
    assert file.is_relative_to(tmp_path)
    with zipfile.ZipFile(file) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {name: bytes(600) for name, _ in entries}
    for limit, says in (("MAX_UPLOAD_BYTES", "The archive"), ("MAX_STORED_BYTES", "too many photos")):
        with monkeypatch.context() as patch:
            patch.setattr(server, limit, 1000)
            with pytest.raises(ValueError, match=says):
                server.write_archive(entries)
    photo.unlink()
    with pytest.raises(FileNotFoundError):
        server.write_archive(entries)


def test_browsers_are_told_what_the_page_may_do(client):
    headers = client.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]
