"""A cluster with Kubeflow Trainer that is none."""

from collections.abc import Iterator

import pytest

from tests.support.fake_kubernetes import fake_kubernetes
from tests.support.fake_trainer import Trainer


@pytest.fixture
def cluster() -> Iterator[Trainer]:
    """An API server with Kubeflow Trainer."""
    with fake_kubernetes(Trainer) as server:
        yield server
