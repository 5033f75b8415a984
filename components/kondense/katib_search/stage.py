"""Run a Katib Experiment to its end and return the best trial: its hyperparameters and its model."""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kondense.cluster.objects import own_namespace
from kondense.cluster.pod import Pod, cleaned_up_on_sigterm, log, pod_name
from kondense.files import json_bytes, new_directory, read_json, write_json
from kondense.katib import page
from kondense.katib.results import summary
from kondense.katib_search.cluster import Katib, connect_to_cluster
from kondense.katib_search.config import KatibSearchConfig
from kondense.katib_search.earlier import with_earlier
from kondense.katib_search.errors import SearchError
from kondense.katib_search.experiment import Plan, build_plan
from kondense.katib_search.job import store_uri, trial_config, trial_container
from kondense.katib_search.trials import best_trial, ended, in_order_of_ending, read_trials
from kondense.search.history import Status
from kondense.search.numbers import number
from kondense.search.run import FAILURES, TrialRecord
from kondense.store.open import open_store
from kondense.store.store import NotFoundError, Store, StoreError
from kondense.trial.reason import kept_reason

RESULTS, PAGE, BEST = "results.json", "report.html", "best.json"
FORMAT_VERSION = 1
DATASET_FORMAT = 1  # of kondense.data.dataset, which needs torch
WARNINGS_S = 60.0  # between two requests for the events of the trials


def run(config: KatibSearchConfig, *, dataset_dir: Path, model_dir: Path, search_dir: Path) -> dict[str, float]:
    """Create the Experiment, follow it to its end, and write the best trial's model and the search's page.

    The Experiment of an earlier attempt of the step is continued. SIGTERM ends the process with status 143; it deletes
    the Experiment and its trials if the run was terminated, and keeps it for the next attempt if only this pod is
    removed. During the search the run's Workflow owns the Experiment, which is deleted with it.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact. Trials read it from ``config.dataset_uri`` if set, else from this directory.
        model_dir: receives the best trial's Model artifact.
        search_dir: receives results.json, report.html, and best.json: the trial's name, its value, and under ``config``
            every parameter of the trial.

    Returns:
        ``trials`` and ``trials_without_result``, and the best trial's metrics.

    Raises:
        ValueError: the Experiment breaks a rule.
        ArtifactError: the data set is missing.
        ClusterError: the cluster rejects a request, or cannot be reached.
        StoreError: the object store cannot be reached.
        SearchError: no trial at the maximum resource has a value.
    """
    plan = build_plan(config, dataset_uri=config.dataset_uri or str(dataset_dir), environment=os.environ)
    if sources := [source.strip() for source in config.earlier.split(",") if source.strip()]:
        plan = dataclasses.replace(plan, body=with_earlier(plan.body, sources))
        plan.search.validate()
    read_json(dataset_dir / "dataset.json", format_version=DATASET_FORMAT)  # the trials would fail much later
    store = open_trial_store(plan)
    katib = Katib(connect_to_cluster, config.namespace or own_namespace(), log=log)
    katib.check_namespace()
    pod = Pod(katib.api, own_namespace(), pod_name())
    address = page.address(config.ui, katib.namespace, plan.name)
    with cleaned_up_on_sigterm(pod, lambda: katib.delete(plan.name, config.run_id), plan.name):
        katib.create(plan.body)
        owner = pod.owner() if katib.namespace == pod.namespace else None  # an owner must be of the same namespace
        if owner:
            katib.set_owner(plan.name, owner)
        log(f"experiment {plan.name} in {katib.namespace}: {address}")
        log(f"or kubectl -n {katib.namespace} describe experiments.kubeflow.org {plan.name}")
        trials, outcome, reason = Follower(katib, plan, config, store).follow()
        if owner:
            katib.set_owner(plan.name, None)
    log(f"{outcome}: {reason}")
    best = best_trial(trials, plan.search)
    with new_directory(search_dir) as scratch:
        results = summary(
            plan.body,
            plan.search,
            trials,
            outcome=outcome,
            reason=reason,
            best=plan.search.best(trials),
            finished=in_order_of_ending(trials),
        )
        results |= {"run": config.run_id, "page": address}
        write_json(scratch / RESULTS, results)
        page.write(scratch / PAGE, results)
        if best:
            write_json(scratch / BEST, describe(best, plan))
    if best is None or outcome == "Failed":
        raise SearchError(no_result(trials, plan, katib, reason))
    for trial in plan.search.front(trials) if plan.search.goals else ():
        log(f"front: {plan.search.trial_line(trial)}")
    if not plan.search.feasible(best):
        log("no trial keeps the constraints; the best is the one that breaks them least")
    if plan.search.pick and not plan.search.is_picked(best):
        log(f"no trial meets {plan.search.pick.text!r}; the best is the nearest")
    log(f"best: {plan.search.trial_line(best)}")
    fetch_model(store, best.name, model_dir)
    return metrics(trials, best)


def open_trial_store(plan: Plan) -> Store:
    """Return the store of the trials' models, after writing the Experiment to it.

    The write shows, before any GPU is used, that the trials will find the store and its bucket.

    Raises:
        ValueError: the Experiment has no store.
        StoreError: the environment lacks its address or credentials, or it cannot be reached, refuses or is full.
    """
    store = open_store(store_uri(trial_container(plan.spec["trialTemplate"]["trialSpec"])))
    try:
        store.write(f"experiments/{plan.name}.json", json_bytes(plan.body))
    except StoreError as error:
        raise StoreError(f"trials could not keep their models: {error} (manifests/buckets makes the buckets)") from None
    return store


class Follower:
    """Polls an Experiment until it ends, and logs the changes."""

    def __init__(self, katib: Katib, plan: Plan, config: KatibSearchConfig, store: Store) -> None:
        self.katib = katib
        self.plan = plan
        self.config = config
        self.store = store
        self.reasons: dict[str, str] = {}
        self.logged: set[str] = set()
        self.headline = ""
        self.started_s = time.monotonic()
        self.warned_s = self.started_s

    def follow(self) -> tuple[list[TrialRecord], str, str]:
        """Return the trials, Succeeded or Failed, and Katib's reason.

        Raises:
            SearchError: the Experiment was deleted, or no trial started within ``patience_minutes``.
        """
        while True:
            experiment = self.katib.get(self.plan.name)
            if experiment is None:
                raise SearchError(f"experiment {self.plan.name} was deleted during the search; run the step again.")
            trials = [self.explained(trial) for trial in read_trials(self.katib.trials(self.plan.name), self.plan)]
            self.log_changes(trials)
            if end := ended(experiment):
                return trials, *end
            self.log_warnings()
            self.check_patience(trials)
            time.sleep(self.config.poll_seconds)

    def explained(self, trial: TrialRecord) -> TrialRecord:
        """Return a failed trial with the reason that it wrote to the store; Katib's own says only that it failed."""
        if trial.status is not Status.FAILED:
            return trial
        if trial.name not in self.reasons:
            try:
                self.reasons[trial.name] = kept_reason(self.store, trial.name)
            except StoreError:
                return trial  # the next poll reads it again
        return dataclasses.replace(trial, reason=self.reasons[trial.name] or trial.reason)

    def log_changes(self, trials: Sequence[TrialRecord]) -> None:
        """Log the trials that have ended, and the progress of the search if it has changed."""
        for trial in in_order_of_ending(trials):
            if trial.name not in self.logged:
                self.logged.add(trial.name)
                log(self.plan.search.trial_line(trial))
        if (headline := self.plan.search.headline(trials)) != self.headline:
            self.headline = headline
            log(headline)

    def log_warnings(self) -> None:
        """Log each of Kubernetes' warnings once: no free GPU, an image that cannot be pulled, a quota."""
        if time.monotonic() - self.warned_s < min(WARNINGS_S, 6 * self.config.poll_seconds):
            return
        self.warned_s = time.monotonic()
        for line in self.katib.warnings(self.plan.name):
            if line not in self.logged:
                self.logged.add(line)
                log(line)

    def check_patience(self, trials: Sequence[TrialRecord]) -> None:
        """Delete the Experiment and raise SearchError if there is no trial after ``patience_minutes``."""
        waited_s = time.monotonic() - self.started_s
        if trials or not self.config.patience_minutes or waited_s < 60 * self.config.patience_minutes:
            return
        reasons = [self.katib.suggestion_failure(self.plan.name), *self.katib.warnings(self.plan.name)]
        reason = next(filter(None, reasons), f"see kubectl -n {self.katib.namespace} get suggestions,pods")
        self.katib.delete(self.plan.name, self.config.run_id)
        raise SearchError(
            f"no trial started within {self.config.patience_minutes:g} minutes, so the experiment was deleted: {reason}"
        )


def describe(best: TrialRecord, plan: Plan) -> dict[str, Any]:
    """Return the content of best.json."""
    return {
        "format_version": FORMAT_VERSION,
        "trial": best.name,
        "metric": plan.search.metric,
        "value": best.value,
        "assignments": dict(best.assignments),
        "config": trial_config(plan.spec["trialTemplate"], best.name, best.assignments).to_dict(),
    }


def no_result(trials: Sequence[TrialRecord], plan: Plan, katib: Katib, reason: str) -> str:
    """Return why the search has no result, and the remedy."""
    search = plan.search
    failed = [trial for trial in trials if trial.status in FAILURES]
    if failed and all(trial.status is Status.METRICS_UNAVAILABLE for trial in failed):
        return f"{len(failed)} trials ended without metrics: {katib.unlabelled()}"
    where = f" at {search.resource_name}={search.max_resource:g}" if search.resource_name else ""
    text = f"no trial{where} has a {search.metric}" if best_trial(trials, search) is None else "too many trials failed"
    text += f"; {len(failed)} of {len(trials)} trials failed ({reason})"
    if failed:
        first = min(failed, key=lambda trial: trial.ended or 0.0)
        text += f"; the first, {first.name}: {first.reason or first.status.value}"
    for warning in katib.warnings(plan.name)[:1]:
        text += f"; {warning}"
    return f"{text}. Its logs: kubectl -n {katib.namespace} logs -l katib.kubeflow.org/experiment={plan.name}"


def fetch_model(store: Store, trial: str, model_dir: Path) -> None:
    """Write a trial's Model artifact, verified, completely or not at all.

    Raises:
        SearchError: the trial stored none.
        StoreError: the store cannot be reached, or the model is damaged.
    """
    try:
        store.download_directory(f"trials/{trial}", model_dir)
    except NotFoundError as error:
        raise SearchError(
            f"trial {trial} stored no model at {store.address(f'trials/{trial}')}: do its STORE_URI and MINIO_ENDPOINT "
            f"name the store of this step? ({error})"
        ) from None


def metrics(trials: Sequence[TrialRecord], best: TrialRecord) -> dict[str, float]:
    """Return the step's metrics, all finite."""
    values = {name: number(text) for name, text in best.metrics.items()}
    return {
        "trials": float(sum(trial.finished for trial in trials)),
        "trials_without_result": float(sum(trial.status in FAILURES for trial in trials)),
        **{name: value for name, value in values.items() if value is not None},
    }
