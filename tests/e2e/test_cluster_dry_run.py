"""The harness of ``make test-cluster`` against a fake cluster: every scenario passes, every fault is found and named.

The API server, Katib, Kubeflow Pipelines and Argo are played (tests/e2e/cluster_api says how far); kubectl, kfp's
client and the object store are real.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kondense.store.open import open_store
from kondense_pipelines.local.store import local_store

from tests.e2e.cluster import searches
from tests.e2e.cluster.__main__ import main
from tests.e2e.cluster.catalogue import SCENARIOS, Scenario
from tests.e2e.cluster.kubectl import Forward, Kubectl, stopped_at_end
from tests.e2e.cluster.session import Session
from tests.e2e.cluster_api.cluster import Cluster, run_cluster
from tests.support.publish_makers import make_publishable

IMAGES = ("--stage-image=registry.example.org/stage:9", "--suggestion-image=registry.example.org/suggestion:9")
QUICK = ("--poll=0.1", "--setup-timeout=300", "--run-timeout=300")
NEVER_S = 3.0  # is waited for what a fault keeps from happening


@pytest.fixture(scope="module")
def packages(quick_yaml: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled pipelines are kept for all tests here."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, digits16_dir: Path) -> Path:
    """A Model artifact."""
    return make_publishable(tmp_path_factory.mktemp("model"), digits16_dir).chosen_dir


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that reach a real S3 gateway, set in the environment too: the players write to it."""
    with (
        local_store(tmp_path_factory.mktemp("gateway"), dict(os.environ)) as variables,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables


@pytest.fixture
def cluster(
    tmp_path: Path, store: dict[str, str], model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """A cluster without anything of ours, which KUBECONFIG names."""
    with run_cluster(tmp_path, store, model_dir) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
        yield made
        assert made.world.errors == []


@dataclass(frozen=True)
class Outcome:
    """What the harness printed, and of every scenario whether it passed."""

    code: int
    text: str
    failed: set[str]
    passed: set[str]

    def part(self, scenario: str) -> str:
        """Return what was printed of a scenario that failed."""
        return self.text.partition(f"{scenario}: FAILED")[2].partition("scenario  ")[0]


@pytest.fixture
def run(cluster: Cluster, packages: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the harness with options."""

    def call(*options: str) -> Outcome:
        endpoints = (f"--kfp-endpoint={cluster.kfp_endpoint}", f"--s3-endpoint={cluster.s3_endpoint}")
        code = main([*QUICK, *IMAGES, *endpoints, f"--packages={packages}", *options])
        text = capsys.readouterr().out
        rows = [line.split()[:2] for line in text.rpartition("scenario  ")[2].splitlines()[1:]]
        failed = {row[0] for row in rows if row[1] == "FAILED"}
        return Outcome(code, text, failed, {row[0] for row in rows if row[1] == "passed"})

    return call


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a short time where a fault makes the harness wait in vain; all else has the time that it takes."""
    for name in ("running.FIRES_S", "disturbing.DELETED_S", "overlay.GONE_S"):
        monkeypatch.setattr(f"tests.e2e.cluster.{name}", NEVER_S)


def install(cluster: Cluster) -> None:
    """Let the cluster look as if the overlay were applied."""
    data = {"stage": IMAGES[0].partition("=")[2], "suggestion": IMAGES[1].partition("=")[2]}
    named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kondense-images"}}
    cluster.world.create("configmaps", {**named, "data": data})


def test_every_scenario_passes_and_nothing_is_left(cluster: Cluster, run: Callable[..., Outcome]) -> None:
    before = names(cluster)
    outcome = run("--storage-class=fast", "--pretend-gpus")
    assert outcome.passed == set(SCENARIOS), outcome.text
    assert outcome.code == 0
    assert names(cluster) == before
    assert not any(cluster.kfp.objects[kind] for kind in ("runs", "recurringruns", "versions", "pipelines"))
    for bucket in ("mlpipeline", "kondense"):
        assert open_store(f"minio://{bucket}").list() == []


def names(cluster: Cluster) -> set[tuple[str, str, str]]:
    """The kind, namespace and name of everything in the cluster but events."""
    return {key for key in cluster.world.objects.items if key[0] != "events"}


# Fault -> the scenario that must fail, and what its text must say.
RUN_FAULTS = {
    "compress-report-missing": ("compress", "the artifact html of the step report must be below minio://mlpipeline/"),
    "refresh-publishes-again": ("refresh", "the second run must publish nothing"),
    "never-fires": ("recurring", "to fire: not within"),
    "mean-stops-none": ("early-stopping", "the trials of 0.8, 0.9 must be stopped early, but [] were"),
    "no-failure-reason": ("failing-trials", "must be at minio://mlpipeline/kondense-e2e/"),
    "evicted-trials-fail": ("trial-evicted", "must survive the eviction of its pod, but is failed"),
    "evicted-step-deletes": ("step-evicted", "must be kept when its step is evicted, but was deleted"),
    "experiment-left": ("terminated", "of the terminated run to be deleted: not within"),
    "workflow-fails": ("argo", "must succeed, but ended as Failed"),
}
SET_UP = ("overlay", "register-twice", "uninstall")


@pytest.mark.usefixtures("impatient")
def test_each_fault_of_a_run_fails_its_scenario(cluster: Cluster, run: Callable[..., Outcome]) -> None:
    install(cluster)
    cluster.world.faults |= set(RUN_FAULTS)
    outcome = run(f"--skip=experiments,{','.join(SET_UP)}")
    assert outcome.code == 1
    assert outcome.failed == {scenario for scenario, _ in RUN_FAULTS.values()}
    assert outcome.passed == set(SCENARIOS) - outcome.failed - {"experiments", *SET_UP}
    for scenario, words in RUN_FAULTS.values():
        assert words in outcome.part(scenario), scenario
        assert "look: " in outcome.part(scenario), scenario


@pytest.mark.usefixtures("impatient")
def test_each_fault_of_the_installation_fails_its_scenario(cluster: Cluster, run: Callable[..., Outcome]) -> None:
    cluster.world.faults |= {"second-version", "object-left"}
    outcome = run(f"--only={','.join(SET_UP)}")
    assert (outcome.failed, outcome.passed) == ({"register-twice", "uninstall"}, {"overlay"})
    assert "registering again must make no version of compress, but made compress-fake-" in outcome.text
    assert "look: kubectl -n kubeflow logs job/kondense-register" in outcome.part("register-twice")
    assert "our objects to go (Service/left-behind): not within" in outcome.part("uninstall")


def test_a_failed_set_up_job_is_described(cluster: Cluster, run: Callable[..., Outcome]) -> None:
    cluster.world.faults.add("register-fails")
    before = names(cluster)
    outcome = run("--only=overlay")
    assert (outcome.code, outcome.failed) == (1, {"overlay"})
    text = outcome.part("overlay")
    assert "the set-up Job kondense-register failed" in text
    assert "look: kubectl -n kubeflow describe job/kondense-register" in text
    assert "job ended with: the fake lets this Job fail" in text  # the termination message
    assert "job | error: the fake lets this Job fail" in text  # the log
    assert "BackoffLimitExceeded" in text  # the event
    # What a failed scenario has made goes, too; Kubeflow Pipelines' Secret is kept.
    assert names(cluster) == before


def test_a_search_that_does_not_resume_is_found(cluster: Cluster, run: Callable[..., Outcome]) -> None:
    install(cluster)
    cluster.world.faults.add("nothing-resumes")
    outcome = run("--only=trial-evicted")
    assert outcome.failed == {"trial-evicted"}
    assert "must resume, but its log does not say so" in outcome.part("trial-evicted")


def test_an_interrupted_call_cleans_up(
    cluster: Cluster, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(session: Session) -> None:
        """Make something, then be interrupted."""
        plan = searches.small(session, searches.EXPERIMENTS / "decision-tree.yaml", "interrupted")
        searches.start(session, plan)
        raise KeyboardInterrupt

    install(cluster)
    before = names(cluster)
    monkeypatch.setitem(SCENARIOS, "recurring", Scenario(interrupted, ()))
    outcome = run("--only=recurring,argo")
    assert (outcome.code, outcome.failed, outcome.passed) == (1, {"interrupted"}, set())
    assert names(cluster) == before


def test_what_is_kept_is_told(cluster: Cluster, run: Callable[..., Outcome]) -> None:
    install(cluster)
    outcome = run("--only=recurring", "--keep")
    assert outcome.code == 0
    assert "kept: " in outcome.text and "cleaning up" not in outcome.text
    assert len(cluster.kfp.objects["versions"]) == 1


def test_a_port_forward_that_died_is_started_again(tmp_path: Path) -> None:
    """With a program that behaves as kubectl does; what it forwards to, only a cluster can show."""
    program = tmp_path / "kubectl"
    lines = ("#!/bin/sh", 'echo "$@" >> "$0.calls"', "echo 'Forwarding from 127.0.0.1:4711 -> 8888'", "exec sleep 60")
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    kubectl = Kubectl("kubeflow", tmp_path / "cache")
    kubectl.program = str(program)
    forward = Forward(kubectl, "service/ml-pipeline", 8888)
    with stopped_at_end([forward]):
        assert forward.address() == forward.address() == "127.0.0.1:4711"
        forward.stop()
        assert forward.address() == "127.0.0.1:4711"
    calls = (tmp_path / "kubectl.calls").read_text().splitlines()
    forwarded = "--namespace=kubeflow port-forward service/ml-pipeline"
    assert calls == [f"{forwarded} :8888", f"{forwarded} 4711:8888"]  # the second time on the same port


def test_an_overlay_of_the_user_is_not_uninstalled(
    cluster: Cluster, run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    install(cluster)
    before = names(cluster)
    endpoint = f"--kfp-endpoint={cluster.kfp_endpoint}"
    assert main([endpoint]) == 2
    assert "give --uninstall to have it taken away at the end, or --skip uninstall" in capsys.readouterr().err
    assert names(cluster) == before


def test_an_unknown_scenario_is_an_error_that_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only=overlays"])
    assert "--only knows overlay, register-twice, " in capsys.readouterr().err


def test_the_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SCENARIOS)
    readme = (Path(__file__).parent / "cluster" / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in SCENARIOS)


def test_a_script_complains_of_faults_and_not_of_a_slow_api_server(tmp_path: Path) -> None:
    """kubectl tells on standard error, too, that it has waited; a fault begins otherwise."""
    kubectl = Kubectl("kubeflow", tmp_path)
    waited = 'I1130 16:09:22.345526   31483 request.go:754] "Waited before sending request" delay="4.6s"'
    fault = "E1130 16:09:22.345526   31483 memcache.go:265] no server API group list"
    text = f"echo '{waited}' >&2; echo '{fault}' >&2; echo 'Error from server' >&2; echo fine"
    assert kubectl.script(text, tmp_path) == [fault, "Error from server"]
