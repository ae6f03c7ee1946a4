"""The page as tools of a language model."""

import base64
import json
from types import SimpleNamespace

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from siamese.page import mcp

ADDRESS = "http://localhost/gradio_api/file=/a.jpg"


def call(arguments: dict, uploaded: Response, joined: Response, answer: str) -> tuple[str, list, set, bytes]:
    """Call a tool of a page with these responses. Returns the answer, and the data, visitors and uploads."""
    asked, visitors, uploads = [], set(), b""

    async def upload(request: Request) -> Response:
        nonlocal uploads
        visitors.add(request.client.host)
        uploads += await request.body()
        return uploaded

    async def join(request: Request) -> Response:
        visitors.add(request.client.host)
        asked.extend((await request.json())["data"])
        return joined

    async def fetch(request: Request) -> Response:
        visitors.add(request.client.host)
        return PlainTextResponse(answer)

    server = object.__new__(mcp.Server)  # without the package mcp
    routes = [
        Route("/gradio_api/upload", upload, methods=["POST"]),
        Route("/gradio_api/call/find", join, methods=["POST"]),
        Route("/gradio_api/call/find/7", fetch),
    ]
    server.blocks = SimpleNamespace(server_app=Starlette(routes=routes))
    request = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1", port=5))
    server.mcp_server = SimpleNamespace(request_context=SimpleNamespace(request=request))
    server.tool_to_endpoint = {"name_find": "/find"}
    parameters = [{"parameter_name": name} for name in ("files", "portrait", "false_match_rate")]
    server.api_info = {"named_endpoints": {"/find": {"parameters": parameters}}}
    server.types = SimpleNamespace(TextContent=SimpleNamespace)
    (content,) = anyio.run(server.call, "name_find", arguments)
    return content.text, asked, visitors, uploads


UPLOADED, JOINED = JSONResponse(["/uploads/photo"]), JSONResponse({"event_id": "7"})
COMPLETE = 'event: heartbeat\ndata: null\n\nevent: complete\ndata: [{"faces": null}]\n\n'


def photo(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_a_call_is_a_request_of_its_visitor():
    data = f"data:image/jpeg;base64,{base64.b64encode(b'a photo').decode()}"
    arguments = {"portrait": data, "files": [ADDRESS, data, "/etc/passwd"]}
    text, asked, visitors, uploads = call(arguments, UPLOADED, JOINED, COMPLETE)
    assert json.loads(text) == {"faces": None}
    files = [photo(path) for path in (ADDRESS, "/uploads/photo", "/etc/passwd")]  # the page refuses the last one
    assert asked == [files, photo("/uploads/photo"), None]
    assert visitors == {"192.0.2.1"}
    assert uploads.count(b"a photo") == 2


@pytest.mark.parametrize(
    ("given", "uploaded", "joined", "answer", "says"),
    [
        ("data:image/jpeg;base64,a", UPLOADED, JOINED, COMPLETE, "base64"),
        ("data:,YQ==", PlainTextResponse("too many photos", 503), JOINED, COMPLETE, "too many photos"),
        (ADDRESS, UPLOADED, JSONResponse({"detail": "queue is full"}, 503), COMPLETE, "queue is full"),
        (ADDRESS, UPLOADED, JOINED, 'event: error\ndata: {"error": "no photo"}\n\n', "no photo"),
    ],
)
def test_errors_of_a_call_are_those_of_the_page(given, uploaded, joined, answer, says):
    with pytest.raises(ValueError, match=says):
        call({"portrait": given, "files": []}, uploaded, joined, answer)
