"""A small Hugging Face Hub on loopback: enough of its HTTP to create a repository, commit files and read them back."""

import base64
import hashlib
import http.server
import json
import re
import threading


class Hub:
    """Repositories in memory. `token` is the only one it takes; `down` names a path that answers 500."""

    def __init__(self, token: str):
        self.token, self.down, self.files, self.commits = token, None, {}, []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                hub.post(self)

            def do_GET(self):
                hub.get(self)

            def do_HEAD(self):
                hub.get(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def environment(self, cache, token: str | None = None) -> dict[str, str]:
        """Return what points `huggingface_hub` here; it must be set before that is imported."""
        token = self.token if token is None else token
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(cache),
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": "0",
        }

    def post(self, request) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return answer(request, 401, {"error": "Invalid credentials"})
        if self.down and self.down in request.path:
            return answer(request, 500, {"error": "Internal"})
        if request.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if name in self.files:
                return answer(request, 409, {"error": "exists", "url": f"{self.url}/{name}"})
            self.files[name] = {}
            return answer(request, 200, {"url": f"{self.url}/{name}"})
        if request.path == "/api/validate-yaml":
            return answer(request, 200, {"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", request.path.split("?")[0])
        if not found or found[1] not in self.files:
            return answer(request, 404, {"error": "Not found"})
        if found[2] == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            return answer(request, 200, {"files": modes})
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            if line["key"] == "file":
                self.files[found[1]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.commits.append(sorted(line["value"]["path"] for line in lines if line["key"] == "file"))
        commit = f"{len(self.commits):040x}"
        answer(
            request, 200, {"success": True, "commitOid": commit, "commitUrl": f"{self.url}/{found[1]}/commit/{commit}"}
        )

    def get(self, request) -> None:
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path.split("?")[0])
        if not found or found[1] not in self.files:
            return answer(request, 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if found[3] not in self.files[found[1]]:
            return answer(request, 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        content = self.files[found[1]][found[3]]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": f"{len(self.commits):040x}"}
        answer(request, 200, content, headers)


def answer(request, status: int, content: dict | bytes, headers: dict | None = None) -> None:
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    request.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)
