"""The suggestion image as Katib runs it: restricted, in the memory of the manifest, through 1,000 trials."""

import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kondense.suggestion.server import HEALTH_SERVICE

from tests.contract.katib.controllers import ExperimentSpec, Katib
from tests.docker.conftest import RESTRICTED, build
from tests.docker.inspection import check_metadata, tree

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

ALGORITHMS = Path(__file__).parents[2] / "manifests" / "katib" / "algorithms.yaml"
LIMIT = yaml.safe_load(ALGORITHMS.read_text())["container"]["resources"]["limits"]["memory"]
TRIALS = 1000
MIB = 2**20
SPACE = (
    {
        "name": "lr",
        "parameterType": "double",
        "feasibleSpace": {"min": "0.0001", "max": "0.1", "distribution": "logUniform"},
    },
    {"name": "momentum", "parameterType": "double", "feasibleSpace": {"min": "0.5", "max": "0.99"}},
    {"name": "schedule", "parameterType": "categorical", "feasibleSpace": {"list": ["cosine", "constant", "step"]}},
    {"name": "batch", "parameterType": "discrete", "feasibleSpace": {"list": ["32", "64", "128"]}},
    {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "27"}},
)


def loss(assignments: Any) -> float:
    near = abs(math.log10(float(assignments["lr"])) + 2) + (1 - float(assignments["momentum"]))
    return near + 1 / int(assignments["epochs"])


@pytest.fixture(scope="module")
def container(engine: Any, suggestion_image: str) -> Iterator[tuple[Any, str]]:
    """A running service and its address."""
    assert LIMIT.endswith("Mi")
    bytes_limit = int(LIMIT[:-2]) * MIB
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = engine.containers.run(
        suggestion_image,
        command=["python3", "-m", "kondense.suggestion.server", "--host", "127.0.0.1", "--port", str(port)],
        detach=True,
        network_mode="host",
        mem_limit=bytes_limit,
        memswap_limit=bytes_limit,
        nano_cpus=10**9,
        **{**RESTRICTED, "tmpfs": {}},
    )
    try:
        wait_until_serving(started, f"127.0.0.1:{port}")
        yield started, f"127.0.0.1:{port}"
    finally:
        started.remove(force=True)


def wait_until_serving(container: Any, address: str) -> None:
    """Probe as Katib does."""
    request = health_pb2.HealthCheckRequest(service=HEALTH_SERVICE)
    deadline_s = time.monotonic() + 60
    with grpc.insecure_channel(address) as channel:
        while True:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=1)
            except grpc.RpcError:
                container.reload()
                assert container.status == "running" and time.monotonic() < deadline_s, container.logs()[-2000:]
                time.sleep(0.2)
            else:
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                return


def test_metadata_and_size(engine: Any, base_image: str, suggestion_image: str) -> None:
    check_metadata(engine, suggestion_image, base_image)
    image = engine.images.get(suggestion_image)
    ours = sum(layer["Size"] for layer in image.history() if "COPY" in layer["CreatedBy"])
    print(f"suggestion image: {image.attrs['Size'] / 1e6:.0f} MB, of which environment and code {ours / 1e6:.0f} MB")
    assert ours < 120e6  # and python:3.11-slim-bookworm has 130 MB; a Debian base has more


def test_there_is_no_torch_and_no_kubernetes(engine: Any, suggestion_image: str) -> None:
    code = "import importlib.util as u; print([n for n in ('torch', 'kfp', 'kubernetes', 'scipy') if u.find_spec(n)])"
    output = engine.containers.run(
        suggestion_image, command=["python3", "-c", code], remove=True, network_mode="none", **RESTRICTED
    )
    assert output.decode().strip() == "[]"


@pytest.mark.parametrize("algorithm", ["bohb", "hyperband", "random", "tpe"])
def test_a_thousand_trials(container: tuple[Any, str], algorithm: str) -> None:
    running, address = container
    halving = algorithm in ("bohb", "hyperband")
    settings = {"resource_name": "epochs", "r_l": "27", "eta": "3"} if halving else {}
    spec = ExperimentSpec(
        f"exp-{algorithm}", algorithm, SPACE, settings=settings, parallel=20, max_trials=TRIALS, max_failed=TRIALS
    )
    with grpc.insecure_channel(address) as channel:
        began = time.monotonic()
        katib = Katib(spec, channel, objective=loss, fates={"failed": 0.1}).run(steps=100_000)
        took_s = time.monotonic() - began
    assert katib.errors == []
    assert katib.condition == "Succeeded"
    assert len(katib.trials) == TRIALS
    assert len({entry.name for entry in katib.issued}) == len(katib.issued)
    running.reload()
    assert running.status == "running"
    assert not running.attrs["State"]["OOMKilled"]
    status = running.exec_run(["cat", "/proc/1/status"]).output.decode()
    (peak_kib,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    peak = f"{peak_kib / 1024:.0f} MiB of {LIMIT}"
    print(f"{algorithm}: {TRIALS} trials, {len(katib.replies)} calls in {took_s:.0f} s, peak {peak}")


def test_it_ends_on_sigterm(engine: Any, container: tuple[Any, str]) -> None:
    running, _ = container
    running.stop(timeout=20)
    running.reload()
    assert running.attrs["State"]["ExitCode"] == 0
    assert b'"event": "stopped"' in running.logs()


def test_the_same_commit_gives_the_same_files(
    engine: Any, base_image: str, suggestion_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(engine, suggestion_image, "opt/kondense")
    monkeypatch.setenv("BUILD_OPTIONS", "--network host --no-cache")
    build("suggestion", base_image)
    assert before and tree(engine, suggestion_image, "opt/kondense") == before
