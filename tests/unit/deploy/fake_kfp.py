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


class FakePipelines:
    """What has been made, by kind, and the requests that changed something."""

    def __init__(self, token: str = "") -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        self.changes: list[str] = []
        self.token = token
        self.refuse = ""

    def create(self, kind: str, content: dict[str, Any], key: str) -> dict[str, Any]:
        made = {**content, key: str(uuid.uuid4())}
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
            return 200, {"multi_user": bool(self.token)}
        if path == "/pipelines/upload_version":
            content = package(body, headers)
            name = query["name"][0]
            made = {"pipeline_id": query["pipelineid"][0], "name": name, "display_name": name, "pipeline_spec": content}
            return 200, self.create("versions", made, "pipeline_version_id")
        if versions := re.fullmatch(r"/pipelines/([^/]+)/versions", path):
            return 200, self.page("versions", query, pipeline_id=versions[1])
        return self.collection(method, path, query, body)

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
        if kind == "recurringruns":
            content["status"] = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[content.pop("mode")]
            content.setdefault("service_account", "pipeline-runner")
        key = {"pipelines": "pipeline_id", "experiments": "experiment_id", "recurringruns": "recurring_run_id"}[kind]
        return 200, self.create(kind, content, key)


def package(body: bytes, headers: Message) -> Any:
    """Return the compiled pipeline of an upload."""
    message = message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
    (part,) = [each for each in message.get_payload() if each.get_filename()]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return next(yaml.load_all(part.get_payload(decode=True), Loader=loader))


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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
