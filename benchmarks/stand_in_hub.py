"""A stand-in for the Hugging Face hub: its HTTP API as its own client speaks it, with one repository in memory."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml

REPOSITORY = "me/mine"
PIPELINE_TAGS = {"image-segmentation", "mask-generation", "image-to-image", "feature-extraction"}


def metadata_errors(content: str) -> list[str]:
    """What the hub's validator finds wrong with a model card: its published rules for the fields that are used here."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if not found:
        return ["there is no metadata"]
    data = yaml.safe_load(found[1])
    bases, tags = data.get("base_model", []), data.get("tags", [])
    rules = {
        "license": isinstance(data.get("license", "mit"), str),
        "library_name": isinstance(data.get("library_name", ""), str),
        "pipeline_tag": data.get("pipeline_tag", "image-segmentation") in PIPELINE_TAGS,
        "tags": isinstance(tags, list) and all(isinstance(tag, str) for tag in tags),
        "base_model": all(
            re.fullmatch(r"[\w.-]+/[\w.-]+", base) for base in ([bases] if isinstance(bases, str) else bases)
        ),
    }
    errors = [f"{name} is not allowed" for name, holds in rules.items() if not holds]
    for model in data.get("model-index", []):
        if not model.get("name"):
            errors.append("model-index has no name")
        for result in model["results"]:
            if not (result["task"].get("type") and result["dataset"].get("type") and result["dataset"].get("name")):
                errors.append("a result lacks its task or dataset")
            if not all(metric.get("type") and "value" in metric for metric in result["metrics"]):
                errors.append("a metric lacks its type or value")
    return errors


def commit_of(branch: str) -> str:
    """The commit that a branch stands at."""
    return hashlib.sha1(branch.encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """One repository; large files go the way of git LFS.

    Attributes:
        address: of the server.
        branches: the files of each branch, by their paths.
        created, commits, validated: what it was asked for.
        tokens: those that came with requests.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.branches: dict[str, dict[str, bytes]] = {"main": {}}
        self.large: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.commits: list[dict[str, Any]] = []
        self.validated: list[str] = []
        self.tokens: set[str] = set()

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the main branch."""
        return self.branches["main"]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _branch(self, revision: str) -> str | None:
        """Of its name or its commit."""
        revision = unquote(revision)
        return next((name for name in self.server.branches if revision in (name, commit_of(name))), None)

    def do_POST(self) -> None:
        (path, _, query), body, hub = self.path.partition("?"), self._body(), self.server
        repository = f"/api/models/{REPOSITORY}"
        if path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer({"url": f"{hub.address}/{REPOSITORY}", "name": REPOSITORY})
        elif path == "/api/validate-yaml":
            hub.validated.append(json.loads(body)["content"])
            errors = [{"message": error} for error in metadata_errors(hub.validated[-1])]
            self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)
        elif path.startswith(f"{repository}/branch/"):
            hub.branches.setdefault(unquote(path.rpartition("/")[2]), {})
            self._answer({})
        elif path.startswith(f"{repository}/preupload/"):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            self._answer({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
        elif path == f"/{REPOSITORY}.git/info/lfs/objects/batch":
            objects = [
                {**entry, "actions": {"upload": {"href": f"{hub.address}/large/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif path.startswith(f"{repository}/commit/"):
            self._commit(unquote(path.rpartition("/")[2]), "create_pr=1" in query, body)
        else:
            self._answer({"error": path}, 404)

    def _commit(self, branch: str, is_proposed: bool, body: bytes) -> None:
        hub, files = self.server, {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                hub.commits.append({"branch": branch, "is_proposed": is_proposed, **value})
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.large[value["oid"]]
        branch = "refs/pr/1" if is_proposed else branch
        hub.branches.setdefault(branch, {}).update(files)
        answer = {"commitUrl": f"{hub.address}/{REPOSITORY}/commit/{commit_of(branch)}", "commitOid": commit_of(branch)}
        self._answer(answer | {"pullRequestUrl": f"{hub.address}/{REPOSITORY}/discussions/1"})

    def do_PUT(self) -> None:
        content, name = self._body(), self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != name:
            self._answer({"error": name}, 400)
            return
        self.server.large[name] = content
        self._answer(b"")

    def do_GET(self) -> None:
        path, hub = self.path.partition("?")[0], self.server
        if token := self.headers.get("Authorization"):
            hub.tokens.add(token.removeprefix("Bearer "))
        asked = re.fullmatch(
            rf"/api/models/{REPOSITORY}/(?P<kind>revision|tree)/(?P<rev>[^/]+)(/.*)?"
            rf"|/{REPOSITORY}/resolve/(?P<of>[^/]+)/(?P<file>.+)",
            path,
        )
        if path == f"/api/models/{REPOSITORY}":
            asked = re.fullmatch(r".*(?P<kind>revision)?(?P<rev>)(?P<of>)(?P<file>)", path)
        branch = asked and self._branch(asked["rev"] or asked["of"] or "main")
        if not branch:
            self._answer({"error": path}, 404, X_Error_Code="RevisionNotFound" if asked else "RepoNotFound")
            return
        files, commit = hub.branches[branch], commit_of(branch)
        if asked["file"]:
            content = files.get(unquote(asked["file"]))
            if content is None:
                self._answer({"error": path}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            else:
                self._answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=commit)
        elif asked["kind"] == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            self._answer(entries)
        else:
            self._answer({"id": REPOSITORY, "sha": commit, "siblings": [{"rfilename": name} for name in files]})

    do_HEAD = do_GET  # noqa: N815
