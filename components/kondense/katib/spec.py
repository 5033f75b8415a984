"""A Katib Experiment: read from YAML, completed with Katib's defaults, checked, and typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kondense.errors import InputError
from kondense.katib import fields, rules
from kondense.katib.document import read_search
from kondense.katib.fields import Violation
from kondense.search.run import Search

DEFAULT_PARALLEL = 3  # Katib's default for parallelTrialCount
DEFAULT_METRICS_FILE = "/var/log/katib/metrics.log"
DEFAULT_EVENTS_DIRECTORY = "/var/log/katib/tfevent/"
# Katib's filter: name = number. `loss=nan` matches with an EMPTY value.
DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
CONDITION = 'status.conditions.#(type=="{}")#|#(status=="True")#'
JOBS_ENDING_COMPLETE = ("Job", "TrainJob")  # by the condition that tells their success
CANNOT_RUN = "cannot run here for {} reason(s)"  # what an ExperimentError says of what Katib takes
JOBS_ENDING_SUCCEEDED = ("PyTorchJob", "TFJob", "XGBoostJob", "MPIJob")


class ExperimentError(InputError):
    """An Experiment breaks rules; `violations` has all of them, and the text has one per line."""

    def __init__(
        self,
        source: str,
        violations: list[Violation],
        lines: Mapping[str, int] | None = None,
        *,
        what: str = "",
    ) -> None:
        """Put the violations in the order of the file.

        Args:
            source: the file, or another word for it.
            violations: at least one.
            lines: line numbers by path.
            what: says of the source what its violations mean; `{}` is their number. Empty: that it breaks rules of
                Katib, or where Katib takes all of them, that it cannot run here.
        """
        from kondense.katib.yaml_text import line_of  # the early stopping service reads no YAML

        if not what:
            taken = all(fields.NOT_OFFERED in violation.rule for violation in violations)
            what = CANNOT_RUN if taken else "breaks {} rule(s) of a Katib Experiment"
        located = [(line_of(violation.path, lines or {}), violation) for violation in violations]
        located.sort(key=lambda each: each[0] or 0)
        self.violations = [violation for _, violation in located]
        texts = [f"  - {'' if line is None else f'line {line}: '}{violation}" for line, violation in located]
        super().__init__("\n".join([f"{source} {what.format(len(texts))}:", *texts]))


@dataclass(frozen=True)
class Objective:
    """The metrics of a trial."""

    metric: str  # the one that is optimized
    additional: tuple[str, ...]
    strategies: Mapping[str, str]  # metric name -> min, max or latest


@dataclass(frozen=True)
class Collector:
    """The source of a trial's metrics."""

    kind: str  # StdOut, Push, File, ...
    filters: tuple[str, ...]  # regular expressions of two groups: name and value
    path: str  # of the metrics file, for File
    format: str  # TEXT or JSON


@dataclass(frozen=True)
class Experiment:
    """A checked Experiment; `document` is the typed YAML with the defaults filled in."""

    search: Search
    namespace: str
    objective: Objective
    collector: Collector
    document: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)  # of the fields in the file, by their paths

    @property
    def name(self) -> str:
        """The Experiment's name."""
        return self.search.name

    @property
    def template(self) -> Mapping[str, Any]:
        """The trial template, ``spec.trialTemplate``."""
        template: Mapping[str, Any] = self.document["spec"]["trialTemplate"]
        return template

    @property
    def trial_spec(self) -> Mapping[str, Any]:
        """The Job in the template, with its placeholders."""
        spec: Mapping[str, Any] = self.template["trialSpec"]
        return spec


def load(path: Path) -> Experiment:
    """Read, complete and check one Experiment.

    Args:
        path: a YAML file with exactly one document.

    Raises:
        ExperimentError: the file breaks rules, all of which are listed.
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(
            f"the Experiment must be a YAML file, but {path} {'is a directory' if path.is_dir() else 'does not exist'}."
        )
    try:
        from kondense.katib.yaml_text import read_located

        documents = read_located(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError, too
        raise ExperimentError(str(path), [Violation(path.name, str(error), fields.IN_RULE)]) from None
    if len(documents) != 1:
        raise ExperimentError(
            str(path), [Violation(path.name, "must contain exactly one YAML document", len(documents))]
        )
    document, lines = documents[0]
    return replace(parse(document, source=str(path), lines=lines), lines=lines)


def parse(document: Any, *, source: str = "the Experiment", lines: Mapping[str, int] | None = None) -> Experiment:
    """Complete and check one parsed Experiment; errors as in `load`."""
    if not isinstance(document, Mapping):
        raise ExperimentError(
            source, [Violation(Path(source).name, "must be a mapping with metadata and spec", document)]
        )
    violations: list[Violation] = []
    typed: dict[str, Any] = fields.typed(document, fields.EXPERIMENT, "", violations)
    _fill_defaults(typed)
    reported = {violation.path for violation in violations}  # a field of a wrong type is not also a missing one
    violations += [violation for violation in rules.broken(typed) if violation.path not in reported]
    if violations:
        raise ExperimentError(source, violations, lines)
    return _experiment(typed)


def _fill_defaults(document: dict[str, Any]) -> None:
    """Fill in the defaults of Katib's mutating webhook, in place.

    Source: experiment_defaults.go of Katib 0.19.
    """
    spec = document.setdefault("spec", {})
    spec.setdefault("parallelTrialCount", DEFAULT_PARALLEL)
    spec.setdefault("resumePolicy", "Never")
    if objective := spec.get("objective"):
        _fill_strategies(objective)
    template = spec.get("trialTemplate")
    kind = template.get("trialSpec", {}).get("kind") if template else None
    if template and kind in (*JOBS_ENDING_COMPLETE, *JOBS_ENDING_SUCCEEDED):
        ended = "Complete" if kind in JOBS_ENDING_COMPLETE else "Succeeded"
        template.setdefault("successCondition", CONDITION.format(ended))
        template.setdefault("failureCondition", CONDITION.format("Failed"))
    _fill_collector(spec.setdefault("metricsCollectorSpec", {}))
    for parameter in spec.get("parameters", []):
        if "feasibleSpace" in parameter:
            parameter["feasibleSpace"].setdefault("distribution", "uniform")


def _fill_strategies(objective: dict[str, Any]) -> None:
    extreme = {"minimize": "min", "maximize": "max"}.get(objective.get("type", ""), "latest")
    strategies = objective.setdefault("metricStrategies", [])
    named = {strategy.get("name") for strategy in strategies}
    for metric in [objective.get("objectiveMetricName", ""), *objective.get("additionalMetricNames", [])]:
        if metric not in named:
            strategies.append({"name": metric, "value": extreme})


def _fill_collector(collector_spec: dict[str, Any]) -> None:
    kind = collector_spec.setdefault("collector", {"kind": "StdOut"}).get("kind")
    if kind == "File":
        file = collector_spec.setdefault("source", {}).setdefault("fileSystemPath", {})
        for key, value in {"kind": "File", "path": DEFAULT_METRICS_FILE, "format": "TEXT"}.items():
            file.setdefault(key, value)
    elif kind == "TensorFlowEvent":
        file = collector_spec.setdefault("source", {}).setdefault("fileSystemPath", {})
        file.setdefault("kind", "Directory")
        file.setdefault("path", DEFAULT_EVENTS_DIRECTORY)
    elif kind == "PrometheusMetric":
        get = collector_spec.setdefault("source", {}).setdefault("httpGet", {})
        get.setdefault("path", "/metrics")
        get.setdefault("port", 8080)


def _experiment(document: dict[str, Any]) -> Experiment:
    spec = document["spec"]
    objective = spec["objective"]
    return Experiment(
        search=read_search(document),
        namespace=document["metadata"].get("namespace", "default"),
        objective=Objective(
            metric=objective["objectiveMetricName"],
            additional=tuple(objective.get("additionalMetricNames", [])),
            strategies={item.get("name", ""): item["value"] for item in objective["metricStrategies"]},
        ),
        collector=_collector(spec["metricsCollectorSpec"]),
        document=document,
    )


def _collector(collector_spec: Mapping[str, Any]) -> Collector:
    source = collector_spec.get("source", {})
    file = source.get("fileSystemPath", {})
    filters = tuple(source.get("filter", {}).get("metricsFormat", [])) or (DEFAULT_FILTER,)
    return Collector(
        kind=collector_spec["collector"]["kind"],
        filters=filters,
        path=file.get("path", ""),
        format=file.get("format", "TEXT"),
    )
