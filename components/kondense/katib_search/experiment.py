"""The Experiment of a katib_search step: the configured one with the step's values.

Everything here maps one parsed YAML to another, so that the request to Katib can be inspected without a cluster.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from kondense.cluster.names import PIPELINE, RUN, label_value, run_name
from kondense.errors import InputError
from kondense.json_text import json_value
from kondense.katib import controller_rules
from kondense.katib.document import read_search, settings_of
from kondense.katib.rules import API_VERSION
from kondense.katib.yaml_text import read_documents
from kondense.katib_search.config import KatibSearchConfig, read_pairs
from kondense.katib_search.job import adapt_job, set_epochs, set_flag, trial_config, trial_container
from kondense.search.conditions import SETTING as CONDITIONS
from kondense.search.earlier import SETTING as EARLIER
from kondense.search.goals import SETTINGS as GOALS
from kondense.search.hyperband import read_plan
from kondense.search.pick import read_pick
from kondense.search.run import Search
from kondense.search.space import SearchSpace
from kondense.search.start import SETTING as START
from kondense.search.suggesters import is_multi_fidelity, load_suggester

OF_SPACE = (START, CONDITIONS, EARLIER)  # settings that belong to an Experiment's own space
RUNG_SETTINGS = ("resource_name", "r_l", "max_resource", "min_resource", "eta")


@dataclasses.dataclass(frozen=True)
class Plan:
    """An Experiment to create; ``body`` is the object, ``pick`` the rule by which a trial is taken."""

    body: Mapping[str, Any]
    pick: str = ""

    @property
    def name(self) -> str:
        """The Experiment's name."""
        return str(self.body["metadata"]["name"])

    @property
    def spec(self) -> Mapping[str, Any]:
        """The Experiment's spec."""
        spec: Mapping[str, Any] = self.body["spec"]
        return spec

    @cached_property
    def search(self) -> Search:
        """The search in it."""
        objective = self.spec["objective"]
        reported = [objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or [])]
        return dataclasses.replace(read_search(self.body), pick=read_pick(self.pick, reported))


def build_plan(config: KatibSearchConfig, *, dataset_uri: str, environment: Mapping[str, str]) -> Plan:
    """Return the Experiment of a step.

    Args:
        config: the step's parameters.
        dataset_uri: the trials' data set.
        environment: this step's variables; the trials get its MINIO_ENDPOINT, MINIO_SECURE and MINIO_REGION.

    Raises:
        ValueError: the text is not an Experiment whose trials run ``kondense.cli trial``, or breaks a rule of its
            search; the error gives the rule and the value.
    """
    body = read_experiment(config.experiment)
    spec = body["spec"]
    metadata = body.get("metadata") or {}
    body["metadata"] = {
        "name": run_name("Experiment", str(metadata.get("name", "")), config.run_id),
        "labels": {
            **(metadata.get("labels") or {}),  # Katib copies them to the suggestion, which a network policy selects
            "app.kubernetes.io/part-of": "kondense",
            RUN: label_value(config.run_id),
            **({PIPELINE: label_value(config.pipeline)} if label_value(config.pipeline) else {}),
        },
        "annotations": {RUN: config.run_id, **({PIPELINE: config.pipeline} if config.pipeline else {})},
    }
    if config.space and (space := _read_space(config.space)) != spec["parameters"]:
        spec["parameters"] = space
        _write_settings(spec, {key: value for key, value in settings_of(spec).items() if key not in OF_SPACE})
    _choose_algorithm(spec, config)
    _set_resource(spec, config)
    _set_counts(spec, config)
    adapt_job(spec["trialTemplate"]["trialSpec"], config, dataset_uri=dataset_uri, environment=environment)
    _set_metrics(spec)
    plan = Plan(body, config.pick)
    _check(plan)
    return plan


def read_experiment(text: str) -> dict[str, Any]:
    """Parse an Experiment and check the fields that this step needs; Katib's webhook checks the others.

    Raises:
        ValueError: it is not an Experiment, or its trials do not run ``kondense.cli trial``.
    """
    if not text.strip():
        raise InputError("experiment must be a Katib Experiment, but got ''.")
    body = _parse("experiment", text)
    if not isinstance(body, dict) or (body.get("apiVersion"), body.get("kind")) != (API_VERSION, "Experiment"):
        raise InputError(f"experiment must be an Experiment of {API_VERSION}, but got {str(text)[:60]!r}.")
    try:
        spec = body["spec"]
        for path in ("objective", "algorithm", "parameters", "trialTemplate"):
            spec[path]
        spec["objective"]["objectiveMetricName"], spec["algorithm"]["algorithmName"]
        job = spec["trialTemplate"]["trialSpec"]
    except (KeyError, TypeError) as error:
        raise InputError(f"experiment must have a spec with {error}, but has none.") from None
    trial_container(job)
    return copy.deepcopy(body)


def _parse(name: str, text: str) -> Any:
    """Parse JSON, else YAML, which reads a number such as 1e-05 of JSON as text."""
    try:
        return json_value(text, name)
    except InputError:
        pass
    try:
        documents = read_documents(text)
    except InputError as error:
        raise InputError(f"{name} must be JSON or YAML, but: {error}") from None
    if len(documents) > 1:
        raise InputError(f"{name} must be one document, but got {len(documents)}.")
    return documents[0] if documents else None


def _read_space(text: str) -> list[dict[str, Any]]:
    space = _parse("space", text)
    if not isinstance(space, list) or not all(isinstance(item, dict) for item in space):
        raise InputError(f"space must be a list like spec.parameters of an Experiment, but got {text[:60]!r}.")
    return space


def _choose_algorithm(spec: dict[str, Any], config: KatibSearchConfig) -> None:
    """Set the algorithm and its settings; a change of the algorithm keeps those of the rungs and of the goals."""
    settings, current = settings_of(spec), spec["algorithm"]["algorithmName"]
    name = config.algorithm or current
    load_suggester(name)
    if name != current:
        settings = {key: value for key, value in settings.items() if key in (*RUNG_SETTINGS, *GOALS, CONDITIONS)}
    spec["algorithm"] = {"algorithmName": name}
    _write_settings(spec, settings | read_pairs("settings", config.settings))


def _set_resource(spec: dict[str, Any], config: KatibSearchConfig) -> None:
    """Set the resource of the highest rung to ``max_epochs``; without rungs, that of every trial to the maximum."""
    settings = settings_of(spec)
    resource = settings.get("resource_name", "")
    args = trial_container(spec["trialTemplate"]["trialSpec"])["args"]
    if not resource:
        if config.max_epochs:
            set_epochs(args, "epochs", config.max_epochs)
            set_epochs(args, "max_epochs", config.max_epochs)
        return
    parameter = next((item for item in spec["parameters"] if item.get("name") == resource), None)
    if parameter is None:
        raise InputError(f"space must have the resource {resource!r} of the Experiment's algorithm, but has not.")
    feasible = parameter.setdefault("feasibleSpace", {})
    most = config.max_epochs or int(settings.get("r_l") or settings.get("max_resource") or feasible.get("max", 0))
    if config.max_epochs:
        feasible["max"] = str(most)
        set_epochs(args, "max_epochs", most)
        settings.pop("max_resource", None)
        settings["r_l"] = str(most)
        _trim_start(spec, settings)
    if is_multi_fidelity(spec["algorithm"]["algorithmName"]):
        _write_settings(spec, settings)
        return
    _write_settings(spec, {key: value for key, value in settings.items() if key not in RUNG_SETTINGS})
    _fix(spec, resource, str(most))


def _trim_start(spec: Mapping[str, Any], settings: dict[str, str]) -> None:
    """Keep as many of the configurations to start from, the first ones, as shorter brackets have seats for."""
    points = [text for text in settings.get(START, "").split(";") if text.strip()]
    if points:
        plan, _ = read_plan(SearchSpace.from_katib(spec["parameters"]), settings)
        settings[START] = ";".join(points[: plan.brackets[-1].sizes[0]])


def _fix(spec: dict[str, Any], name: str, value: str) -> None:
    """Remove a parameter from the space and write its value into the template."""
    spec["parameters"] = [item for item in spec["parameters"] if item.get("name") != name]
    template = spec["trialTemplate"]
    fixed = [item["name"] for item in template.get("trialParameters", []) if item.get("reference") == name]
    template["trialParameters"] = [item for item in template.get("trialParameters", []) if item["name"] not in fixed]
    container = trial_container(template["trialSpec"])
    for placeholder in fixed:
        text = f"${{trialParameters.{placeholder}}}"
        container["args"] = [word.replace(text, value) for word in container["args"]]


def _set_counts(spec: dict[str, Any], config: KatibSearchConfig) -> None:
    """Set the numbers of trials; by default a search with rungs runs complete cycles of its brackets."""
    algorithm = spec["algorithm"]["algorithmName"]
    most = config.max_trials or int(spec.get("maxTrialCount") or 0)
    space = SearchSpace.from_katib(spec["parameters"])
    planned = load_suggester(algorithm).planned_trials(settings_of(spec), space)
    if planned and not config.max_trials:  # the suggestion service checks a configured number
        cycles = planned * max(1, math.ceil(most / planned))
        most = cycles if is_multi_fidelity(algorithm) else min(most or planned, planned)
    if not most:
        raise InputError("max_trials must be set: the Experiment has no maxTrialCount.")
    failed: int | None = config.max_failed_trials
    if failed == -1:  # the same fraction of the trials as in the Experiment
        limit, trials = spec.get("maxFailedTrialCount"), int(spec.get("maxTrialCount") or most)
        failed = None if limit is None else max(1, round(int(limit) * most / trials)) if limit else 0
    spec["maxTrialCount"] = most
    spec["maxFailedTrialCount"] = min(most, int(most // 2 if failed is None else failed))
    spec["parallelTrialCount"] = min(most, config.parallel_trials or int(spec.get("parallelTrialCount") or 1))


def _set_metrics(spec: Mapping[str, Any]) -> None:
    """Let trials report the objective's metrics only, because Katib's pages mistake others for it.

    They report after every epoch only if the latest value counts; otherwise an early value could decide the result.
    """
    objective = spec["objective"]
    names = [objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or [])]
    latest = [item["name"] for item in objective.get("metricStrategies") or [] if item["value"] == "latest"]
    args = trial_container(spec["trialTemplate"]["trialSpec"])["args"]
    set_flag(args, "metrics", ",".join(names))
    set_flag(args, "report-epochs", str("validation_accuracy" in names and "validation_accuracy" in latest).lower())


def _check(plan: Plan) -> None:
    """Raise the ValueError of a rule of the suggestion service, before anything is started."""
    plan.search.validate()
    names = plan.search.space.names
    if unusable := controller_rules.broken({"spec": plan.spec}):
        raise InputError(str(unusable[0]))
    references = {item.get("reference") for item in plan.spec["trialTemplate"].get("trialParameters", [])}
    if unused := [name for name in names if name not in references]:
        raise InputError(f"every parameter of the space must be in trialParameters, but {unused[0]!r} is not.")
    for reference in sorted(map(str, references)):
        if not reference.startswith("${trialSpec.") and reference not in names:
            raise InputError(f"space must have {reference!r}, which the trials' command needs, but has not.")
    (example,) = plan.search.space.from_unit(np.full((1, len(names)), 0.5))
    trial_config(plan.spec["trialTemplate"], "trial", example)


def _write_settings(spec: dict[str, Any], settings: Mapping[str, str]) -> None:
    spec["algorithm"]["algorithmSettings"] = [{"name": key, "value": value} for key, value in settings.items()]
