"""A small Hugging Face Hub on localhost, with the requests that huggingface_hub needs for models and Spaces.

It holds repositories in memory, checks tokens and owners, stores large files separately (Git LFS), and can be told to
fail.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

STAGES = ("BUILDING", "APP_STARTING", "RUNNING")  # the answers to successive questions about a Space


@dataclass
class Repository:
    """A repository.

    Attributes:
        commits: id → all files.
        branches: name → id of a commit.
        changed: the paths that each commit named.
        stages: the next answers about what the Space does.
        previous: commit that a Space still runs, until somebody asks.
    """

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    changed: list[list[str]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    stages: list[str] = field(default_factory=list)
    previous: str | None = None

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(repr((branch, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def at(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class Fault(NamedTuple):
    """A failure of the requests whose "METHOD path" contains `part`.

    Attributes:
        part: a substring.
        how: a status, "drop" to close the connection without an answer, or "cut" to close it amid the answer.
        answered: number of requests that are answered before the fault.
    """

    part: str
    how: int | str
    answered: int = 0

    def hits(self, asked: str, number: int) -> bool:
        return self.part in asked and number > self.answered


class Hub:
    """The server.

    Attributes:
        users: token → user.
        repositories: "models/USER/NAME" or "spaces/USER/NAME" → repository.
        large: SHA-256 → content of a large file.
        fault: the failure to simulate, or None.
        asked: "METHOD path" of all requests.
        stages: the `Repository.stages` of new commits.
        free: accounts have Spaces on ZeroGPU only.
    """

    def __init__(self, token: str, user: str = "someone"):
        self.users = {token: user}
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.fault: Fault | None = None
        self.asked: list[str] = []
        self.stages, self.free = STAGES, False
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                Request(hub, self).answer()

            do_GET = do_HEAD = do_POST = do_PUT = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def environment(self, cache: Path, token: str | None = None) -> dict[str, str]:
        """Return the environment variables that make huggingface_hub use this server; it reads them when imported."""
        token = next(iter(self.users)) if token is None else token
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(cache),
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": "0",
        }

    def connect(self, monkeypatch, cache: Path, token: str | None = None, offline: bool = False, url: str = "") -> None:
        """Make huggingface_hub use this server in the current process, where it is already imported.

        Args:
            cache: folder for downloads.
            token: None for the token of the server's user; "" for none.
            offline: set HF_HUB_OFFLINE.
            url: another address.
        """
        from huggingface_hub import constants

        url = url or self.url
        for name, value in {
            "ENDPOINT": url,
            "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_TOKEN_PATH": str(cache / "token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": offline,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", next(iter(self.users)) if token is None else token)
        sleep = time.sleep
        # Retries and polling wait for a second or more.
        monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds if seconds < 1 else 0.02))

    def create(self, name: str, files: dict[str, bytes] | None = None, private: bool = False) -> Repository:
        """Create a repository, empty or with these files."""
        repository = self.repositories[name] = Repository(private=private)
        repository.commit("main", files or {".gitattributes": b""})
        return repository

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a repository, "models/USER/NAME" or "spaces/USER/NAME"."""
        repository = self.repositories[name]
        return {
            file: content for file, content in repository.commits[repository.at(revision)].items() if file[0] != "."
        }

    def put(self, name: str, files: dict[str, bytes | None]) -> None:
        """Change files of the main branch; None deletes a file."""
        repository = self.repositories[name]
        changed = repository.commits[repository.branches["main"]] | files
        repository.commit("main", {file: content for file, content in changed.items() if content is not None})


class Request:
    """One request and its answer."""

    def __init__(self, hub: Hub, http: http.server.BaseHTTPRequestHandler):
        self.hub, self.http = hub, http
        self.path, _, query = http.path.partition("?")
        self.query = urllib.parse.parse_qs(query)
        self.body = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        token = (http.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user, self.anonymous = hub.users.get(token), not token

    def answer(self) -> None:
        asked = f"{self.http.command} {self.path}"
        self.hub.asked.append(asked)
        fault = self.hub.fault
        self.fault = fault if fault and fault.hits(asked, len(self.hub.asked)) else None
        if self.fault and self.fault.how == "drop":
            self.http.close_connection = True
            return
        if self.fault and self.fault.how != "cut":
            return self.send(self.fault.how, {"error": "as asked"})
        if self.user is None and not self.anonymous:
            return self.send(401, {"error": "Invalid credentials"})
        for pattern, handler in ROUTES:
            if found := re.fullmatch(pattern, asked):
                return handler(self, *map(urllib.parse.unquote, found.groups()))
        self.send(404, {"error": f"unknown request: {asked}"})

    def send(self, status: int, content: dict | list | bytes, headers: dict | None = None) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.http.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.http.send_header(name, value)
        self.http.end_headers()
        if self.fault and self.fault.how == "cut":
            content, self.http.close_connection = content[: len(content) // 2], True
        if self.http.command != "HEAD":
            self.http.wfile.write(content)

    def repository(self, name: str, to_write: bool = False) -> Repository | None:
        """Return a repository; None after sending an error if it does not exist or belongs to another user."""
        repository = self.hub.repositories.get(name)
        own = self.user == name.split("/")[1]
        if repository is None or (repository.private and not own):
            status = 401 if self.anonymous else 404
            self.send(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif to_write and not own:
            self.send(403, {"error": "Forbidden"})
        else:
            return repository
        return None

    def create(self) -> None:
        wanted = json.loads(self.body)
        kind = "spaces" if wanted.get("type") == "space" else "models"
        name = f"{kind}/{wanted['organization']}/{wanted['name']}"
        url = f"{self.hub.url}/{name.removeprefix('models/')}"
        if self.user != wanted["organization"]:
            return self.send(401 if self.anonymous else 403, {"error": "Forbidden"})
        if name in self.hub.repositories:
            return self.send(409, {"error": "exists", "url": url})
        if kind == "spaces" and wanted["sdk"] != "gradio":
            return self.send(400, {"error": "no such sdk"})
        if kind == "spaces" and self.hub.free and wanted.get("hardware") != "zero-a10g":
            return self.send(402, {"error": "Payment required"})
        repository = self.hub.create(name, private=wanted.get("visibility") == "private")
        repository.hardware = wanted.get("hardware", "cpu-basic") if kind == "spaces" else None
        repository.variables = {one["key"]: one["value"] for one in wanted.get("variables", ())}
        self.send(200, {"url": url})

    def branch(self, name: str, branch: str) -> None:
        if repository := self.repository(name, to_write=True):
            if branch in repository.branches:
                return self.send(409, {"error": "exists"})
            repository.branches[branch] = repository.branches["main"]
            self.send(200, {})

    def preupload(self, name: str, revision: str) -> None:
        if (repository := self.repository(name, "create_pr" not in self.query)) and self.revision(repository, revision):
            files = repository.commits[repository.at(revision)]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": oid(file["path"], files[file["path"]]) if file["path"] in files else None,
                }
                for file in json.loads(self.body)["files"]
            ]
            self.send(200, {"files": modes})

    def batch(self, *_) -> None:
        objects = [
            {**one, "authenticated": True, "actions": {"upload": {"href": f"{self.hub.url}/large/{one['oid']}"}}}
            for one in json.loads(self.body)["objects"]
        ]
        self.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.send(422, {"error": "wrong hash"})
        self.hub.large[oid] = self.body
        self.send(200, {})

    def download(self, oid: str) -> None:
        self.send(200, self.hub.large[oid])

    def commit(self, name: str, revision: str) -> None:
        pull_request = "create_pr" in self.query
        repository = self.repository(name, to_write=not pull_request)
        if not repository or not (base := self.revision(repository, revision)):
            return
        files, paths = dict(repository.commits[base]), []
        for line in map(json.loads, self.body.splitlines()):
            kind, value = line["key"], line["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
            if kind != "header":
                paths.append(value["path"])
        branch = f"refs/pr/{len(repository.commits)}" if pull_request else revision
        oid = repository.commit(branch, files)
        repository.changed.append(sorted(paths))
        repository.stages, repository.previous = list(self.hub.stages), base
        url = f"{self.hub.url}/{name.removeprefix('models/')}"
        extra = {"pullRequestUrl": f"{url}/discussions/{branch.rpartition('/')[2]}"} if pull_request else {}
        self.send(200, {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", **extra})

    def revision(self, repository: Repository, revision: str) -> str | None:
        if not (oid := repository.at(revision)):
            self.send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        return oid

    def info(self, name: str, revision: str | None = None) -> None:
        if (repository := self.repository(name)) and (oid := self.revision(repository, revision or "main")):
            files = [{"rfilename": file, "size": len(content)} for file, content in repository.commits[oid].items()]
            self.send(200, {"id": name.split("/", 1)[1], "sha": oid, "private": repository.private, "siblings": files})

    def tree(self, name: str, revision: str) -> None:
        if (repository := self.repository(name)) and (oid := self.revision(repository, revision)):
            files = repository.commits[oid].items()
            self.send(
                200, [{"type": "file", "path": path, "size": len(content), "oid": "0" * 40} for path, content in files]
            )

    def resolve(self, name: str, revision: str, file: str) -> None:
        name = name if name.startswith("spaces/") else f"models/{name}"
        if not (repository := self.repository(name)) or not (oid := self.revision(repository, revision)):
            return
        if file not in repository.commits[oid]:
            return self.send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})
        content = repository.commits[oid][file]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": oid}
        if not file.endswith(".safetensors"):
            return self.send(200, content, headers)
        sha256 = hashlib.sha256(content).hexdigest()
        self.hub.large.setdefault(sha256, content)
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        # Large files are on another host. The client does not follow the redirect if it asks for metadata only.
        other_host = self.hub.url.replace("127.0.0.1", "localhost")
        self.send(302, b"", {**headers, "Location": f"{other_host}/large/{sha256}"})

    def variables(self, name: str) -> None:
        if repository := self.repository(name, to_write=True):
            if self.body:
                wanted = json.loads(self.body)
                repository.variables[wanted["key"]] = wanted["value"]
            self.send(200, {key: {"value": value} for key, value in repository.variables.items()})

    def hardware(self, name: str) -> None:
        if repository := self.repository(name, to_write=True):
            repository.hardware = json.loads(self.body)["flavor"]
            self.runtime(name)

    def runtime(self, name: str) -> None:
        if repository := self.repository(name):
            hardware = {"current": repository.hardware, "requested": repository.hardware}
            if repository.previous:  # at first the Space still runs the previous commit
                self.send(200, {"stage": "RUNNING", "hardware": hardware, "sha": repository.previous})
                repository.previous = None
                return
            stage = repository.stages[0] if repository.stages else "NO_APP_FILE"
            repository.stages = repository.stages[1:] or repository.stages
            self.send(200, {"stage": stage, "hardware": hardware, "sha": repository.branches["main"]})

    def restart(self, name: str) -> None:
        if repository := self.repository(name, to_write=True):
            repository.stages = list(self.hub.stages)
            self.runtime(name)


def oid(path: str, content: bytes) -> str:
    """Return the id by which the client recognises an unchanged file: SHA-256 of large files, else Git's hash."""
    if path.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"((?:models|spaces)/[^/]+/[^/]+)"
ROUTES = (
    (r"POST /api/repos/create", Request.create),
    (r"POST /api/validate-yaml", lambda request: request.send(200, {"errors": [], "warnings": []})),
    (rf"POST /api/{NAME}/branch/(.+)", Request.branch),
    (rf"POST /api/{NAME}/preupload/(.+)", Request.preupload),
    (rf"POST /api/{NAME}/commit/(.+)", Request.commit),
    (rf"(?:GET|POST) /api/{NAME}/variables", Request.variables),
    (rf"POST /api/{NAME}/restart", Request.restart),
    (rf"POST /api/{NAME}/hardware", Request.hardware),
    (rf"GET /api/{NAME}/runtime", Request.runtime),
    (rf"GET /api/{NAME}/tree/(.+)", Request.tree),
    (rf"GET /api/{NAME}/revision/(.+)", Request.info),
    (rf"GET /api/{NAME}", Request.info),
    (r"POST /(.+)\.git/info/lfs/objects/batch", Request.batch),
    (r"PUT /large/(\w+)", Request.upload),
    (r"(?:GET|HEAD) /large/(\w+)", Request.download),
    (r"(?:GET|HEAD) /((?:spaces/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", Request.resolve),
)
