"""Fixtures of the integration tests: a real S3 gateway, or the server that MINIO_ENDPOINT names."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kondense_pipelines.local.store import local_store


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that reach the object store of this test session."""
    with local_store(tmp_path_factory.mktemp("gateway"), dict(os.environ)) as variables:
        yield variables


@pytest.fixture
def minio_environment(gateway: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same variables, set in this process's environment during the test."""
    for name, value in gateway.items():
        monkeypatch.setenv(name, value)
    return gateway


@pytest.fixture
def bucket_uri(minio_environment: dict[str, str]) -> str:
    """The URI of an empty place in a bucket, for ``open_store`` and for stages."""
    return f"minio://kondense-tests/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def own_gateway_dir(tmp_path: Path) -> Path:
    """A directory for an embedded store of the test's own, which it may kill."""
    return tmp_path / "gateway"
