"""The part of Kubeflow Pipelines' v2beta1 API that registering uses, over real HTTP, with pages of two."""

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

API = "/apis/v2beta1"
PAGE = 2  # small, so that whoever reads only the first page is found out
KINDS = {"pipelines": "pipelines", "versions": "pipeline_versions", "experiments": "experiments"}
KINDS["recurringruns"] = "recurringRuns"
IDS = {"pipelines": "pipeline_id", "experiments": "experiment_id", "recurringruns": "recurring_run_id"}
IDS["runs"] = "run_id"
LONGEST = 255  # characters of a run's description: VARCHAR(255) in KFP's database


class FakePipelines:
    """What has been made, by kind, and the requests that changed something.

    ``health`` is what /healthz tells besides ``multi_user``: nothing, as a server without a tag; ``tag_name`` as the
    API itself, ``apiServerTagName`` as the UI does.
    """

    def __init__(self, token: str = "") -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        self.changes: list[str] = []
        self.packages: dict[str, dict[str, Any]] = {}  # what runs of a version run, by the version's id
        self.token = token
        self.refuse = ""
        self.health: dict[str, Any] = {}

    def create(self, kind: str, content: dict[str, Any], key: str) -> dict[str, Any]:
        made = {**content, key: str(uuid.uuid4())}
        if kind == "runs" and (reference := content.get("pipeline_version_reference")):
            made["pipeline_spec"] = self.packages[reference["pipeline_version_id"]]
        self.objects[kind].append(made)
        self.changes.append(f"create {kind}")
        return made

    def page(self, kind: str, query: dict[str, list[str]], **where: str) -> dict[str, Any]:
        found = [each for each in self.objects[kind] if all(each.get(key) == value for key, value in where.items())]
        for predicate in json.loads(query.get("filter", ["{}"])[0] or "{}").get("predicates", ()):
            found = [each for each in found if each[predicate["key"]] == predicate["stringValue"]]
        start = int(query.get("page_token", ["0"])[0] or 0)
        rest = start + PAGE
        return {KINDS[kind]: found[start:rest], "next_page_token": str(rest) if rest < len(found) else ""}

    def answer(self, method: str, url: str, body: bytes, headers: Message) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(url)
        path, query = parts.path.removeprefix(API), parse_qs(parts.query)
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"message": "the fake wants a token"}
        if self.refuse and method != "GET":
            return 400, {"message": self.refuse}
        if path == "/healthz":
            return 200, {"multi_user": bool(self.token), **self.health}
        if path == "/pipelines/upload_version":
            return 200, self.upload(query, *package(body, headers))
        if versions := re.fullmatch(r"/pipelines/([^/]+)/versions", path):
            return 200, self.page("versions", query, pipeline_id=versions[1])
        return self.collection(method, path, query, body)

    def upload(self, query: dict[str, list[str]], spec: Any, platform: Any = None) -> dict[str, Any]:
        """Keep a version; without a display name its name is shown."""
        given = {key: values[0] for key, values in query.items()}
        made = {"pipeline_id": given["pipelineid"], "name": given["name"], "pipeline_spec": spec}
        made |= {"display_name": given.get("display_name", given["name"]), "description": given.get("description")}
        version = self.create("versions", made, "pipeline_version_id")
        whole = {"pipeline_spec": spec, "platform_spec": platform} if platform else spec
        self.packages[version["pipeline_version_id"]] = whole
        return version

    def collection(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, Any]]:
        _, kind, *rest = path.split("/")
        if method == "DELETE":
            key = "recurring_run_id"
            self.objects[kind] = [each for each in self.objects[kind] if each[key] != rest[0]]
            self.changes.append(f"delete {kind}")
            return 200, {}
        if method == "GET":
            where = {key: query[key][0] for key in ("experiment_id",) if key in query}
            return 200, self.page(kind, query, **where)
        content = json.loads(body)
        if kind in ("runs", "recurringruns") and len(content.get("description") or "") > LONGEST:
            return 500, {"message": "Error 1406 (22001): Data too long for column 'Description' at row 1"}
        if kind == "recurringruns":
            content["status"] = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[content.pop("mode")]
            content.setdefault("service_account", "pipeline-runner")
        return 200, self.create(kind, content, IDS[kind])


def package(body: bytes, headers: Message) -> list[Any]:
    """Return the documents of an upload: the compiled pipeline, and what it asks of Kubernetes."""
    message = message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
    (part,) = [each for each in message.get_payload() if each.get_filename()]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(part.get_payload(decode=True), Loader=loader))


@contextmanager
def serve(fake: FakePipelines) -> Iterator[str]:
    """Serve on a free port and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = fake.answer(self.command, self.path, body, self.headers)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
