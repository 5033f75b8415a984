"""What SIGTERM means is read off the step's own pod and the Workflow of its run."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from kondense.cluster.pod import Pod, cleaned_up_on_sigterm, pod_name

from tests.support.fake_kubernetes import Server

pytestmark = pytest.mark.usefixtures("log_on_stdout")

OWNER = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "search-x1", "uid": "uid-of-the-run"}


def put_pod(cluster: Server, *conditions: str, owner: dict[str, Any] | None = OWNER, status: str = "True") -> Pod:
    cluster.pods["kubeflow", "step"] = {
        "metadata": {"name": "step", "ownerReferences": [owner] if owner else []},
        "status": {"conditions": [{"type": each, "status": status} for each in ("Ready", *conditions)]},
    }
    return Pod(cluster.api(), "kubeflow", "step")


def put_run(cluster: Server, **spec: Any) -> None:
    cluster.workflows["kubeflow", "search-x1"] = {"metadata": {"name": "search-x1"}, "spec": spec}


def terminated(cluster: Server) -> Pod:
    put_run(cluster, activeDeadlineSeconds=0)
    return put_pod(cluster)


def stopped_by_argo(cluster: Server) -> Pod:
    put_run(cluster, shutdown="Terminate")
    return put_pod(cluster)


def deleted_run(cluster: Server) -> Pod:
    return put_pod(cluster)


def evicted_no_more(cluster: Server) -> Pod:
    put_run(cluster, activeDeadlineSeconds=0)
    return put_pod(cluster, "DisruptionTarget", status="False")


def outside(cluster: Server) -> Pod:
    return Pod(cluster.api(), "kubeflow", "")


def evicted(cluster: Server) -> Pod:
    put_run(cluster)
    return put_pod(cluster, "DisruptionTarget")


def evicted_as_the_run_ends(cluster: Server) -> Pod:
    put_run(cluster, activeDeadlineSeconds=0)
    return put_pod(cluster, "DisruptionTarget")  # it then goes with its owner, the run's Workflow


def deleted_pod(cluster: Server) -> Pod:
    put_run(cluster, activeDeadlineSeconds=3600)
    return put_pod(cluster)


def without_a_run(cluster: Server) -> Pod:
    return put_pod(cluster, owner=None)


def unreadable(cluster: Server) -> Pod:
    return Pod(cluster.api(), "kubeflow", "gone")


ENDED = (terminated, stopped_by_argo, deleted_run, evicted_no_more, outside)
KEPT = (evicted, evicted_as_the_run_ends, deleted_pod, without_a_run, unreadable)


@pytest.mark.parametrize(("case", "ended"), [(each, True) for each in ENDED] + [(each, False) for each in KEPT])
def test_only_a_run_that_ended_takes_its_experiment_along(
    case: Callable[[Server], Pod], ended: bool, cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    pod, deleted = case(cluster), []

    def delete() -> bool:
        deleted.append("it")
        return True

    with pytest.raises(SystemExit) as status, cleaned_up_on_sigterm(pod, delete, "bohb-1"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert status.value.code == 143
    assert bool(deleted) == ended
    assert ("is deleted" if ended else "is kept for the next attempt") in capsys.readouterr().out


def test_an_api_that_does_not_answer_keeps_the_experiment(cluster: Server) -> None:
    pod = terminated(cluster)
    cluster.faults.extend([None, None, None])  # closes the connection
    assert not pod.run_has_ended()


def test_the_run_s_workflow_is_the_owner(cluster: Server) -> None:
    assert put_pod(cluster).owner() == OWNER
    assert without_a_run(cluster).owner() is None
    assert outside(cluster).owner() is None


def test_the_pod_s_name() -> None:
    assert pod_name({"HOSTNAME": "laptop"}) == ""
    assert pod_name({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "host"}) == "host"
    assert pod_name({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "host", "KFP_POD_NAME": "step"}) == "step"
