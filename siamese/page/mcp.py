"""The page as tools of a language model, over the Model Context Protocol."""

import base64
import binascii
import json
import logging
import re
from typing import Any

import httpx
from gradio import mcp

UPLOAD = "/gradio_api/upload"
PHOTOS_ADVICE = (
    " Each photo is the address or the path of an upload, see upload_file_to_gradio if there is this tool, or a small "
    "photo as a data: address in base64."
)


class Server(mcp.GradioMCPServer):
    """Gradio's server, whose calls are requests of their visitor to the page, with the same limits.

    The calls of Gradio's own server would be requests of this machine, and each would block a thread of the page.
    """

    _file_data_tool_description = PHOTOS_ADVICE

    def create_mcp_server(self) -> Any:
        logging.getLogger().setLevel(logging.ERROR)  # mcp logs what is invalid in a request, also to this one
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        server = super().create_mcp_server()
        server.call_tool()(self.call)
        return server

    def get_input_schema(self, tool_name: str, parameters: dict[str, str] | None = None) -> tuple[dict, list]:
        schema, positions = super().get_input_schema(tool_name, parameters)
        for value in schema["properties"].values():
            if value.pop("$defs", None):  # Gradio's schema of several files refers to definitions that are elsewhere
                value["items"] = {"type": "string"}
        return schema | {"additionalProperties": False}, positions

    async def call(self, name: str, arguments: dict[str, Any]) -> list[Any]:
        """Ask the page, and return its answer as JSON.

        Raises:
            ValueError: what is wrong with the arguments, or that the page is busy.
        """
        if name not in self.tool_to_endpoint:
            raise ValueError("This page has no such tool")
        endpoint = self.tool_to_endpoint[name]
        client = self.mcp_server.request_context.request.client
        transport = httpx.ASGITransport(self.blocks.server_app, client=(client.host, client.port))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=None) as page:
            parameters = self.api_info["named_endpoints"][endpoint]["parameters"]
            data = [await _value(page, arguments.get(parameter["parameter_name"])) for parameter in parameters]
            event = _answer(await page.post(f"/gradio_api/call{endpoint}", json={"data": data}))["event_id"]
            answer = await page.get(f"/gradio_api/call{endpoint}/{event}")
        kind, text = re.findall(r"event: (\w+)\ndata: (.*)", answer.text)[-1]
        data = json.loads(text)
        if kind != "complete":
            raise ValueError(data["error"] or "The page could not answer")
        return [self.types.TextContent(type="text", text=json.dumps(data[0]))]


async def _value(page: httpx.AsyncClient, value: Any) -> Any:
    """Return an argument as the page takes it: texts are photos, and those in base64 are uploaded."""
    if isinstance(value, list):
        return [await _value(page, item) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith("data:"):
        try:
            photo = base64.b64decode(value.partition(",")[2])
        except binascii.Error as error:
            raise ValueError("A data: address is not in base64") from error
        (value,) = _answer(await page.post(UPLOAD, files={"files": ("photo", photo)}))
    return {"path": value, "meta": {"_type": "gradio.FileData"}}


def _answer(response: httpx.Response) -> Any:
    """Return the JSON of a response, or raise its error."""
    if response.is_success:
        return response.json()
    with_detail = response.headers.get("content-type", "").startswith("application/json")
    raise ValueError(response.json()["detail"] if with_detail else response.text)
