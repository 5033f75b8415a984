"""Katib's EarlyStopping service, `medianstop` by the median and `curvestop`, beside an Experiment's suggestion service.

Katib asks for rules with each request for trials and hands them to the metrics collector beside each new trial. The
collector ends a trial whose best value is worse than the rule's at report number `start_step`, writes its reports to
Katib's database, and calls SetTrialStatus.

Source: api.proto, medianstop/service.py and file-metricscollector/main.go of Katib 0.19. Deviations from Katib's own
service: the median in place of the mean; reports that are no finite number do not count, and a trial without any is
left out (Katib's divides by zero); a status that was changed meanwhile is read again (Katib's loses the patch); the
reports of a stopped trial become its observation, which Katib's controller writes only with `retain: true`, so that
the suggestion service learns from it.
"""

import dataclasses
import datetime
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from kondense.errors import InputError
from kondense.json_text import ArtifactError
from kondense.katib.api import messages, services
from kondense.katib.metrics import UNAVAILABLE, MetricLine, observe
from kondense.katib.spec import Objective
from kondense.search import stopping
from kondense.search.history import Goal
from kondense.search.numbers import number
from kondense.suggestion.conversion import GOALS, check_stoppable
from kondense.suggestion.observation_logs import DatabaseError, ObservationLogs
from kondense.suggestion.rejection import reject
from kondense.suggestion.service import MAX_TRIALS
from kondense.suggestion.trial_objects import ApiError, TrialObject, TrialObjects

TRIAL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # an object's name, which becomes part of a URL
MOST_STEPS = 2**31 - 1  # of an int32 of the protocol
ATTEMPTS = 5  # to change a status that others change, too
STOPPED = "EarlyStopped"
ENDED = ("Succeeded", "Failed", "Killed", "MetricsUnavailable")
CONFLICT = 409
CODES = {
    0: grpc.StatusCode.UNAVAILABLE,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    CONFLICT: grpc.StatusCode.ABORTED,
}
LOG = logging.getLogger("suggestion")


class EarlyStoppingService(services.EarlyStoppingServicer):  # type: ignore[name-defined]
    """The three calls of ``api.v1.beta1.EarlyStopping``.

    A rule depends on the request and the database alone, so a restart changes none. What is kept saves time: summaries
    of succeeded trials, whose reports do not change, and the address of the database.

    Args:
        trials: the Trial objects of the Experiment's namespace.
        logs: the reports in Katib's database.
    """

    def __init__(self, trials: TrialObjects, logs: ObservationLogs | None = None) -> None:
        self._trials, self._logs = trials, logs or ObservationLogs()
        self._summaries: dict[tuple[str, str, str, stopping.Rule], Any] = {}  # by address, trial, metric
        self._address = ""
        self._lock = threading.Lock()

    def ValidateEarlyStoppingSettings(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Check the settings when an Experiment starts; Katib fails it on INVALID_ARGUMENT."""
        try:
            read_rule(request.early_stopping)
        except ValueError as error:
            reject(context, "validate early stopping", "", error)
        return messages.ValidateEarlyStoppingSettingsReply()

    def GetEarlyStoppingRules(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return the rule of the trials that are being suggested; none with too few succeeded trials."""
        experiment, call = request.experiment, "early stopping rules"
        if len(request.trials) > MAX_TRIALS:
            text = f"a call must report at most {MAX_TRIALS:,} trials, but got {len(request.trials):,}."
            reject(context, call, experiment.name, text, grpc.StatusCode.RESOURCE_EXHAUSTED)
        try:
            rule = read_rule(experiment.spec.early_stopping)
            check_stoppable(experiment.spec)
            goal, metric = _objective(experiment)
            summaries = list(self._summaries_of(request, rule, metric, goal, context))
        except ValueError as error:
            reject(context, call, experiment.name, error)
        except DatabaseError as error:
            reject(context, call, experiment.name, error, grpc.StatusCode.UNAVAILABLE)
        self._address = request.db_manager_address
        bound = rule.bound(summaries, goal)
        LOG.info("rule", extra={"experiment": experiment.name, "succeeded": len(summaries), "bound": bound})
        reply = messages.GetEarlyStoppingRulesReply()
        if bound is not None:
            comparison = messages.GREATER if goal == "minimize" else messages.LESS
            reply.early_stopping_rules.add(
                name=metric, value=repr(bound), comparison=comparison, start_step=rule.start_step
            )
        return reply

    def SetTrialStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Give a trial that its collector has stopped the condition EarlyStopped, and its observation."""
        name, call = request.trial_name, "set trial status"
        if not TRIAL.fullmatch(name):
            reject(context, call, name, f"trial_name must be the name of a Trial, but got {ascii(name)[:80]}.")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                trial = self._trials.read(name)
                conditions = (trial.get("status") or {}).get("conditions") or []
                held = [item["type"] for item in conditions if item["status"] == "True"]
                if STOPPED in held:
                    break
                if ended := [kind for kind in held if kind in ENDED]:
                    text = f"trial {name} must be running to be stopped early, but is {ended[-1]}."
                    reject(context, call, name, text, grpc.StatusCode.FAILED_PRECONDITION)
                changed = {"conditions": [*conditions, _condition()], **self._observation(trial)}
                self._trials.patch_status(name, trial["metadata"]["resourceVersion"], changed)
                LOG.info("stopped early", extra={"trial": name, "observed": "observation" in changed})
                break
            except ApiError as error:
                if error.status == CONFLICT and attempt < ATTEMPTS:
                    continue
                reject(context, call, name, error, CODES.get(error.status, grpc.StatusCode.INTERNAL))
            except ArtifactError as error:
                reject(context, call, name, error, grpc.StatusCode.FAILED_PRECONDITION)
        return messages.SetTrialStatusReply()

    def _summaries_of(
        self, request: Any, rule: stopping.Rule, metric: str, goal: Goal, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        for trial in request.trials:
            if trial.status.condition != messages.TrialStatus.SUCCEEDED:
                continue
            key = (request.db_manager_address, trial.name, metric, rule)
            summary = self._summaries.get(key)
            if summary is None:
                if not context.is_active():
                    raise DatabaseError("the caller of the early stopping rules has gone.")
                texts = [value for _, value in self._logs.read(request.db_manager_address, trial.name, metric)]
                summary = rule.summary([value for value in map(number, texts) if value is not None], goal)
                if summary is None:
                    LOG.warning("too few numbers reported", extra={"trial": trial.name, "reports": len(texts)})
                    continue
                with self._lock:
                    if len(self._summaries) >= MAX_TRIALS:
                        self._summaries.clear()
                    self._summaries[key] = summary
            yield summary

    def _observation(self, trial: TrialObject) -> dict[str, Any]:
        """Return the status field `observation` of a trial's reports; empty if they are not at hand."""
        name, stated = trial["metadata"]["name"], trial["spec"]["objective"]
        objective = Objective(stated["objectiveMetricName"], tuple(stated.get("additionalMetricNames") or ()), {})
        if not self._address:
            LOG.warning("no observation", extra={"trial": name, "rule": "no rules were asked for since the start"})
            return {}
        try:
            reports = [MetricLine(metric, value) for metric, value in self._logs.read(self._address, name)]
        except DatabaseError as error:
            LOG.warning("no observation", extra={"trial": name, "rule": str(error)})
            return {}
        found = observe(reports, objective)
        if found[objective.metric].latest == UNAVAILABLE:
            return {}
        metrics = [{"name": key, **dataclasses.asdict(each)} for key, each in found.items()]
        return {"observation": {"metrics": metrics}}


def read_rule(spec: Any) -> stopping.Rule:
    """Return the rule of an ``api.v1.beta1.EarlyStoppingSpec``.

    Raises:
        ValueError: the algorithm is another, or a setting is unknown or breaks its rule.
    """
    rule = stopping.read_rule(spec.algorithm_name, {entry.name: entry.value for entry in spec.algorithm_settings})
    if rule.start_step > MOST_STEPS:
        raise InputError(f"setting start_step must be at most {MOST_STEPS:,}, but got {rule.start_step:,}.")
    return rule


def _objective(experiment: Any) -> tuple[Goal, str]:
    objective = experiment.spec.objective
    if objective.type not in GOALS:
        raise InputError(f"objective.type must be minimize or maximize, but got {objective.type}.")
    if not objective.objective_metric_name:
        raise InputError("objective.objectiveMetricName must be specified, but is empty.")
    return GOALS[objective.type], objective.objective_metric_name


def _condition() -> dict[str, str]:
    """Return the condition that Katib's own service adds, at this time."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": STOPPED,
        "status": "True",
        "reason": "TrialEarlyStopped",
        "message": "Trial is early stopped",
        "lastUpdateTime": now,
        "lastTransitionTime": now,
    }
