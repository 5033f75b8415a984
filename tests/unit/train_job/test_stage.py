"""The train_job step from creation to the model, against an API server and a store that are real ones."""

import functools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import Model, save_model
from kondense.cluster.errors import ClusterError
from kondense.errors import InputError
from kondense.files import ArtifactError
from kondense.networks.build import NetworkSpec, build
from kondense.store.local import LocalStore
from kondense.store.store import StoreError
from kondense.train.config import TrainConfig
from kondense.train_job.config import TrainJobConfig
from kondense.train_job.job import TrainJobError
from kondense.train_job.stage import TrainJobs, run

from tests.support.fake_kubernetes import make_event, status
from tests.support.fake_trainer import Trainer, denied

pytestmark = pytest.mark.usefixtures("log_on_stdout")

RUN = "1234abcd-0000-4000-8000-000000000000"
NAME = "kondense-train-1234abcd00004000"
METRICS = {"validation_accuracy": 0.9, "parameters": 7.0, "train_loss": 0.25}
Look = Callable[[dict[str, Any]], None]


def state(kind: str = "", message: str = "", **counts: int) -> dict[str, Any]:
    """Return the status of a TrainJob as its controller writes it."""
    counters = {"ready": 0, "succeeded": 0, "failed": 0, "active": 0, "suspended": 0} | counts
    found: dict[str, Any] = {"jobsStatus": [{"name": "node", **counters}]}
    if kind:
        found["conditions"] = [{"type": kind, "status": "True", "reason": f"{kind}Reason", "message": message}]
    return found


class Step:
    """The step's surroundings and its call."""

    def __init__(self, cluster: Trainer, directory: Path) -> None:
        self.cluster, self.directory = cluster, directory
        self.store = LocalStore(directory / "store")
        (directory / "dataset_dir").mkdir()
        (directory / "dataset_dir" / "dataset.json").write_text('{"format_version": 1}')

    def __call__(self, **changes: Any) -> dict[str, float]:
        given = {"store_uri": str(self.store.root), "run_id": RUN, "poll_seconds": 0.01, "namespace": "kubeflow"}
        paths = {name: self.directory / name for name in ("dataset_dir", "model_dir")}
        return run(TrainJobConfig(**given | changes), **paths)

    def plays(self, *states: dict[str, Any] | None) -> None:
        """Let the TrainJob go through states, one a look; None: it is deleted by someone else."""
        left = list(states)

        def look(job: dict[str, Any]) -> None:
            found = left.pop(0) if len(left) > 1 else left[0]
            if found is None:
                job["metadata"]["deletionTimestamp"] = "2026-11-24T04:00:00Z"
            else:
                job["status"] = found

        self.cluster.on_look = look

    def keep_model(self) -> None:
        """Leave the model as the first node does."""
        spec = NetworkSpec("lenet5", {"classes": 2, "channels": 1, "image_size": 16, "width": 0.25})
        record = stage_record("train", TrainConfig(), inputs={}, metrics=METRICS, summary="train lenet5", curves=[])
        save_model(self.directory / "made", Model(build(spec, seed=0), spec, lineage=(record,)))
        self.store.upload_directory(f"models/{NAME}", self.directory / "made")


@pytest.fixture
def step(cluster: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Step:
    monkeypatch.setattr("kondense.train_job.stage.connect_to_cluster", cluster.api)
    monkeypatch.setattr("kondense.train_job.stage.TrainJobs", functools.partial(TrainJobs, pauses_s=(0.01,) * 4))
    return Step(cluster, tmp_path)


def test_the_model_of_the_first_node_is_handed_on(step: Step, cluster: Trainer, capsys: pytest.CaptureFixture) -> None:
    step.keep_model()
    cluster.output = "training in 4 processes on 2 nodes\nepoch 1/2 train_loss=0.5\nhalf a li"
    step.plays(state(active=1), state(active=1, ready=1), state(active=1, ready=1), state("Complete", succeeded=1))
    assert step(gpus=2) == METRICS
    made = (step.directory / "made" / "weights.safetensors").read_bytes()
    assert (step.directory / "model_dir" / "weights.safetensors").read_bytes() == made
    log = capsys.readouterr().out
    assert f"TrainJob {NAME} in kubeflow: 2 nodes with 2 processes each" in log
    assert log.count("node 0: epoch 1/2 train_loss=0.5") == 1
    assert "half a li" not in log
    assert log.count("jobs of 2 nodes: 1 active, 1 ready") == 1
    (job,) = cluster.jobs.values()  # it stays, with the logs of its pods
    assert job["spec"]["trainer"]["numProcPerNode"] == 2
    assert json.loads(step.store.read(f"jobs/{NAME}.json"))["spec"] == job["spec"]


def test_a_restarted_container_s_output_is_logged_from_its_beginning(
    step: Step, cluster: Trainer, capsys: pytest.CaptureFixture
) -> None:
    step.keep_model()
    cluster.output = "first\n"
    looks = [0]

    def look(job: dict[str, Any]) -> None:
        looks[0] += 1
        if looks[0] == 3:
            cluster.output, cluster.restarts = "second\n", 1
        job["status"] = state("Complete") if looks[0] > 4 else state(active=1, ready=1)

    cluster.on_look = look
    step()
    log = capsys.readouterr().out
    assert (log.count("node 0: first"), log.count("node 0: second")) == (1, 1)


def test_the_next_attempt_of_a_step_goes_on_with_its_train_job(
    step: Step, cluster: Trainer, capsys: pytest.CaptureFixture
) -> None:
    step.keep_model()
    step.plays(state(active=1, ready=1), None)
    with pytest.raises(TrainJobError):
        step()
    (job,) = cluster.jobs.values()
    del job["metadata"]["deletionTimestamp"]
    uid = job["metadata"]["uid"]
    step.plays(state(active=1, ready=1), state("Complete", succeeded=1))
    assert step() == METRICS
    assert cluster.jobs["kubeflow", NAME]["metadata"]["uid"] == uid
    assert f"TrainJob {NAME} exists: continuing it" in capsys.readouterr().out


def test_one_that_failed_is_made_anew_by_the_next_attempt(step: Step, cluster: Trainer) -> None:
    step.plays(state("Failed", "jobset failed"))
    with pytest.raises(TrainJobError):
        step()
    uid = cluster.jobs["kubeflow", NAME]["metadata"]["uid"]
    step.keep_model()

    def look(job: dict[str, Any]) -> None:
        if job["metadata"]["uid"] != uid:
            job["status"] = state("Complete")

    cluster.on_look = look
    assert step() == METRICS
    assert cluster.jobs["kubeflow", NAME]["metadata"]["uid"] != uid


def test_a_train_job_of_another_run_is_left_alone(step: Step, cluster: Trainer) -> None:
    cluster.jobs["kubeflow", NAME] = {"metadata": {"name": NAME, "annotations": {"kondense/run": "other"}}}
    with pytest.raises(ClusterError, match=f"^TrainJob {NAME} in kubeflow belongs to run other, not to run {RUN}"):
        step()
    assert cluster.jobs


def test_without_trainer_the_next_step_is_told(step: Step, cluster: Trainer) -> None:
    cluster.installed = False
    with pytest.raises(
        ClusterError,
        match=r"^Kubeflow Trainer must be installed \(2\.3: kubectl apply --server-side -k '.*/manager\?ref=v2\.3\.0',"
        r" then '.*'\), but the cluster knows no trainer\.kubeflow\.org/v1alpha1 trainjobs\.",
    ):
        step()


QUOTA = 'trainjobs "x" is forbidden: exceeded quota: team, requested: count/trainjobs=1, used: 2, limited: 2'
NO_RUNTIME = 'spec.runtimeRef: Invalid value: {"name":"mine"}: ClusterTrainingRuntime "mine" not found'
MAY_NOT = "may not create trainjobs in namespace kubeflow: kubectl apply -k manifests/rbac grants it"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            (403, status(403, "Forbidden", QUOTA)),
            r"^quota exceeded in namespace kubeflow: .*used: 2, limited: 2; raise the ResourceQuota of the namespace,"
            r" or lower nodes, gpus, cpu or memory\.$",
        ),
        (
            (403, denied(NO_RUNTIME)),
            r'^Kubeflow Trainer rejects the TrainJob: .*denied the request: .*"mine" not found$',
        ),
        (
            (403, status(403, "Forbidden", 'User "x" cannot create resource "trainjobs"')),
            f"^this step's service account {MAY_NOT}",
        ),
    ],
)
def test_a_refusal_is_one_line(step: Step, cluster: Trainer, answer: tuple[int, Any], line: str) -> None:
    cluster.faults.append(("POST", *answer))
    with pytest.raises(ClusterError, match=line):
        step()
    assert not cluster.jobs


def test_one_that_is_deleted_by_someone_else_ends_the_step(step: Step, cluster: Trainer) -> None:
    gone: Look = lambda job: cluster.jobs.clear() if job.get("status") else job.update(status=state(active=1))  # noqa: E731
    cluster.on_look = gone
    with pytest.raises(
        TrainJobError,
        match=f"^TrainJob {NAME} was deleted during the training; run the step again: it goes on from the latest",
    ):
        step()


def test_a_failure_is_told_with_the_node_s_reason(step: Step, cluster: Trainer, capsys: pytest.CaptureFixture) -> None:
    def look(job: dict[str, Any]) -> None:
        failing = "status" in job
        step.store.write(f"failures/{NAME}.txt", b"training diverged.\n")
        job["status"] = state("Failed", "jobset failed due to one or more job failures") if failing else state(active=1)

    cluster.on_look = look
    with pytest.raises(
        TrainJobError,
        match=rf"^TrainJob {NAME} failed \(jobset failed due to one or more job failures\): training diverged\. Its"
        rf" logs: kubectl -n kubeflow logs -l jobset\.sigs\.k8s\.io/jobset-name={NAME}$",
    ):
        step()
    assert "a node failed: training diverged" in capsys.readouterr().out


def test_nodes_that_do_not_start_end_the_step_with_kubernetes_reason(step: Step, cluster: Trainer) -> None:
    message = (
        'Error creating: pods "x" is forbidden: exceeded quota: team, requested: cpu=8, used: cpu=4, limited: cpu=8'
    )
    cluster.events.append(make_event("Job", f"{NAME}-node-0", "FailedCreate", message))
    step.plays(state(active=1))
    with pytest.raises(
        TrainJobError,
        match=rf"^not all 2 nodes started within 0\.001 minutes, so TrainJob {NAME} was deleted: .*limited: cpu=8;"
        " raise the ResourceQuota",
    ):
        step(patience_minutes=0.001)
    assert not cluster.jobs


def test_a_queue_is_no_reason_to_give_up(step: Step, cluster: Trainer, capsys: pytest.CaptureFixture) -> None:
    step.keep_model()
    step.plays(*[state("Suspended", "waits for Kueue")] * 12, state("Complete"))
    assert step(patience_minutes=0.001) == METRICS
    assert capsys.readouterr().out.count("suspended: waits for Kueue") == 1


def test_a_complete_train_job_without_a_model_is_told(step: Step, cluster: Trainer) -> None:
    step.plays(state("Complete"))
    with pytest.raises(
        TrainJobError, match=r"is complete, but has no model at .*does the Secret 'mlpipeline-minio-art"
    ):
        step()


def test_what_is_missing_is_told_before_anything_starts(step: Step, cluster: Trainer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run_id must be"):
        step(run_id="")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="nodes could not keep the model"):
        step(store_uri=str(tmp_path / "file" / "store"))
    (step.directory / "dataset_dir" / "dataset.json").unlink()
    with pytest.raises(ArtifactError, match=r"dataset_dir must hold a file dataset\.json"):
        step()
    assert not cluster.jobs


def test_sigterm_deletes_the_train_job(step: Step, cluster: Trainer, capsys: pytest.CaptureFixture) -> None:
    cluster.on_look = lambda job: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        step()
    assert ended.value.code == 143
    assert not cluster.jobs
    assert f"SIGTERM: TrainJob {NAME} is deleted" in capsys.readouterr().out


def test_the_run_s_workflow_owns_the_train_job_and_the_step_s_image_is_the_nodes(
    step: Step, cluster: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "u"}
    containers = [{"name": "wait", "image": "argo:4"}, {"name": "main", "image": "team/stage:7"}]
    pod = {"metadata": {"name": "step", "ownerReferences": [owner]}, "spec": {"containers": containers}, "status": {}}
    cluster.pods["kubeflow", "step"] = pod
    monkeypatch.setattr("kondense.train_job.stage.pod_name", lambda: "step")
    step.keep_model()
    step.plays(state("Complete"))
    step()
    job = cluster.jobs["kubeflow", NAME]
    assert job["metadata"]["ownerReferences"] == [owner]
    assert job["spec"]["trainer"]["image"] == "team/stage:7"
