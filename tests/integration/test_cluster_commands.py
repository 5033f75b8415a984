"""``kondense submit`` and ``schedule``: one line for what is wrong, and the work done on an API over HTTP."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kondense_pipelines.cli.app import app
from typer.testing import CliRunner

from tests.support import fake_kfp


class Platform(fake_kfp.FakePipelines):
    """The API with runs, asked through the UI."""

    def __init__(self) -> None:
        super().__init__()
        self.objects["runs"] = []
        self.health = {"apiServerTagName": "2.17.0"}


@pytest.fixture(autouse=True)
def keep_the_signal_handler() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def address(platform: Platform) -> Iterator[str]:
    with fake_kfp.serve(platform) as served:
        yield served


def invoke(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.stderr
    if code:
        assert len(result.stderr.splitlines()) == 1
    return result.stderr if code else result.stdout


def test_a_pipeline_is_submitted_by_name_and_by_file(platform: Platform, address: str, tmp_path: Path) -> None:
    printed = invoke("submit", "search", "--param", "search_max_trials=6", "--param", "seed=3", "--endpoint", address)
    (run,) = platform.objects["runs"]
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "search"
    assert run["runtime_config"]["parameters"] == {"search_max_trials": 6, "seed": 3}
    assert run["display_name"].startswith("fashion_mnist lenet5 20")
    assert run["description"].endswith("; search_max_trials=6, seed=3")
    assert f"{address}/#/runs/details/{run['run_id']}" in printed
    invoke("compile", "--no-check", "--output", str(tmp_path), "--resource", "gpus=1")
    invoke("submit", str(tmp_path / "refresh.yaml"), "--name", "tonight", "--endpoint", address)
    assert platform.objects["runs"][1]["display_name"] == "tonight"


def test_a_pipeline_given_by_name_is_compiled_for_the_server(platform: Platform, address: str, tmp_path: Path) -> None:
    platform.health = {"tag_name": "2.15.0"}
    printed = invoke("submit", "compress", "--endpoint", address)
    assert "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, then http://localhost:8080/#/runs/" in printed
    assert all(word not in str(platform.objects["runs"]) for word in ("literals", "securityContext"))
    invoke("compile", "--no-check", "--output", str(tmp_path))
    file = str(tmp_path / "compress.yaml")
    told = invoke("submit", file, "--endpoint", address, code=2)
    assert "Kubeflow Pipelines 2.15 refuses: make it with kondense compile --resource kfp_version=2.15" in told
    invoke("compile", "--no-check", "--output", str(tmp_path), "--resource", "kfp_version=2.15")
    invoke("submit", file, "--endpoint", address)


def test_a_run_without_the_cache(platform: Platform, address: str) -> None:
    assert "without the cache" in invoke("submit", "compress", "--no-cache", "--endpoint", address)
    (run,) = platform.objects["runs"]
    assert "enableCache" not in json.dumps(run["pipeline_spec"])
    assert {"pipeline_spec", "platform_spec"} == set(run["pipeline_spec"])


def test_a_schedule_is_made_once(platform: Platform, address: str) -> None:
    arguments = ("schedule", "refresh", "--cron", "0 0 3 * * *", "--param", "dataset=digits", "--endpoint", address)
    assert "made, on" in invoke(*arguments)
    changes = len(platform.changes)
    assert "it is there, on" in invoke(*arguments)
    assert len(platform.changes) == changes
    assert "replaced, paused" in invoke(*arguments, "--paused")
    (found,) = platform.objects["recurringruns"]
    assert found["display_name"] == "kondense-refresh"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["submit", "prune"], 2, "PIPELINE must be compress, search, refresh or a file"),
        (["submit", "refresh", "--param", "allways=true"], 2, "the name in --param must be one of dataset, "),
        (["submit", "refresh", "--param", "refresh_always=yes"], 2, "refresh_always must be one of false, true"),
        (["submit", "compress", "--param", "dataset=folder"], 2, "data prep: source must be the folder"),
        (["submit", "compress", "--param", "quantize_method=l3"], 2, "quantize_method must be one of codebook, "),
        (["submit", "compress", "--param", "seed=-1"], 2, "distill: seed must be in [0, 2147483647], but got -1."),
        (
            ["schedule", "refresh", "--cron", "0 0 3 * * *", "--param", "network=lenet6"],
            2,
            "champion: network must be one of lenet300, ",
        ),
        (["submit", "refresh", "--endpoint", "localhost"], 2, "endpoint must be http://host:port"),
        (["submit", "refresh", "--endpoint", "http://127.0.0.1:1"], 1, "nothing answers at http://127.0.0.1:1"),
        (["schedule", "refresh", "--cron", "0 3 * * *"], 2, "cron must have six fields"),
        (["compile", "--resource", "gpus=-1"], 2, "gpus must be in [0, 64], but got -1."),
        (["compile", "--experiment", "nowhere.yaml"], 2, "the Experiment must be a file such as "),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KF_PIPELINES_ENDPOINT", "KONDENSE_NAMESPACE", "KONDENSE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert invoke(*arguments, code=code).startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []
