"""A Kubernetes API server that keeps objects by path, over real HTTP, as far as the set-up Jobs use one."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes import client


class FakeApi:
    """Objects by path, such as /api/v1/namespaces/kubeflow/secrets/NAME; `log` holds method and path of each call."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[str, str]] = []
        self.refuse: dict[tuple[str, str], int] = {}

    def put(self, path: str, content: dict[str, Any]) -> None:
        content.setdefault("metadata", {})["resourceVersion"] = str(len(self.log) + 1)
        self.objects[path] = content

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        self.log.append((method, path))
        if (method, path) in self.refuse:
            return self.refuse[method, path], {}
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return 409, {}
            self.put(path, stored(body))
        elif path not in self.objects:
            return 404, {}
        elif method == "PUT":
            if body["metadata"].get("resourceVersion") != self.objects[path]["metadata"]["resourceVersion"]:
                return 409, {}
            self.put(path, stored(body))
        elif method == "PATCH":
            merge(self.objects[path], body)
        return 200, self.objects[path]


def stored(body: dict[str, Any]) -> dict[str, Any]:
    """Return an object as the API server keeps it: a Secret's stringData becomes data."""
    plain = body.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        body["data"] = {**(body.get("data") or {}), **encoded}
    return body


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


@contextmanager
def serve(fake: FakeApi) -> Iterator[client.ApiClient]:
    """Serve on a free port and yield a client."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, content = fake.answer(self.command, self.path.partition("?")[0], body)
            if status >= 400:
                content = {"kind": "Status", "status": "Failure", "code": status, "message": f"the fake says {status}"}
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
