"""The refresh pipeline on this machine: a first champion, the same data again, a challenger on request.

That other data call for a challenger is tested with the champion stage.
"""

import io
import json
from pathlib import Path
from typing import Any

from kondense.publish.versions import version_ids
from kondense.store.open import open_store
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.parameters import resolve, split
from kondense_pipelines.graphs.refresh import WITHOUT, make_refresh, refresh_task_names
from kondense_pipelines.local.progress import RunProgress
from kondense_pipelines.local.run import LocalSettings, run_pipeline
from kondense_pipelines.local.steps import StepResult
from rich.console import Console

from tests.support.warm import Warm

NAME = "lenet300-digits"
PLAN = read_plan(resolve("quick"), "quantized,sparse-packed")
TASKS = tuple(name for name in refresh_task_names(PLAN) if name != "verdict")  # here the exit code says it
SETTINGS = (
    *("data_prep.image_size=16", "train.epochs=2", "train.batch_size=64"),
    *("prune_weights.epochs=1", "prune_weights.steps=1", "evaluate.latency_seconds=0.02"),
    *("evaluate.further_latency_seconds=0.01", "evaluate.robustness_images=20"),
    *("publish.max_test_drop=0.9", "report.max_validation_drop=0.9"),
)


class Refresh:
    """Runs the pipeline in one directory; ``versions`` are those published."""

    def __init__(self, directory: Path, warm: Warm) -> None:
        self.directory, self.server = directory, warm.server
        self.store = open_store(str(directory / "store"))

    def __call__(self, *, always: bool = False) -> dict[str, StepResult]:
        plain = {"dataset": "digits", "network": "lenet300"}
        arguments, bound = split(resolve("quick", plain, (*SETTINGS, f"publish.store_uri={self.directory / 'store'}")))
        settings = LocalSettings(self.directory / "out", self.directory / "cache", "v", TASKS)
        with RunProgress(Console(file=io.StringIO()), len(TASKS)) as progress:
            pipeline = make_refresh(arguments, bound, plan=PLAN)
            given = {name: value for name, value in arguments.items() if name not in WITHOUT}
            return run_pipeline(pipeline, {**given, "refresh_always": always}, settings, progress, self.server)

    @property
    def versions(self) -> list[str]:
        return version_ids(self.store, NAME)


def verdict(results: dict[str, StepResult]) -> dict[str, Any]:
    return json.loads((results["champion"].outputs["champion"] / "champion.json").read_text())


def receipt(results: dict[str, StepResult]) -> dict[str, Any]:
    return json.loads((results["publish"].outputs["receipt"] / "receipt.json").read_text())


def test_the_same_data_publish_nothing_new(tmp_path: Path, warm_process: Warm) -> None:
    refresh = Refresh(tmp_path, warm_process)

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
