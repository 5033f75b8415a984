"""Katib through a real HTTP server that answers as the Kubernetes API does, faults included."""

import pytest
from kondense.cluster.errors import ClusterError
from kondense.cluster.names import RUN
from kondense.katib_search.cluster import Katib

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
