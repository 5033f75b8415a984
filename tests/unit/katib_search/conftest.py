"""The Experiments of the repository, and a cluster that is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_kubernetes import Server, fake_kubernetes

EXPERIMENTS = Path(__file__).parents[3] / "manifests" / "experiments"


@pytest.fixture(scope="session")
def bohb() -> str:
    """The text of manifests/experiments/bohb.yaml."""
    return (EXPERIMENTS / "bohb.yaml").read_text()


@pytest.fixture(scope="session")
def random_search() -> str:
    """The text of manifests/experiments/random.yaml."""
    return (EXPERIMENTS / "random.yaml").read_text()


@pytest.fixture
def cluster() -> Iterator[Server]:
    """An API server with Katib and the labelled namespace kubeflow."""
    with fake_kubernetes() as server:
        yield server
