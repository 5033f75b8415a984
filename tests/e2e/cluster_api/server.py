"""The fake API server: HTTP that kubectl and the Kubernetes client take for an API server's.

Honest in: discovery, create, get, list with selectors, patch, replace, delete with garbage collection, watch, logs,
evictions, versions and conflicts. It only plays: it validates nothing but what it needs, knows no users and no rights,
and answers every eviction with yes, as where no PodDisruptionBudget stands.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.e2e.cluster_api.kinds import KINDS, Kind, discovery
from tests.e2e.cluster_api.objects import ApiError, Object, Objects
from tests.e2e.cluster_api.patches import apply_patch
from tests.support.fake_kubernetes import status

PLACE = re.compile(r"(?:/namespaces/([^/]+))?/([a-z]+)(?:/([^/]+))?(?:/([a-z]+))?")
ROOTS = sorted({kind.root for kind in KINDS}, key=len, reverse=True)
WATCH_S = 30.0


class Server(ThreadingHTTPServer):
    """Serves objects.

    Attributes:
        objects: all there are.
        logs: the text of a pod's log, by namespace and name.
        evict: called with a pod that is evicted.
        requests: method and path of everything that was asked.
    """

    daemon_threads = True

    def __init__(self, objects: Objects) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects = objects
        self.logs: Callable[[str, str], str] = lambda namespace, pod: ""
        self.evict: Callable[[Object], None] = lambda pod: None
        self.requests: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_port}"

    def client(self) -> Any:
        """Return a client of it, of the library kubernetes."""
        from kubernetes import client

        return client.ApiClient(client.Configuration(host=self.url))

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that names the server."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "user", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "user"}}],
            "current-context": "fake",
        }
        path.write_text(yaml.safe_dump(content))
        return path


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    protocol_version = "HTTP/1.1"
    # An answer goes in one piece and at once; else each waits 40 ms for the acknowledgment of its head.
    wbufsize = 65_536
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def handle_any(self) -> None:
        """Answer, or say with a Status why not."""
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.command, url.path))
        try:
            found = discovery(url.path) if self.command == "GET" else None
            if found is not None:
                self.send(200, found)
                return
            self.route(url.path, query, json.loads(content) if content else {})
        except ApiError as error:
            self.send(error.code, status(error.code, error.reason, str(error)))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def route(self, path: str, query: dict[str, str], body: Any) -> None:
        """Find the kind and the object that are meant."""
        root = next((each for each in ROOTS if path.startswith(f"{each}/")), "")
        match = PLACE.fullmatch(path.removeprefix(root)) if root else None
        parts = match.groups() if match else (None, "", None, None)
        if path.startswith("/api/v1/namespaces/") and path.count("/") == 4:  # the namespace itself
            parts = (None, "namespaces", path.rpartition("/")[2], None)
        namespace, plural, name, subresource = parts
        kind = next((each for each in KINDS if each.root == root and each.plural == plural), None)
        if kind is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if subresource == "log":
            self.send_text(self.server.logs(namespace or "", name or ""))
        elif subresource == "eviction":
            self.evict(kind, namespace or "", name or "")
        elif name is None:
            self.collection(kind, namespace or "", query, body)
        else:
            self.one(kind, (namespace or "", name), subresource or "", body)

    def collection(self, kind: Kind, namespace: str, query: dict[str, str], body: Any) -> None:
        """Answer about all objects of a kind, or create one."""
        objects = self.server.objects
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        if self.command == "POST":
            self.send(201, objects.create(kind, namespace, body))
        elif self.command == "DELETE":
            for each in objects.list(kind, namespace, labels, fields):
                with contextlib.suppress(ApiError):
                    objects.delete(kind, namespace, each["metadata"]["name"])
            self.send(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        elif query.get("watch") in ("1", "true"):
            self.watch(kind, namespace, query)
        else:
            found = objects.list(kind, namespace, labels, fields)
            head = {"kind": f"{kind.name}List", "apiVersion": kind.api_version}
            items = [{"apiVersion": kind.api_version, "kind": kind.name, **each} for each in found]
            self.send(200, head | {"metadata": {"resourceVersion": str(objects.version)}, "items": items})

    def one(self, kind: Kind, place: tuple[str, str], subresource: str, body: Any) -> None:
        """Answer about one object."""
        objects = self.server.objects
        if self.command == "GET":
            self.send(200, objects.get(kind, *place))
        elif self.command == "DELETE":
            uid = ((body or {}).get("preconditions") or {}).get("uid", "")
            self.send(200, objects.delete(kind, *place, uid=uid))
        elif self.command == "PATCH":
            if subresource == "status":
                body = {"status": body.get("status", {})}
            self.send(200, objects.change(kind, *place, lambda found: apply_patch(found, body)))
        else:
            self.send(200, objects.change(kind, *place, lambda found: body))

    def evict(self, kind: Kind, namespace: str, name: str) -> None:
        """Let a pod be evicted."""
        self.server.evict(self.server.objects.get(kind, namespace, name))
        self.send(201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})

    def watch(self, kind: Kind, namespace: str, query: dict[str, str]) -> None:
        """Send events, a line each, until the client or the time ends it."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        until_s = time.monotonic() + min(WATCH_S, float(query.get("timeoutSeconds") or WATCH_S))
        objects = self.server.objects
        since = int(query.get("resourceVersion") or 0)
        selectors = query.get("labelSelector", ""), query.get("fieldSelector", "")
        with contextlib.suppress(OSError):
            if query.get("sendInitialEvents") == "true":
                with objects.changed:
                    found, since = objects.list(kind, namespace, *selectors), objects.version
                metadata = {"resourceVersion": str(since), "annotations": {"k8s.io/initial-events-end": "true"}}
                bookmark = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
                for event in [
                    *({"type": "ADDED", "object": each} for each in found),
                    {"type": "BOOKMARK", "object": bookmark},
                ]:
                    self.send_event(event)
            for event in objects.watch(kind, namespace, since, selectors, until_s):
                if event:
                    self.send_event(event)
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def send_event(self, event: Object) -> None:
        """Send a line of a watch."""
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def send(self, code: int, body: Any) -> None:
        """Send JSON."""
        self.send_bytes(code, json.dumps(body).encode(), "application/json")

    def send_text(self, text: str) -> None:
        """Send a log."""
        self.send_bytes(200, text.encode(), "text/plain")

    def send_bytes(self, code: int, content: bytes, kind: str) -> None:
        """Send an answer."""
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serve(objects: Objects) -> Iterator[Server]:
    """Run a server during the block."""
    with Server(objects) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
