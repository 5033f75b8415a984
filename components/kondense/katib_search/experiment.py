"""The Experiment that a katib_search step starts: the given one with the step's values in the place of its own.

Everything here maps one parsed YAML to another, so that what is sent to Katib can be looked at without a cluster.
"""

import copy
import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from kondense.errors import InputError
from kondense.katib_search.config import KatibSearchConfig, read_pairs
from kondense.katib_search.job import adapt_job, set_epochs, set_flag, trial_config, trial_container
from kondense.search.history import Goal
from kondense.search.hyperband import read_plan
from kondense.search.space import SearchSpace
from kondense.search.start import SETTING as START
from kondense.search.suggesters import SUGGESTERS, load_suggester

API_VERSION = "kubeflow.org/v1beta1"
NAME_LENGTH = 40  # characters; Katib's limit
ID_LENGTH = 16  # characters of the run's id that a name keeps
RUN = "kondense/run"  # the annotation that tells whose an Experiment is, and the label to find it by
PIPELINE = "kondense/pipeline"  # the annotation and the label of the run's pipeline
LABEL_LENGTH = 63  # characters of a label's value; Kubernetes' limit
WITH_RUNGS = ("hyperband", "bohb")
RUNG_SETTINGS = ("resource_name", "r_l", "max_resource", "min_resource", "eta")


@dataclasses.dataclass(frozen=True)
class Plan:
    """An Experiment to send, and what choosing among its trials needs.

    Attributes:
        body: the object.
        resource_name: the parameter that carries the resource; empty for a search without one.
        max_resource: what a trial of the highest rung gets; None without a resource.
    """

    body: Mapping[str, Any]
    resource_name: str = ""
    max_resource: float | None = None

    @property
    def name(self) -> str:
        """The Experiment's name."""
        return str(self.body["metadata"]["name"])

    @property
    def spec(self) -> Mapping[str, Any]:
        """The Experiment's spec."""
        spec: Mapping[str, Any] = self.body["spec"]
        return spec

    @property
    def metric(self) -> str:
        """The name of the objective."""
        return str(self.spec["objective"]["objectiveMetricName"])

    @property
    def goal(self) -> Goal:
        """The direction of the objective."""
        return "maximize" if self.spec["objective"]["type"] == "maximize" else "minimize"


def build_plan(config: KatibSearchConfig, *, dataset_uri: str, environment: Mapping[str, str]) -> Plan:
    """Return the Experiment of a step.

    Args:
        config: the step's parameters.
        dataset_uri: where trials find the data set.
        environment: this step's variables; MINIO_ENDPOINT and MINIO_SECURE are handed to the trials.

    Raises:
        ValueError: the text is no Experiment whose trials run ``kondense.cli trial``, or a rule of its search is
            broken; the text gives rule and value.
    """
    body = read_experiment(config.experiment)
    spec = body["spec"]
    given = body.get("metadata") or {}
    body["metadata"] = {
        "name": experiment_name(str(given.get("name", "")), config.run_id),
        "labels": {
            **(given.get("labels") or {}),  # Katib hands them on to the suggestion, which a network policy selects
            "app.kubernetes.io/part-of": "kondense",
            RUN: label_value(config.run_id),
            **({PIPELINE: label_value(config.pipeline)} if label_value(config.pipeline) else {}),
        },
        "annotations": {RUN: config.run_id, **({PIPELINE: config.pipeline} if config.pipeline else {})},
    }
    if config.space and (space := _read_space(config.space)) != spec["parameters"]:
        spec["parameters"] = space
        # Where to start from was stated for the Experiment's own space.
        _write_settings(spec, {key: value for key, value in _settings(spec).items() if key != START})
    _choose_algorithm(spec, config)
    plan = _set_resource(body, config)
    _set_counts(spec, config)
    adapt_job(spec["trialTemplate"]["trialSpec"], config, dataset_uri=dataset_uri, environment=environment)
    _set_metrics(spec)
    _check(spec)
    return plan


def read_experiment(text: str) -> dict[str, Any]:
    """Parse an Experiment and check what this step relies on; Katib's webhook checks the rest.

    Raises:
        ValueError: it is none, or its trials run something else than ``kondense.cli trial``.
    """
    if not text.strip():
        raise InputError("experiment must hold a Katib Experiment, but got ''.")
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


def experiment_name(base: str, run_id: str) -> str:
    """Return the name of a run's Experiment: the same for every attempt of its step, of at most 40 characters.

    Raises:
        ValueError: the run has no id, or the base is no name.
    """
    identity = re.sub(r"[^a-z0-9]", "", run_id.lower())[:ID_LENGTH]
    if not identity:
        raise InputError(f"run_id must be the id of a pipeline run, but got {run_id!r}.")
    prefix = base[: NAME_LENGTH - ID_LENGTH - 1].rstrip("-")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", prefix):
        raise InputError(f"the Experiment's name must be a-z, 0-9 and dashes after a letter, but got {base!r}.")
    return f"{prefix}-{identity}"


def label_value(text: str) -> str:
    """Return a text as the value of a label: letters, digits, dashes, dots and underscores between two of the first."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:LABEL_LENGTH].rstrip("-_.")


def _parse(name: str, text: str) -> Any:
    """Parse JSON, else YAML, which reads a number such as 1e-05 of JSON as text."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{name} must be JSON or YAML, but: {error}") from None


def _read_space(text: str) -> list[dict[str, Any]]:
    space = _parse("space", text)
    if not isinstance(space, list) or not all(isinstance(each, dict) for each in space):
        raise InputError(f"space must be a list like spec.parameters of an Experiment, but got {text[:60]!r}.")
    return space


def _choose_algorithm(spec: dict[str, Any], config: KatibSearchConfig) -> None:
    """Put the chosen algorithm and its settings into the spec; another algorithm keeps only the rungs' settings."""
    current = spec["algorithm"]
    settings = {item["name"]: str(item["value"]) for item in current.get("algorithmSettings") or []}
    name = config.algorithm or current["algorithmName"]
    if name not in SUGGESTERS:
        raise InputError(f"algorithm must be one of {', '.join(SUGGESTERS)}, but got {name!r}.")
    if name != current["algorithmName"]:
        settings = {key: value for key, value in settings.items() if key in RUNG_SETTINGS}
    settings |= read_pairs("settings", config.settings)
    spec["algorithm"] = {
        "algorithmName": name,
        "algorithmSettings": [{"name": key, "value": value} for key, value in settings.items()],
    }


def _set_resource(body: dict[str, Any], config: KatibSearchConfig) -> Plan:
    """Give the highest rung ``max_epochs``; without rungs, give every trial the most there is."""
    spec = body["spec"]
    settings = _settings(spec)
    resource = settings.get("resource_name", "")
    args = trial_container(spec["trialTemplate"]["trialSpec"])["args"]
    if not resource:
        if config.max_epochs:
            set_epochs(args, "epochs", config.max_epochs)
            set_epochs(args, "max_epochs", config.max_epochs)
        return Plan(body)
    parameter = next((each for each in spec["parameters"] if each.get("name") == resource), None)
    if parameter is None:
        raise InputError(f"space must hold the resource {resource!r} of the Experiment's algorithm, but does not.")
    feasible = parameter.setdefault("feasibleSpace", {})
    most = config.max_epochs or int(settings.get("r_l") or settings.get("max_resource") or feasible.get("max", 0))
    if config.max_epochs:
        feasible["max"] = str(most)
        set_epochs(args, "max_epochs", most)
        settings.pop("max_resource", None)
        settings["r_l"] = str(most)
    if spec["algorithm"]["algorithmName"] in WITH_RUNGS:
        _write_settings(spec, settings)
        return Plan(body, resource, float(most))
    _write_settings(spec, {key: value for key, value in settings.items() if key not in RUNG_SETTINGS})
    _fix(spec, resource, str(most))
    return Plan(body)


def _fix(spec: dict[str, Any], name: str, value: str) -> None:
    """Take a parameter out of the space and write its value into the template."""
    spec["parameters"] = [each for each in spec["parameters"] if each.get("name") != name]
    template = spec["trialTemplate"]
    fixed = [each["name"] for each in template.get("trialParameters", []) if each.get("reference") == name]
    template["trialParameters"] = [each for each in template.get("trialParameters", []) if each["name"] not in fixed]
    container = trial_container(template["trialSpec"])
    for each in fixed:
        container["args"] = [word.replace(f"${{trialParameters.{each}}}", value) for word in container["args"]]


def _set_counts(spec: dict[str, Any], config: KatibSearchConfig) -> None:
    """Set how many trials there are; a search with rungs runs whole cycles of its brackets."""
    most = config.max_trials or int(spec.get("maxTrialCount") or 0)
    planned = load_suggester(spec["algorithm"]["algorithmName"]).planned_trials(_settings(spec), _space(spec))
    if planned and not config.max_trials:  # what the user asks for is not bent; the suggestion service checks it
        whole = planned * max(1, math.ceil(most / planned))
        most = whole if spec["algorithm"]["algorithmName"] in WITH_RUNGS else min(most or planned, planned)
    if not most:
        raise InputError("max_trials must be given: the Experiment has no maxTrialCount.")
    failed = config.max_failed_trials
    if failed < 0:  # as large a share of the trials as the Experiment says
        stated, trials = spec.get("maxFailedTrialCount"), int(spec.get("maxTrialCount") or most)
        failed = None if stated is None else max(1, round(int(stated) * most / trials)) if stated else 0
    spec["maxTrialCount"] = most
    spec["maxFailedTrialCount"] = min(most, int(most // 2 if failed is None else failed))
    spec["parallelTrialCount"] = min(most, config.parallel_trials or int(spec.get("parallelTrialCount") or 1))


def _set_metrics(spec: Mapping[str, Any]) -> None:
    """Let trials report the metrics of the objective and no others, which Katib's pages would take for it.

    After every epoch only where the latest value counts: elsewhere it would decide the trial's value.
    """
    objective = spec["objective"]
    names = [objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or [])]
    latest = [each["name"] for each in objective.get("metricStrategies") or [] if each["value"] == "latest"]
    args = trial_container(spec["trialTemplate"]["trialSpec"])["args"]
    set_flag(args, "metrics", ",".join(names))
    set_flag(args, "report-epochs", str("validation_accuracy" in names and "validation_accuracy" in latest).lower())


def _check(spec: Mapping[str, Any]) -> None:
    """Raise ValueError for what the suggestion service would refuse, before anything is started."""
    name, settings, space = spec["algorithm"]["algorithmName"], _settings(spec), _space(spec)
    load_suggester(name).validate(
        space,
        settings,
        max_trial_count=spec["maxTrialCount"],
        parallel_trial_count=spec["parallelTrialCount"],
    )
    if name in WITH_RUNGS:
        read_plan(space, settings)
    references = {each.get("reference") for each in spec["trialTemplate"].get("trialParameters", [])}
    if unused := [each for each in space.names if each not in references]:
        raise InputError(f"every parameter of the space must be one of trialParameters, but {unused[0]!r} is none.")
    for reference in sorted(str(each) for each in references):
        if not reference.startswith("${trialSpec.") and reference not in space.names:
            raise InputError(f"space must hold {reference!r}, which the trials' command takes, but does not.")
    (example,) = space.from_unit(np.full((1, len(space.names)), 0.5))
    trial_config(spec["trialTemplate"], "trial", example)


def _space(spec: Mapping[str, Any]) -> SearchSpace:
    return SearchSpace.from_katib(spec["parameters"])


def _settings(spec: Mapping[str, Any]) -> dict[str, str]:
    return {item["name"]: str(item["value"]) for item in spec["algorithm"].get("algorithmSettings") or []}


def _write_settings(spec: dict[str, Any], settings: Mapping[str, str]) -> None:
    spec["algorithm"]["algorithmSettings"] = [{"name": key, "value": value} for key, value in settings.items()]
