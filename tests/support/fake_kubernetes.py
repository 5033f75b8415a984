"""A Kubernetes API server for tests: HTTP, the objects of Katib, and faults on demand.

The shapes are those of Kubernetes 1.30 (Status objects, lists with ``continue``) and Katib 0.19 (conditions,
observations). What only a cluster can show: webhooks, controllers, scheduling, real tokens, and whether KFP's
launcher leaves a step the time to act on SIGTERM.
"""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import yaml

KATIB = re.compile(r"/apis/kubeflow\.org/v1beta1/namespaces/([^/]+)/(experiments|trials|suggestions)(?:/([^/]+))?")
CORE = re.compile(r"/api/v1/namespaces/([^/]+)(?:/(events))?")
POD = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)")
WORKFLOW = re.compile(r"/apis/argoproj\.io/v1alpha1/namespaces/([^/]+)/workflows/([^/]+)")
STAMP = "2026-11-24T04:00:00Z"
LABEL = "katib.kubeflow.org/experiment"
INJECTION = "katib.kubeflow.org/metrics-collector-injection"


def status(code: int, reason: str, message: str) -> dict[str, Any]:
    """Return what the API answers with an error."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def one_of(objects: Mapping[Any, dict[str, Any]], key: Any) -> tuple[int, Any]:
    """Return the API's answer about one object of those that it holds."""
    found = objects.get(key)
    return (200, found) if found else (404, status(404, "NotFound", f"{key} not found"))


def stamp(seconds: float) -> str:
    """Return a time of the API: whole seconds, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def make_trial(
    experiment: str,
    name: str,
    assignments: Mapping[str, str],
    condition: str = "Succeeded",
    metrics: Mapping[str, str] | None = None,
    *,
    at: float = 1_700_000_000.0,
    seconds: float = 30.0,
    message: str = "",
) -> dict[str, Any]:
    """Return a Trial object as Katib writes it."""
    reached = ["Created", "Running", *([condition] if condition not in ("Created", "Running") else [])]
    reached = reached[: reached.index(condition) + 1]
    conditions = [
        {
            "type": each,
            # A condition that a later one replaces is kept with status False, but for Created.
            "status": "True" if each in ("Created", condition) else "False",
            "reason": f"Trial{each}",
            "message": message if each == condition else f"Trial is {each.lower()}",
            "lastUpdateTime": stamp(at),
            "lastTransitionTime": stamp(at),
        }
        for each in reached
    ]
    found: dict[str, Any] = {"conditions": conditions, "startTime": stamp(at)}
    if condition not in ("Created", "Running"):
        found["completionTime"] = stamp(at + seconds)
    if metrics:
        found["observation"] = {
            "metrics": [{"name": key, "latest": value, "min": value, "max": value} for key, value in metrics.items()]
        }
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Trial",
        "metadata": {"name": name, "labels": {LABEL: experiment}, "creationTimestamp": stamp(at)},
        "spec": {"parameterAssignments": [{"name": key, "value": value} for key, value in assignments.items()]},
        "status": found,
    }


def make_event(kind: str, name: str, reason: str, message: str) -> dict[str, Any]:
    """Return a warning's Event object."""
    return {
        "metadata": {"name": f"{name}.17", "namespace": "kubeflow"},
        "involvedObject": {"kind": kind, "name": name},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "firstTimestamp": STAMP,
        "lastTimestamp": STAMP,
    }


class Server(ThreadingHTTPServer):
    """The API server and what it holds.

    Attributes:
        experiments: by namespace and name.
        trials: of all experiments.
        events: of all objects.
        namespaces: their labels.
        pods: by namespace and name.
        workflows: of Argo, by namespace and name.
        requests: method and path of everything that was asked.
        faults: answers given instead of the right ones, in turn: status code and body, or None to close the connection.
        on_look: called with an object before it is returned; plays the controllers.
        katib: False: the API knows no Experiments.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.experiments: dict[tuple[str, str], dict[str, Any]] = {}
        self.trials: list[dict[str, Any]] = []
        self.suggestions: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.namespaces: dict[str, dict[str, str]] = {"kubeflow": {INJECTION: "enabled"}}
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.workflows: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: deque[tuple[str, int, dict[str, Any]] | None] = deque()
        self.on_look: Callable[[dict[str, Any]], None] = lambda found: None
        self.tokens: set[str] = set()
        self.katib = True
        self.expired_lists = 0

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_port}"

    def api(self) -> Any:
        """Return a client of it."""
        from kubernetes import client

        configuration = client.Configuration(host=self.url)
        configuration.retries = False
        return client.ApiClient(configuration)

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that names the server."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "step", "user": {"token": "a-token"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "step"}}],
            "current-context": "fake",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def only_experiment(self) -> dict[str, Any]:
        """Return the one Experiment there is."""
        (found,) = self.experiments.values()
        return found

    def finish(
        self, condition: str = "Succeeded", reason: str = "ExperimentMaxTrialsReached", message: str = ""
    ) -> None:
        """Let the Experiment end."""
        self.only_experiment()["status"] = {
            "conditions": [
                {"type": "Created", "status": "True", "reason": "ExperimentCreated"},
                {"type": "Running", "status": "False", "reason": "ExperimentRunning"},
                {"type": condition, "status": "True", "reason": reason, "message": message},
            ]
        }


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a read."""
        self.serve("GET")

    def do_POST(self) -> None:
        """Answer a creation."""
        self.serve("POST")

    def do_PATCH(self) -> None:
        """Answer a change."""
        self.serve("PATCH")

    def do_DELETE(self) -> None:
        """Answer a deletion."""
        self.serve("DELETE")

    def serve(self, method: str) -> None:
        """Answer with a fault that waits, or rightly."""
        url = urlsplit(self.path)
        self.server.requests.append((method, url.path))
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(content) if content else {}
        if self.server.faults and (self.server.faults[0] is None or self.server.faults[0][0] in (method, "*")):
            fault = self.server.faults.popleft()
            if fault is None:
                self.close_connection = True
                self.connection.close()
                return
            self.answer(fault[1], fault[2])
            return
        self.answer(*self.right_answer(method, url.path, parse_qs(url.query), body))

    def right_answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """Return status code and body."""
        if match := CORE.fullmatch(path):
            return self.core(match[1], match[2])
        for pattern, held in ((POD, self.server.pods), (WORKFLOW, self.server.workflows)):
            if match := pattern.fullmatch(path):
                return one_of(held, match.groups())
        match = KATIB.fullmatch(path)
        if not match or not self.server.katib:
            return 404, "404 page not found\n"
        namespace, plural, name = match.groups()
        if namespace not in self.server.namespaces:
            return 404, status(404, "NotFound", f'namespaces "{namespace}" not found')
        return self.of_katib(method, query, body, place=(namespace, plural, name))

    def of_katib(
        self, method: str, query: dict[str, list[str]], body: Any, *, place: tuple[str, str, str | None]
    ) -> tuple[int, Any]:
        """Answer about Katib's objects."""
        namespace, plural, name = place
        if plural == "suggestions":
            return one_of(self.server.suggestions, name)
        if method == "PATCH" and self.headers["Content-Type"] != "application/merge-patch+json":
            return 415, status(415, "UnsupportedMediaType", "custom objects take merge patches")
        if plural == "trials":
            wanted = query["labelSelector"][0].partition("=")[2]
            return self.page(
                "Trial", [t for t in self.server.trials if t["metadata"]["labels"][LABEL] == wanted], query
            )
        if name is None and method == "GET":
            held = [each for (place, _), each in self.server.experiments.items() if place == namespace]
            return self.page("Experiment", held, query)
        return self.custom_object(method, self.server.experiments, (namespace, "experiments.kubeflow.org", name), body)

    def core(self, namespace: str, events: str | None) -> tuple[int, Any]:
        """Answer about a namespace or its events."""
        if events:
            return 200, {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": self.server.events}
        if namespace not in self.server.namespaces:
            return 403, status(403, "Forbidden", f'namespaces "{namespace}" is forbidden: User "x" cannot get it')
        labels = self.server.namespaces[namespace]
        return 200, {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace, "labels": labels}}

    def custom_object(
        self, method: str, held: dict[tuple[str, str], dict[str, Any]], place: tuple[str, str, str | None], body: Any
    ) -> tuple[int, Any]:
        """Answer about an object of those that are held by namespace and name; ``place`` names its kind in between."""
        namespace, kind, name = place
        if method == "POST":
            name = body["metadata"]["name"]
            if (namespace, name) in held:
                return 409, status(409, "AlreadyExists", f'{kind} "{name}" already exists')
            metadata = {"uid": f"uid-{len(self.server.requests)}", "creationTimestamp": STAMP, "namespace": namespace}
            body["metadata"] |= metadata
            held[namespace, name] = body
            return 201, body
        found = held.get((namespace, name or ""))
        if found is None:
            return 404, status(404, "NotFound", f'{kind} "{name}" not found')
        if method == "DELETE":
            wanted = (body.get("preconditions") or {}).get("uid")
            if wanted and wanted != found["metadata"]["uid"]:
                return 409, status(409, "Conflict", "the UID in the precondition does not match")
            del held[namespace, name or ""]
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        if method == "PATCH":
            found["metadata"] |= body["metadata"]
        else:
            self.server.on_look(found)
        return 200, found

    def page(self, kind: str, found: list[dict[str, Any]], query: dict[str, list[str]]) -> tuple[int, Any]:
        """Answer with a page of a list of objects."""
        start, limit = int(query.get("continue", ["0"])[0]), int(query["limit"][0])
        if start and self.server.expired_lists:
            self.server.expired_lists -= 1
            message = "The provided continue parameter is too old to display a consistent list result."
            return 410, status(410, "Expired", message)
        metadata = {"continue": str(start + limit)} if start + limit < len(found) else {}
        return 200, {"kind": f"{kind}List", "metadata": metadata, "items": found[start : start + limit]}

    def answer(self, code: int, body: Any) -> None:
        """Send an answer."""
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


S = TypeVar("S", bound=Server)


@contextmanager
def fake_kubernetes(kind: Callable[[], S] = Server) -> Iterator[S]:  # type: ignore[assignment]
    """Run a server during the block."""
    with kind() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
