"""The refresh pipeline on this machine: a first champion, the same data again, a challenger on request.

That other data call for a challenger is tested with the champion stage.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kondense.publish.versions import version_ids
from kondense.store.open import open_store
from kondense_pipelines.graphs.candidates import Plan
from kondense_pipelines.graphs.parameters import resolve, split
from kondense_pipelines.graphs.refresh import WITHOUT, make_refresh, refresh_task_names
from kondense_pipelines.local.progress import RunProgress
from kondense_pipelines.local.run import LocalSettings, run_pipeline
from kondense_pipelines.local.steps import StepResult
from kondense_pipelines.local.warm import WarmServer
from rich.console import Console

NAME = "lenet300-digits"
TASKS = tuple(name for name in refresh_task_names(Plan()) if name != "verdict")  # here the exit code says it
SETTINGS = (
    *("data_prep.image_size=16", "train.epochs=2", "train.batch_size=64", "prune.epochs=1", "prune.steps=1"),
    *("prune_weights.epochs=1", "prune_weights.steps=1", "distill.epochs=1", "evaluate.latency_seconds=0.05"),
    *("publish.max_test_drop=0.9", "report.max_validation_drop=0.9"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmServer]:
    with (tmp_path_factory.mktemp("warm") / "server.log").open("w") as log, WarmServer(log) as started:
        yield started


class Refresh:
    """Runs the pipeline in one directory; ``versions`` are those published."""

    def __init__(self, directory: Path, server: WarmServer) -> None:
        self.directory, self.server = directory, server
        self.store = open_store(str(directory / "store"))

    def __call__(self, *, always: bool = False) -> dict[str, StepResult]:
        plain = {"dataset": "digits", "network": "lenet300"}
        arguments, bound = split(resolve("quick", plain, (*SETTINGS, f"publish.store_uri={self.directory / 'store'}")))
        settings = LocalSettings(self.directory / "out", self.directory / "cache", "v", TASKS)
        with RunProgress(Console(file=io.StringIO()), len(TASKS)) as progress:
            pipeline = make_refresh(arguments, bound)
            given = {name: value for name, value in arguments.items() if name not in WITHOUT}
            return run_pipeline(pipeline, {**given, "refresh_always": always}, settings, progress, self.server)

    @property
    def versions(self) -> list[str]:
        return version_ids(self.store, NAME)


def verdict(results: dict[str, StepResult]) -> dict[str, Any]:
    return json.loads((results["champion"].outputs["champion"] / "champion.json").read_text())


def receipt(results: dict[str, StepResult]) -> dict[str, Any]:
    return json.loads((results["publish"].outputs["receipt"] / "receipt.json").read_text())


def test_the_same_data_publish_nothing_new(tmp_path: Path, server: WarmServer) -> None:
    refresh = Refresh(tmp_path, server)

    first = refresh()
    assert set(first) == set(TASKS)
    assert verdict(first)["reason"] == f"{NAME} has no champion yet"
    assert receipt(first)["published"]
    (version,) = refresh.versions

    second = refresh()
    assert set(second) == {"data prep", "champion"}
    assert not any(result.reused for result in second.values())  # both look anew
    assert not verdict(second)["challenge"]
    assert verdict(second)["test_accuracy"] is not None
    assert refresh.versions == [version]

    asked = refresh(always=True)
    assert not receipt(asked)["published"]
    assert receipt(asked)["reason"].startswith("nothing new")
    assert refresh.versions == [version]
