"""Run a Katib Experiment to its end and hand on the best trial: its hyperparameters and its model."""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from kondense.files import json_bytes, new_directory, read_json, write_json
from kondense.katib import page
from kondense.katib_search.cluster import Katib, connect_to_cluster, own_namespace
from kondense.katib_search.config import KatibSearchConfig
from kondense.katib_search.errors import ClusterError, SearchError
from kondense.katib_search.experiment import Plan, build_plan
from kondense.katib_search.job import store_uri, trial_config, trial_container
from kondense.katib_search.pod import Pod, pod_name
from kondense.katib_search.trials import (
    FAILURES,
    TrialView,
    best_trial,
    ended,
    finite,
    headline,
    read_trial,
    summary,
    trial_line,
)
from kondense.logging import LOG
from kondense.search.history import Status
from kondense.store.store import NotFoundError, Store, StoreError, open_store
from kondense.trial.reason import failure_key

RESULTS, PAGE, BEST = "results.json", "report.html", "best.json"
FORMAT_VERSION = 1
DATASET_FORMAT = 1  # of kondense.data.dataset, which needs torch
WARNINGS_S = 60.0  # between two looks at the events of the trials


def run(config: KatibSearchConfig, *, dataset_dir: Path, model_dir: Path, search_dir: Path) -> dict[str, float]:
    """Create the Experiment, follow it to its end, and write the best trial's model and the search's page.

    An Experiment that an earlier attempt of the step has created is followed on. SIGTERM ends the process with
    status 143; it deletes the Experiment, with its trials, where the run was terminated, and keeps it for the next
    attempt where only this pod is taken away. Until the search has ended the Experiment belongs to the run's Workflow,
    so that it goes with a run that nobody goes on with.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact; trials read it at ``config.dataset_uri``, which must be a place that they
            reach, or without one here.
        model_dir: gets the best trial's Model artifact.
        search_dir: gets results.json, report.html, and best.json: the trial's name, its value, and under ``config``
            every parameter that it ran with.

    Returns:
        ``trials`` and ``trials_without_result``, and the best trial's metrics.

    Raises:
        ValueError: the Experiment breaks a rule.
        ArtifactError: the data set is not there.
        ClusterError: the cluster refused, or cannot be reached.
        StoreError: the object store cannot be reached.
        SearchError: no trial at the maximum resource has a value.
    """
    plan = build_plan(config, dataset_uri=config.dataset_uri or str(dataset_dir), environment=os.environ)
    read_json(dataset_dir / "dataset.json", format_version=DATASET_FORMAT)  # trials look for it only hours later
    store = open_trial_store(plan)
    katib = Katib(connect_to_cluster, config.namespace or own_namespace(), say=say)
    katib.check_namespace()
    pod = Pod(katib.api, own_namespace(), pod_name())
    with heeding_sigterm(pod, lambda: katib.delete(plan.name, config.run_id), plan.name):
        katib.create(plan.body)
        owner = pod.owner() if katib.namespace == pod.namespace else None  # an owner must be of the same namespace
        if owner:
            katib.set_owner(plan.name, owner)
        say(f"experiment {plan.name} in {katib.namespace}: {page.address(config.ui, katib.namespace, plan.name)}")
        say(f"or kubectl -n {katib.namespace} describe experiments.kubeflow.org {plan.name}")
        trials, outcome, reason = Follower(katib, plan, config, store).follow()
        if owner:
            katib.set_owner(plan.name, None)
    say(f"{outcome}: {reason}")
    best = best_trial(trials, plan)
    with new_directory(search_dir) as scratch:
        results = summary(trials, plan, outcome, reason)
        results |= {"run": config.run_id, "page": page.address(config.ui, katib.namespace, plan.name)}
        write_json(scratch / RESULTS, results)
        page.write(scratch / PAGE, results)
        if best:
            write_json(scratch / BEST, describe(best, plan))
    if best is None or outcome == "Failed":
        raise SearchError(no_result(trials, plan, katib, reason))
    say(f"best: {trial_line(best, plan)}")
    fetch_model(store, best.name, model_dir)
    return metrics(trials, best)


def open_trial_store(plan: Plan) -> Store:
    """Return the store where trials leave their models, after the Experiment has been kept there.

    That it can be kept shows, before any GPU is used, that the trials will find the store and its bucket.

    Raises:
        ValueError: the Experiment does not say where.
        StoreError: the environment does not say how to reach it, or it is not reached, refuses or is full.
    """
    store = open_store(store_uri(trial_container(plan.spec["trialTemplate"]["trialSpec"])))
    try:
        store.write(f"experiments/{plan.name}.json", json_bytes(plan.body))
    except StoreError as error:
        raise StoreError(f"trials could not keep their models: {error} (manifests/buckets makes the buckets)") from None
    return store


class Follower:
    """Looks at an Experiment until it ends, and says in the log what has changed."""

    def __init__(self, katib: Katib, plan: Plan, config: KatibSearchConfig, store: Store) -> None:
        self.katib = katib
        self.plan = plan
        self.config = config
        self.store = store
        self.reasons: dict[str, str] = {}
        self.told: set[str] = set()
        self.line = ""
        self.began_s = time.monotonic()
        self.looked_s = self.began_s

    def follow(self) -> tuple[list[TrialView], str, str]:
        """Return the trials, Succeeded or Failed, and Katib's reason.

        Raises:
            SearchError: the Experiment was deleted, or no trial came within ``patience_minutes``.
        """
        while True:
            experiment = self.katib.get(self.plan.name)
            if experiment is None:
                raise SearchError(f"experiment {self.plan.name} was deleted while this step followed it; run it again.")
            trials = [self.explained(read_trial(each, self.plan)) for each in self.katib.trials(self.plan.name)]
            self.tell(trials)
            if end := ended(experiment):
                return trials, *end
            self.warn()
            self.check_patience(trials)
            time.sleep(self.config.poll_seconds)

    def explained(self, trial: TrialView) -> TrialView:
        """Return a failed trial with the reason that it left in the store; Katib's own says only that it failed."""
        if trial.status is not Status.FAILED:
            return trial
        if trial.name not in self.reasons:
            try:
                self.reasons[trial.name] = self.store.read(failure_key(trial.name)).decode(errors="replace").strip()
            except NotFoundError:
                self.reasons[trial.name] = ""
            except StoreError:
                return trial  # looked for again the next time
        return dataclasses.replace(trial, reason=self.reasons[trial.name] or trial.reason)

    def tell(self, trials: list[TrialView]) -> None:
        """Say which trials have ended, and where the search stands if that has changed."""
        for trial in sorted(trials, key=lambda trial: (trial.ended or 0.0, trial.name)):
            if trial.finished and trial.name not in self.told:
                self.told.add(trial.name)
                say(trial_line(trial, self.plan))
        if (line := headline(trials, self.plan)) != self.line:
            self.line = line
            say(line)

    def warn(self) -> None:
        """Say once what Kubernetes warns of: no free GPU, an image that cannot be pulled, a quota."""
        if time.monotonic() - self.looked_s < min(WARNINGS_S, 6 * self.config.poll_seconds):
            return
        self.looked_s = time.monotonic()
        for line in self.katib.warnings(self.plan.name):
            if line not in self.told:
                self.told.add(line)
                say(line)

    def check_patience(self, trials: list[TrialView]) -> None:
        """Delete the Experiment and raise SearchError if it has had time enough and still no trial."""
        waited_s = time.monotonic() - self.began_s
        if trials or not self.config.patience_minutes or waited_s < 60 * self.config.patience_minutes:
            return
        reasons = [self.katib.suggestion_trouble(self.plan.name), *self.katib.warnings(self.plan.name)]
        reason = next(filter(None, reasons), f"kubectl -n {self.katib.namespace} get suggestions,pods tells more")
        self.katib.delete(self.plan.name, self.config.run_id)
        raise SearchError(
            f"no trial began within {self.config.patience_minutes:g} minutes, so the experiment was deleted: {reason}"
        )


def describe(best: TrialView, plan: Plan) -> dict[str, Any]:
    """Return what best.json holds."""
    return {
        "format_version": FORMAT_VERSION,
        "trial": best.name,
        "metric": plan.metric,
        "value": best.value,
        "assignments": dict(best.assignments),
        "config": trial_config(plan.spec["trialTemplate"], best.name, best.assignments).to_dict(),
    }


def no_result(trials: list[TrialView], plan: Plan, katib: Katib, reason: str) -> str:
    """Return why there is no trial to hand on, and what to do."""
    failed = [trial for trial in trials if trial.status in FAILURES]
    if failed and all(trial.status is Status.METRICS_UNAVAILABLE for trial in failed):
        return f"{len(failed)} trials ended without metrics: {katib.unlabelled()}"
    where = f" at {plan.resource_name}={plan.max_resource:g}" if plan.max_resource is not None else ""
    text = f"no trial{where} has a {plan.metric}" if best_trial(trials, plan) is None else "too many trials failed"
    text += f"; {len(failed)} of {len(trials)} trials failed ({reason})"
    if failed:
        first = min(failed, key=lambda trial: trial.ended or trial.created)
        text += f"; the first, {first.name}: {first.reason or first.status.value}"
    for warning in katib.warnings(plan.name)[:1]:
        text += f"; {warning}"
    return f"{text}. Its logs: kubectl -n {katib.namespace} logs -l katib.kubeflow.org/experiment={plan.name}"


def fetch_model(store: Store, trial: str, model_dir: Path) -> None:
    """Write a trial's Model artifact, verified, whole or not at all.

    Raises:
        SearchError: the trial left none.
        StoreError: the store cannot be reached, or the model is damaged.
    """
    try:
        store.download_directory(f"trials/{trial}", model_dir)
    except NotFoundError as error:
        raise SearchError(
            f"trial {trial} left no model at {store.address(f'trials/{trial}')}: do its STORE_URI and MINIO_ENDPOINT "
            f"name the store of this step? ({error})"
        ) from None


def metrics(trials: list[TrialView], best: TrialView) -> dict[str, float]:
    """Return the step's metrics, finite numbers all."""
    found = {
        "trials": float(sum(trial.finished for trial in trials)),
        "trials_without_result": float(sum(trial.status in FAILURES for trial in trials)),
    }
    for name, text in best.metrics.items():
        value = finite(text)
        if value is not None:
            found[name] = value
    return found


@contextlib.contextmanager
def heeding_sigterm(pod: Pod, delete: Callable[[], bool], name: str) -> Iterator[None]:
    """Delete the Experiment when SIGTERM ends the block with the run: one that is terminated leaves no trial behind.

    Where only this pod is taken away, or nothing shows which it is, the Experiment is kept: the step's next attempt
    goes on with it, and without one it goes with the run's Workflow.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except SystemExit:
        try:
            if pod.run_has_ended():
                say(f"SIGTERM: experiment {name} {'is deleted' if delete() else 'was not there'}")
            else:
                say(f"SIGTERM: experiment {name} is kept for the next attempt of this step")
        except ClusterError as error:
            say(f"SIGTERM: experiment {name} could not be deleted: {error}")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def say(line: str) -> None:
    """Write a line to the step's log, with the time."""
    LOG.info(time.strftime("%H:%M:%S ") + line)
