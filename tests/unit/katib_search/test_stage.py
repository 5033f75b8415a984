"""The tune step from creation to the best trial's model, against an API server and a store that are real ones."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from kondense.cluster.errors import ClusterError
from kondense.files import ArtifactError
from kondense.katib_search.cluster import Katib
from kondense.katib_search.config import KatibSearchConfig
from kondense.katib_search.errors import SearchError
from kondense.katib_search.stage import run
from kondense.store.local import LocalStore
from kondense.store.store import StoreError

from tests.support.fake_kubernetes import Server, make_event, make_trial, status

pytestmark = pytest.mark.usefixtures("log_on_stdout")

RUN = "1234abcd-0000-4000-8000-000000000000"
NAME = "kondense-bohb-1234abcd00004000"
ROOT = Path(__file__).parents[3]
VALUES = {"lr": "0.1", "momentum": "0.8", "weight_decay": "0.001", "batch_size": "64", "schedule": "constant"}


def keep_dataset(directory: Path) -> None:
    """Put what the step looks for of its data set; the trials read the rest."""
    directory.mkdir(exist_ok=True)
    (directory / "dataset.json").write_text('{"format_version": 1}')


class Step:
    """The step's surroundings and its call."""

    def __init__(self, cluster: Server, directory: Path, text: str) -> None:
        self.cluster = cluster
        self.directory = directory
        self.text = text
        self.store = LocalStore(directory / "store")
        keep_dataset(directory / "dataset_dir")

    def config(self, **changes) -> KatibSearchConfig:
        given = {"store_uri": str(self.store.root), "run_id": RUN, "poll_seconds": 0.01, "namespace": "kubeflow"}
        return KatibSearchConfig(experiment=self.text, **given | changes)

    def __call__(self, **changes) -> dict[str, float]:
        paths = {name: self.directory / name for name in ("dataset_dir", "model_dir", "search_dir")}
        return run(self.config(**changes), **paths)

    def trial(
        self, name: str, epochs: int, value: str | None, condition: str = "Succeeded", size: str = "100", **more
    ) -> None:
        """Let a trial be there, with its model if it has a value."""
        metrics = {"validation_accuracy": value, "size_bytes": size, "latency_ms": "nan"} if value is not None else {}
        assignments = {**VALUES, "augment": "crop", "epochs": str(epochs)}
        self.cluster.trials.append(make_trial(NAME, name, assignments, condition, metrics, **more))
        if value is not None:
            made = self.directory / "made"
            made.mkdir(exist_ok=True)
            (made / "model.json").write_text(name)
            self.store.upload_directory(f"trials/{name}", made)


@pytest.fixture
def step(cluster: Server, tmp_path: Path, bohb: str, monkeypatch: pytest.MonkeyPatch) -> Step:
    monkeypatch.setattr("kondense.katib_search.stage.connect_to_cluster", cluster.api)
    monkeypatch.setattr("kondense.katib_search.stage.Katib", functools.partial(Katib, pauses_s=(0.01,) * 4))
    return Step(cluster, tmp_path, bohb)


def finish_after(cluster: Server, looks: int, **how: str) -> None:
    left = [looks]

    def look(experiment: dict) -> None:
        left[0] -= 1
        if left[0] == 0:
            cluster.finish(**how)

    cluster.on_look = look


def test_the_best_trial_at_the_maximum_is_handed_on(step: Step, cluster: Server, capsys: pytest.CaptureFixture) -> None:
    step.trial("low", 1, "0.99")
    step.trial("good", 9, "0.9")
    step.trial("better", 9, "0.95")
    step.trial("lost", 9, None, "Failed", message="no GPU memory")
    finish_after(cluster, 3)
    found = step()
    assert found == {"trials": 4.0, "trials_without_result": 1.0, "validation_accuracy": 0.95, "size_bytes": 100.0}
    assert (step.directory / "model_dir" / "model.json").read_text() == "better"
    best = json.loads((step.directory / "search_dir" / "best.json").read_text())
    used = [best["config"][f"train.{name}"] for name in ("learning_rate", "batch_size")]
    assert (best["trial"], used) == ("better", [0.1, 64])
    results = json.loads((step.directory / "search_dir" / "results.json").read_text())
    assert results["best"]["name"] == "better" and len(results["trials"]) == 4
    assert "better" in (step.directory / "search_dir" / "report.html").read_text()
    log = capsys.readouterr().out
    assert "4/80 trials, 1 failed, best validation_accuracy=0.95 at 9 epochs" in log
    assert "lost failed in 30.0 s (no GPU memory)" in log
    assert log.count("low succeeded") == 1
    assert cluster.experiments  # it stays for Katib's UI
    address = f"http://localhost:8081/katib/experiment/kubeflow/{NAME} after kubectl -n kubeflow port-forward"
    assert address in log and results["page"].startswith(address)
    assert results["run"] == RUN


def test_the_step_gives_the_address_of_katibs_page(step: Step, cluster: Server, capsys: pytest.CaptureFixture) -> None:
    step.trial("a", 9, "0.9")
    finish_after(cluster, 1)
    step(ui="https://kubeflow.example/_/")
    address = f"https://kubeflow.example/_/katib/experiment/kubeflow/{NAME}"
    assert f"experiment {NAME} in kubeflow: {address}\n" in capsys.readouterr().out
    assert address in (step.directory / "search_dir" / "report.html").read_text()


def test_a_data_set_that_is_gone_is_told_before_anything_starts(step: Step, cluster: Server) -> None:
    (step.directory / "dataset_dir" / "dataset.json").unlink()
    with pytest.raises(ArtifactError, match="dataset_dir must hold a file dataset.json"):
        step()
    assert not cluster.experiments


def test_an_attempt_after_a_kill_goes_on_with_the_experiment(step: Step, cluster: Server) -> None:
    step.trial("a", 9, "0.9")
    finish_after(cluster, 1)
    step()
    before = len(cluster.requests)
    step()
    assert ("POST", "/apis/kubeflow.org/v1beta1/namespaces/kubeflow/experiments") in cluster.requests[before:]
    assert len(cluster.experiments) == 1


def test_faults_on_the_way_do_not_matter(step: Step, cluster: Server) -> None:
    step.trial("a", 9, "0.9")
    faults = (status(503, "Down", "not ready"), status(500, "InternalError", "etcd"), status(401, "Unauthorized", "x"))
    cluster.faults.extend(("GET", fault["code"], fault) for fault in faults)
    finish_after(cluster, 2)
    assert step()["trials"] == 1.0
    assert not cluster.faults


def test_a_search_that_failed_says_why_and_leaves_its_page(step: Step, cluster: Server) -> None:
    step.trial("a", 9, None, "Failed", message="Job has reached the specified backoff limit", at=1e9)
    step.trial("b", 9, None, "Failed", message="later", at=2e9)
    finish_after(cluster, 1, condition="Failed", message="Experiment has failed because max failed trials is reached")
    expected = "no trial at epochs=9 has a validation_accuracy; 2 of 2 trials failed .*; the first, a: Job has reached"
    with pytest.raises(SearchError, match=expected) as caught:
        step()
    assert "\n" not in str(caught.value)
    assert (step.directory / "search_dir" / "report.html").is_file()
    assert not (step.directory / "model_dir").exists()


def test_trials_without_metrics_point_to_the_namespaces_label(step: Step, cluster: Server) -> None:
    step.trial("a", 9, None, "MetricsUnavailable", message="Metrics are not available")
    finish_after(cluster, 1, condition="Failed")
    with pytest.raises(SearchError, match="1 trials ended without metrics: namespace kubeflow must have Katib's label"):
        step()


def test_an_unlabelled_namespace_is_told_before_anything_starts(step: Step, cluster: Server) -> None:
    cluster.namespaces["kubeflow"] = {}
    with pytest.raises(ClusterError, match="kubectl label namespace kubeflow"):
        step()
    assert not cluster.experiments


def test_no_trial_in_time_says_what_the_suggestion_says(step: Step, cluster: Server) -> None:
    failed = {"type": "Failed", "status": "True", "message": "validation failed: eta must be at least 2"}
    cluster.suggestions[NAME] = {"status": {"conditions": [failed]}}
    with pytest.raises(
        SearchError, match="no trial started within 0.001 minutes, .* deleted: validation failed: eta must"
    ):
        step(patience_minutes=0.001)
    assert not cluster.experiments


def test_warnings_of_kubernetes_are_told_once(step: Step, cluster: Server, capsys: pytest.CaptureFixture) -> None:
    step.trial("a", 9, "0.9")
    event = make_event("Pod", f"{NAME}-b0r0c0-x", "FailedScheduling", "0/3 nodes: 3 Insufficient nvidia.com/gpu.")
    cluster.events = [event]
    finish_after(cluster, 80)
    step()
    log = capsys.readouterr().out
    assert log.count("Insufficient nvidia.com/gpu; add nodes, lower gpus") == 1


def test_an_experiment_belongs_to_its_run_until_the_search_has_ended(
    step: Step, cluster: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kondense.katib_search.stage.pod_name", lambda: "step")
    monkeypatch.setenv("NAMESPACE", "kubeflow")
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "search-x1", "uid": "1"}
    cluster.pods["kubeflow", "step"] = {"metadata": {"name": "step", "ownerReferences": [owner]}}
    step.trial("a", 9, "0.9")
    owners = []

    def look(experiment: dict) -> None:
        owners.append(experiment["metadata"].get("ownerReferences"))
        if len(owners) == 3:
            cluster.finish()

    cluster.on_look = look
    step()
    assert owners == [[owner]] * 3
    assert cluster.only_experiment()["metadata"]["ownerReferences"] is None
    monkeypatch.setenv("NAMESPACE", "elsewhere")  # where it could not be its owner
    cluster.experiments.clear()
    owners.clear()
    step()
    assert owners == [None] * 3


def test_a_failed_trial_s_own_reason_is_told(step: Step, cluster: Server, capsys: pytest.CaptureFixture) -> None:
    step.trial("a", 9, "0.9")
    step.trial("b", 9, None, "Failed", message="Job has reached the specified backoff limit")
    step.trial("c", 9, None, "Failed", message="exit code 137")
    step.store.write("failures/b.txt", b"the loss must stay finite, but got nan in epoch 1\n")
    finish_after(cluster, 2)
    step()
    log = capsys.readouterr().out
    assert "b failed in 30.0 s (the loss must stay finite, but got nan in epoch 1)" in log
    assert "c failed in 30.0 s (exit code 137)" in log
    results = json.loads((step.directory / "search_dir" / "results.json").read_text())
    assert [each["reason"] for each in results["trials"] if each["name"] == "b"][0].startswith("the loss")


def test_an_experiment_that_somebody_deletes(step: Step, cluster: Server) -> None:
    cluster.on_look = lambda experiment: cluster.experiments.clear()
    with pytest.raises(SearchError, match="was deleted during the search"):
        step()


def test_a_best_trial_without_a_model(step: Step, cluster: Server) -> None:
    step.trial("a", 9, "0.9")
    step.store.delete("trials/a/manifest.json")
    finish_after(cluster, 1)
    with pytest.raises(SearchError, match="trial a stored no model at .*: do its STORE_URI and MINIO_ENDPOINT name"):
        step()


def test_a_missing_secret_is_told_before_anything_starts(
    step: Step, cluster: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match="mlpipeline-minio-artifact"):
        step(store_uri="minio://kondense/trials")
    assert not cluster.experiments


class Bucketless(BaseHTTPRequestHandler):
    """An object store without the bucket, whose account may not make one."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket_only = "/" not in self.path.split("?")[0].strip("/")
        code, name = (403, "AccessDenied") if bucket_only else (404, "NoSuchBucket")
        text = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>no</Message></Error>".encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("there", "message"),
    [(True, "was refused .AccessDenied.*manifests/buckets"), (False, "cannot be reached .*check MINIO_ENDPOINT")],
)
def test_an_absent_bucket_or_endpoint_is_told_before_anything_starts(
    step: Step, cluster: Server, monkeypatch: pytest.MonkeyPatch, there: bool, message: str
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Bucketless) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port = server.server_port if there else 1
        access = {"MINIO_ACCESS_KEY": "k" * 8, "MINIO_SECRET_KEY": "s" * 8, "MINIO_REGION": "here"}
        for name, value in {"MINIO_ENDPOINT": f"127.0.0.1:{port}", "MINIO_SECURE": "false", **access}.items():
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as impatient, pytest.raises(StoreError, match=message) as caught:
            impatient.setattr("kondense.store.connection.time.sleep", lambda seconds: None)
            step(store_uri="minio://kondense/search")
        server.shutdown()
    assert "\n" not in str(caught.value)
    assert not cluster.experiments


def test_without_a_cluster_the_local_way_is_named(tmp_path: Path, bohb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    config = KatibSearchConfig(experiment=bohb, run_id=RUN, store_uri=str(tmp_path / "store"))
    keep_dataset(tmp_path)
    with pytest.raises(ClusterError, match="kondense search FILE runs the same Experiment"):
        run(config, dataset_dir=tmp_path, model_dir=tmp_path / "model", search_dir=tmp_path / "search")


@pytest.mark.parametrize("owner", ["ours", "another"])
def test_sigterm_deletes_the_experiment_and_ends_with_143(
    cluster: Server, tmp_path: Path, bohb: str, owner: str
) -> None:
    keep_dataset(tmp_path / "dataset-dir")
    flags = {"run-id": RUN, "store-uri": str(tmp_path / "store"), "poll-seconds": "0.2", "namespace": "kubeflow"}
    flags |= {name: str(tmp_path / name) for name in ("dataset-dir", "model-dir", "search-dir")}
    command = [sys.executable, "-m", "kondense.cli", "katib_search", f"--experiment={bohb}"]
    process = subprocess.Popen(
        [*command, *(f"--{name}={value}" for name, value in flags.items())],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": str(cluster.write_kubeconfig(tmp_path / "kubeconfig"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not cluster.experiments or cluster.requests[-1][0] != "GET":
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    if owner == "another":
        cluster.only_experiment()["metadata"]["annotations"] = {}
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert bool(cluster.experiments) == (owner == "another")
    assert ("is deleted" in output) == (owner == "ours")
    assert "Traceback" not in output


def test_the_step_picks_from_the_front(step: Step, cluster: Server, capsys: pytest.CaptureFixture) -> None:
    document = yaml.safe_load(step.text)
    settings = document["spec"]["algorithm"]["algorithmSettings"]
    settings.append({"name": "objectives", "value": "minimize size_bytes"})
    step.text = yaml.safe_dump(document)
    for name, value, size in (("large", "0.95", "900"), ("small", "0.91", "300"), ("worse", "0.90", "500")):
        step.trial(name, 9, value, size=size)
    finish_after(cluster, 3)
    found = step(pick="validation_accuracy >= 0.9, min size_bytes")
    assert (found["validation_accuracy"], found["size_bytes"]) == (0.91, 300)
    assert (step.directory / "model_dir" / "model.json").read_text() == "small"
    results = json.loads((step.directory / "search_dir" / "results.json").read_text())
    assert (results["front"], results["best"]["name"]) == (["large", "small"], "small")
    assert "front: large succeeded validation_accuracy=0.95 size_bytes=900" in capsys.readouterr().out


def test_a_rule_that_no_trial_meets_takes_the_nearest(
    step: Step, cluster: Server, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(ValueError, match="pick must name metrics that trials report"):
        step(pick="min bytes")
    assert not cluster.experiments
    step.trial("a", 9, "0.8")
    step.trial("b", 9, "0.7")
    finish_after(cluster, 3)
    assert step(pick="validation_accuracy >= 0.9")["validation_accuracy"] == 0.8
    assert "no trial meets 'validation_accuracy >= 0.9'; the best is the nearest" in capsys.readouterr().out
