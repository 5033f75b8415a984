"""The harness of ``make test-cluster`` against a fake cluster: every scenario passes, every fault is found and named.

The API server, Katib, Kubeflow Pipelines and Argo are played (tests/e2e/cluster_api says how far); kubectl, kfp's
client and the object store are real.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.local_store import local_store
from tests.e2e.cluster.__main__ import main
from tests.e2e.cluster.catalogue import SCENARIOS
from tests.e2e.cluster_api.cluster import Cluster, run_cluster
from tests.publish_makers import make_publishable

IMAGES = ("--stage-image=registry.example.org/stage:9", "--suggestion-image=registry.example.org/suggestion:9")
QUICK = ("--poll=0.02", "--setup-timeout=20", "--run-timeout=20")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def run(cluster: Cluster, packages: Path, *options: str) -> int:
    endpoints = (f"--kfp-endpoint={cluster.kfp_endpoint}", f"--s3-endpoint={cluster.s3_endpoint}")
    return main([*QUICK, *IMAGES, *endpoints, f"--packages={packages}", *options])


def test_every_scenario_passes(cluster: Cluster, packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(cluster, packages, "--storage-class=fast", "--pretend-gpus")
    output = capsys.readouterr().out
    assert code == 0, output
    rows = dict(line.split()[:2] for line in output.splitlines()[-len(SCENARIOS) :])
    assert rows == dict.fromkeys(SCENARIOS, "passed")
