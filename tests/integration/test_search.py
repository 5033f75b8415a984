"""Local runs of Experiments whose trials are real: they train, prune, distill and quantize, and keep what they made."""

import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kondense.search.run import Outcome
from kondense_pipelines.local import store as embedded
from kondense_pipelines.local.store import local_store
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.runner import Result, run
from rich.console import Console

MANIFESTS = Path(__file__).parents[2] / "manifests" / "experiments"
TRIALS = 3
WAIT_S = 120  # for one step of a trial on a busy machine


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((MANIFESTS / name).read_text())
    return document


def container(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    return found


def start(document: dict[str, Any], directory: Path, variables: dict[str, str]) -> Result:
    file = directory / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return run(file, directory / "out", 1, overrides=variables, display=Display(Console(file=io.StringIO())))


@pytest.mark.parametrize(
    ("name", "metrics"),
    [("pruning.yaml", {"size_bytes"}), ("compression.yaml", {"size_bytes", "latency_ms"})],
)
def test_the_trials_of_a_manifest_run(name: str, metrics: set[str], tmp_path: Path, digits16_dir: Path) -> None:
    document = read(name)
    document["spec"] |= {"parallelTrialCount": 1, "maxTrialCount": TRIALS, "maxFailedTrialCount": 0}
    container(document)["args"] += ["--train.epochs=1"]
    result = start(document, tmp_path, {"DATASET_URI": str(digits16_dir)})
    assert (result.outcome, result.trials) == (Outcome.SUCCEEDED, TRIALS), result.reason
    summary = json.loads(result.results_file.read_text())
    for trial in summary["trials"]:
        values = {metric: float(value) for metric, value in trial["metrics"].items()}
        assert 0 < values.get("score", values["validation_accuracy"]) <= values["validation_accuracy"] <= 1
        assert all(values[metric] > 0 for metric in metrics)
        kept = tmp_path / "out" / "store" / "trials" / trial["name"]
        assert (kept / "model.json").is_file()
    sizes = {trial["metrics"]["size_bytes"] for trial in summary["trials"]}
    assert len(sizes) == TRIALS  # other hyperparameters, another model


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Watched:
    """A run in a thread of its own, and what its files say."""

    def __init__(self, document: dict[str, Any], directory: Path, variables: dict[str, str]) -> None:
        self.out = directory / "out"
        self.results: list[Result] = []
        self.thread = threading.Thread(target=lambda: self.results.append(start(document, directory, variables)))
        self.thread.start()

    def events(self, kind: str) -> list[dict[str, Any]]:
        journal = self.out / "journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in found if event["event"] == kind]

    def trains(self, number: int) -> bool:
        """Tell whether trial `number` of all started has ended its first epoch."""
        started = self.events("started")
        if len(started) <= number:
            return False
        log = self.out / "trials" / started[number]["name"] / "output.log"
        return log.exists() and "epoch 1/" in log.read_text()


def stop_gateway(directory: Path) -> None:
    port, process = embedded.recorded(directory)
    assert process
    os.kill(process.pid, signal.SIGKILL)
    # Its last thread may hold the port a moment longer than its first; the next gateway is to take that port.
    wait_for(lambda: not process.alive() and is_free(port))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_an_object_store_that_goes_away_during_a_trial(
    tmp_path: Path, own_gateway_dir: Path, digits16_dir: Path
) -> None:
    document = read("random.yaml")
    document["metadata"].pop("annotations")  # no baseline after the search
    document["spec"] |= {"parallelTrialCount": 1, "maxTrialCount": 3, "maxFailedTrialCount": 2}
    container(document)["args"] += ["--train.network=lenet300", "--train.width=0.2", "--train.epochs=9"]
    with local_store(own_gateway_dir, {}) as variables:
        places = {"DATASET_URI": str(digits16_dir), "STORE_URI": "minio://trials/search"}
        watched = Watched(document, tmp_path, {**variables, **places})
        # Away for a moment: the trial asks again.
        wait_for(lambda: watched.trains(0))
        stop_gateway(own_gateway_dir)
        with local_store(own_gateway_dir, {}) as again:
            assert again == variables
            wait_for(lambda: watched.trains(1))
            # Away for good: the trial gives up and says why.
            stop_gateway(own_gateway_dir)
            wait_for(lambda: len(watched.events("finished")) == 2)
        # There again: the search goes on.
        with local_store(own_gateway_dir, {}):
            watched.thread.join(timeout=WAIT_S)
    assert not watched.thread.is_alive()
    assert watched.results[0].outcome is Outcome.SUCCEEDED
    statuses = [(event["status"], event["reason"]) for event in watched.events("finished")]
    assert [status for status, _ in statuses] == ["succeeded", "failed", "succeeded"]
    assert f"http://{variables['MINIO_ENDPOINT']} cannot be reached" in statuses[1][1]
    assert "\n" not in statuses[1][1]
