"""Katib through a real HTTP server that answers as the Kubernetes API does, faults included."""

import gzip
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kondense.cluster.errors import ClusterError
from kondense.cluster.names import RUN
from kondense.katib_search.cluster import Katib
from kondense.kubernetes_api import limit_size
from kubernetes import client

from tests.support.fake_kubernetes import INJECTION, Server, make_event, make_trial, status

NAME = "kondense-bohb-1234"


def body(run: str = "run-1") -> dict:
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": NAME, "annotations": {RUN: run}},
        "spec": {},
    }


class Opened:
    """A client of the server; ``lines`` is what it has said, ``connections`` how often it connected."""

    def __init__(self, cluster: Server, namespace: str = "kubeflow") -> None:
        self.lines: list[str] = []
        self.connections = 0
        self.cluster = cluster
        self.katib = Katib(self.connect, namespace, pauses_s=(0.01, 0.01, 0.01), log=self.lines.append)

    def connect(self):
        self.connections += 1
        return self.cluster.api()


@pytest.fixture
def opened(cluster: Server) -> Opened:
    return Opened(cluster)


def test_creates_reads_and_deletes(cluster: Server, opened: Opened) -> None:
    opened.katib.create(body())
    assert opened.katib.get(NAME)["metadata"]["name"] == NAME
    assert opened.katib.delete(NAME, "run-1")
    assert opened.katib.get(NAME) is None
    assert not opened.katib.delete(NAME, "run-1")
    assert cluster.experiments == {}


def test_409_of_the_same_run_goes_on_with_it(opened: Opened) -> None:
    first = opened.katib.create(body())
    assert opened.katib.create(body()) == first
    assert opened.lines == [f"experiment {NAME} exists: continuing it"]


def test_409_of_another_run_is_an_error_and_its_experiment_is_left_alone(cluster: Server, opened: Opened) -> None:
    opened.katib.create(body("run-2"))
    with pytest.raises(
        ClusterError, match="belongs to run run-2, not to run run-1: delete it .kubectl -n kubeflow delete"
    ):
        opened.katib.create(body())
    assert not opened.katib.delete(NAME, "run-1")
    assert cluster.experiments
    del cluster.only_experiment()["metadata"]["annotations"]
    with pytest.raises(ClusterError, match="belongs to another user"):
        opened.katib.create(body())


def test_409_of_one_that_is_being_deleted_waits_until_it_is_gone(cluster: Server, opened: Opened) -> None:
    opened.katib.create(body())
    cluster.only_experiment()["metadata"]["deletionTimestamp"] = "2026-11-24T04:00:00Z"
    cluster.on_look = lambda experiment: cluster.experiments.clear()
    created = opened.katib.create(body())
    assert "deletionTimestamp" not in created["metadata"]
    assert any("is being deleted; waiting" in line for line in opened.lines)


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
def test_5xx_is_repeated(cluster: Server, opened: Opened, code: int) -> None:
    cluster.faults.extend([("*", code, status(code, "Fault", "etcd leader changed"))] * 3)
    opened.katib.create(body())
    assert len(cluster.experiments) == 1
    assert len(opened.lines) == 3 and "could not create experiments" in opened.lines[0]


def test_a_closed_connection_is_repeated(cluster: Server, opened: Opened) -> None:
    cluster.faults.extend([None, None])
    opened.katib.create(body())
    assert len(opened.lines) == 2


def test_a_creation_whose_answer_was_lost_is_found_again(cluster: Server, opened: Opened) -> None:
    cluster.experiments["kubeflow", NAME] = body() | {"metadata": {**body()["metadata"], "uid": "1"}}
    cluster.faults.append(("POST", 504, status(504, "Timeout", "timed out")))
    assert opened.katib.create(body())["metadata"]["uid"] == "1"


def test_what_lasts_is_one_line(cluster: Server, opened: Opened) -> None:
    cluster.faults.extend([("*", 503, status(503, "Down", "apiserver not ready"))] * 4)
    with pytest.raises(ClusterError, match="answered 503 to get experiments: apiserver not ready"):
        opened.katib.get(NAME)


def test_an_unreachable_server_is_one_line(cluster: Server, opened: Opened) -> None:
    cluster.shutdown()
    cluster.server_close()
    with pytest.raises(ClusterError, match="the Kubernetes API cannot be reached") as caught:
        opened.katib.get(NAME)
    assert "\n" not in str(caught.value)


def test_an_expired_token_is_renewed(cluster: Server, opened: Opened) -> None:
    cluster.faults.append(("*", 401, status(401, "Unauthorized", "Unauthorized")))
    assert opened.katib.get(NAME) is None
    assert opened.connections == 2
    cluster.faults.extend([("*", 401, status(401, "Unauthorized", "Unauthorized"))] * 4)
    with pytest.raises(ClusterError, match="refuses this step's token .*kubectl -n kubeflow get serviceaccounts"):
        opened.katib.get(NAME)


def test_410_of_a_list_begins_it_anew(cluster: Server, opened: Opened) -> None:
    cluster.trials = [make_trial(NAME, f"t{index}", {"lr": "1"}) for index in range(450)]
    cluster.trials.append(make_trial("other", "t", {"lr": "1"}))
    cluster.expired_lists = 2
    assert [each["metadata"]["name"] for each in opened.katib.trials(NAME)] == [f"t{index}" for index in range(450)]


def test_katib_that_is_not_installed(cluster: Server, opened: Opened) -> None:
    cluster.katib = False
    with pytest.raises(ClusterError, match="Katib must be installed .*kubectl apply -k manifests/kubeflow/katib"):
        opened.katib.create(body())


def test_a_namespace_that_is_not_there(cluster: Server) -> None:
    with pytest.raises(ClusterError, match='namespace team must exist, but the API says: namespaces "team" not found'):
        Opened(cluster, "team").katib.create(body())


def test_a_namespace_without_the_label(cluster: Server, opened: Opened) -> None:
    opened.katib.check_namespace()
    cluster.namespaces["kubeflow"] = {}
    with pytest.raises(ClusterError, match=f"kubectl label namespace kubeflow {INJECTION}=enabled"):
        opened.katib.check_namespace()
    Opened(cluster, "forbidden").katib.check_namespace()  # not allowed to look: the trials will tell


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (
            403,
            'experiments.kubeflow.org is forbidden: User "system:serviceaccount:team:default" cannot create resource',
            "may not create experiments in namespace kubeflow: kubectl apply -k manifests/rbac",
        ),
        (
            403,
            'experiments.kubeflow.org "x" is forbidden: exceeded quota: trials, requested: count/experiments=1',
            "quota exceeded in namespace kubeflow: .*; raise the ResourceQuota of the namespace, or lower",
        ),
        (
            400,
            'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: unknown algorithm bohb',
            "Katib rejects the Experiment: .* unknown algorithm bohb",
        ),
        (
            500,
            'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: unknown algorithm bohb',
            "Katib rejects the Experiment",
        ),
    ],
)
def test_what_the_api_refuses(cluster: Server, opened: Opened, code: int, text: str, expected: str) -> None:
    cluster.faults.append(("POST", code, status(code, "Forbidden", text)))
    with pytest.raises(ClusterError, match=expected) as caught:
        opened.katib.create(body())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("event", "step"),
    [
        (("Job", "FailedCreate", 'pods "x" is forbidden: exceeded quota: gpu-trials'), "raise the ResourceQuota"),
        (
            ("Pod", "FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            "add nodes, lower gpus",
        ),
        (("Pod", "FailedScheduling", "2 node(s) had untolerated taint {gpu: true}"), "set tolerations"),
        (("Pod", "Failed", 'Failed to pull image "nowhere/stage:1"'), "check the name of the image"),
        (("Pod", "Failed", 'Error: secret "mlpipeline-minio-artifact" not found'), "create the Secret"),
    ],
)
def test_what_keeps_trials_from_running(
    cluster: Server, opened: Opened, event: tuple[str, str, str], step: str
) -> None:
    kind, reason, message = event
    cluster.events = [
        make_event(kind, f"{NAME}-b0r0c0-abcdef", reason, message),
        make_event(kind, f"{NAME}-b0r0c0-abcdef", reason, message),
        make_event(kind, "another", reason, message),
    ]
    (line,) = opened.katib.warnings(NAME)
    assert line.startswith(f"warning: {kind.lower()} {NAME}-b0r0c0-abcdef: {message.rstrip('.')}; {step}")


def test_warnings_about_pods_of_one_job_are_one_line_at_every_look(cluster: Server, opened: Opened) -> None:
    events = [
        make_event("Job", NAME, "FailedCreate", f'pods "{NAME}-0-{end}" is forbidden') for end in ("lj28t", "8hr2n")
    ]
    cluster.events = events
    first = opened.katib.warnings(NAME)
    cluster.events = events[::-1]
    assert opened.katib.warnings(NAME) == first == [f'warning: job {NAME}: pods "{NAME}-0-lj28t" is forbidden']


NO_LIST = {
    "null": None,
    "list": [],
    "text": "x",
    "number": 3,
    "no items": {"metadata": {}},
    "items null": {"items": None},
}
NO_LIST |= {"items of numbers": {"items": [1]}, "metadata text": {"items": [], "metadata": "x"}}


@pytest.fixture
def answering() -> Iterator[Callable[[bytes | Callable[[str], bytes]], Katib]]:
    """A client of a server that answers all requests with the same bytes, or with those for a path."""
    servers: list[ThreadingHTTPServer] = []

    def start(content: bytes | Callable[[str], bytes], code: int = 200, **headers: str) -> Katib:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                body = content if isinstance(content, bytes) else content(self.path)
                self.send_response(code)
                for name, value in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(body)),
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()

        def connect() -> client.ApiClient:
            settings = client.Configuration(host=f"http://127.0.0.1:{servers[-1].server_port}")
            settings.retries = False
            return limit_size(client.ApiClient(settings), most_bytes=100_000)

        return Katib(connect, "kubeflow", pauses_s=(), log=lambda line: None)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answer", [*map(json.dumps, NO_LIST.values()), "<html>", "{", "[" * 9_000, '{"items": NaN}'])
def test_what_is_no_list_is_told_in_one_line(answering, answer: str) -> None:
    katib = answering(answer.encode())
    with pytest.raises(ClusterError, match="the Kubernetes API must answer list trials with what it asks for") as told:
        katib.trials(NAME)
    assert "\n" not in str(told.value) and len(str(told.value)) < 300
    assert katib.warnings(NAME) == []  # they are optional


@pytest.mark.parametrize(
    "answer", ["null", "[]", "3", '{"metadata": null}', '{"metadata": {"annotations": [1]}}', "\xff"]
)
def test_what_is_no_object_is_told_in_one_line(answering, answer: str) -> None:
    katib = answering(answer.encode("latin-1"))
    for call in (lambda: katib.get(NAME), lambda: katib.delete(NAME, "run-1"), lambda: katib.suggestion_failure(NAME)):
        with pytest.raises(
            ClusterError, match="must answer get (experiments|suggestions) with what it asks for"
        ) as told:
            call()
        assert "\n" not in str(told.value)


def test_a_list_without_end_is_refused(answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kondense.katib_search.cluster.MOST_PAGES", 20)
    page = json.dumps({"items": [], "metadata": {"continue": 7}}).encode()
    with pytest.raises(ClusterError, match="must answer list trials in at most 20 pages"):
        answering(page).trials(NAME)


def test_an_answer_beyond_the_limit_is_refused_compressed_or_not(answering) -> None:
    page = json.dumps({"items": [], "filler": " " * 200_000}).encode()
    with pytest.raises(ClusterError, match="must have at most 100,000 bytes, but has more"):
        answering(page).trials(NAME)
    with pytest.raises(ClusterError, match="must have at most 100,000 bytes, but has more"):
        answering(gzip.compress(page), **{"Content-Encoding": "gzip"}).trials(NAME)
    small = gzip.compress(json.dumps({"items": [{}]}).encode())
    assert answering(small, **{"Content-Encoding": "gzip"}).trials(NAME) == [{}]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_the_token_is_sent_nowhere_else(answering, code: int) -> None:
    seen: list[str] = []
    other = answering(lambda path: seen.append(path) or b'{"items": []}')
    katib = answering(b"{}", code, Location=f"{other.api.configuration.host}/elsewhere")
    with pytest.raises(ClusterError, match=f"the Kubernetes API answered {code} to list trials"):
        katib.trials(NAME)
    assert seen == []


def test_warnings_without_end_are_not_all_remembered(answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kondense.cluster.objects.MOST_WARNINGS", 5)
    numbers = itertools.count()

    def events(path: str) -> bytes:
        made = {
            "involvedObject": {"name": NAME, "kind": None},
            "message": f"failed {next(numbers)} times\x1b[2J",
            "metadata": {},
        }
        return json.dumps({"items": [made]}).encode()

    katib = answering(events)
    lines = [line for _ in range(9) for line in katib.warnings(NAME)]
    assert len(lines) == len(katib.warned) == 5 and all(line.isprintable() for line in lines)
