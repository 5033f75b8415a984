"""The rules of Katib's validating webhook for a new Experiment, all checked at once.

Every rule receives the typed document with Katib's defaults and yields its violations.

Source: validator.go of Katib 0.19; the name's pattern applies to the full name, as the webhook's text says (its code
matches only the beginning). Deviations: the webhook stops at a broken objective and at some broken trialParameters,
here all rules are checked; it skips the filters of the StdOut and Push collectors, although these use them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kondense.errors import InputError
from kondense.katib import fields, search_rules, template_rules
from kondense.katib.expressions import compiled
from kondense.katib.fields import IN_RULE, Violation
from kondense.search.stopping import RULES as STOPPING_RULES
from kondense.search.suggesters import SUGGESTERS

API_VERSION = "kubeflow.org/v1beta1"
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
PORT = re.compile(r"0*[1-9][0-9]{0,17}")  # what Go's Atoi reads as a positive number
NAME_LENGTH = 40  # characters; a trial's name has more, and Kubernetes allows 63
TYPES = ("int", "double", "categorical", "discrete")
DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal")
STRATEGIES = ("min", "max", "latest")
NOT_OFFERED = ("enas", "darts")  # Katib's, for architectures in spec.nasConfig
RESUME_POLICIES = ("Never", "LongRunning", "FromVolume")
# None is the name of Push in Katib before 0.17: trials report their metrics themselves.
COLLECTORS = ("StdOut", "Push", "File", "TensorFlowEvent", "PrometheusMetric", "Custom", "None")

Document = Mapping[str, Any]


def broken(document: Document) -> list[Violation]:
    """Return all violations of the webhook's rules in a typed Experiment."""
    return [violation for rule in RULES for violation in rule(document)]


def _kind(document: Document) -> Iterator[Violation]:
    for field, expected in (("apiVersion", API_VERSION), ("kind", "Experiment")):
        if (value := document.get(field)) != expected:
            yield Violation(field, f"must be {expected}", value)


def _name(document: Document) -> Iterator[Violation]:
    name = document.get("metadata", {}).get("name", "")
    if not NAME.fullmatch(name):
        rule = "must be lower-case letters, digits and '-', start with a letter, end with a letter or digit"
        yield Violation("metadata.name", rule, name)
    if len(name) > NAME_LENGTH:
        yield Violation("metadata.name", f"must have at most {NAME_LENGTH} characters", name)


def _counts(document: Document) -> Iterator[Violation]:
    spec = document["spec"]
    failed, most, parallel = (spec.get(key) for key in ("maxFailedTrialCount", "maxTrialCount", "parallelTrialCount"))
    if failed is not None and failed < 0:
        yield Violation("spec.maxFailedTrialCount", "must be at least 0", failed)
    if most is not None and most <= 0:
        yield Violation("spec.maxTrialCount", "must be greater than 0", most)
    if parallel is not None and parallel <= 0:
        yield Violation("spec.parallelTrialCount", "must be greater than 0", parallel)
    for field, count in (("maxFailedTrialCount", failed), ("parallelTrialCount", parallel)):
        if count is not None and most is not None and count > most:
            yield Violation(f"spec.{field}", f"must be at most spec.maxTrialCount={most}", count)


def _objective(document: Document) -> Iterator[Violation]:
    objective = document["spec"].get("objective")
    if objective is None:
        yield Violation("spec.objective", "must be specified")
        return
    if objective.get("type") not in ("minimize", "maximize"):
        yield Violation("spec.objective.type", "must be minimize or maximize", objective.get("type"))
    metric = objective.get("objectiveMetricName", "")
    if not metric:
        yield Violation("spec.objective.objectiveMetricName", "must be specified", metric)
    additional = objective.get("additionalMetricNames", [])
    if metric in additional:
        rule = "must not contain spec.objective.objectiveMetricName"
        yield Violation("spec.objective.additionalMetricNames", rule, additional)
    for i, strategy in enumerate(objective.get("metricStrategies", [])):
        if strategy.get("value") not in STRATEGIES:
            path = f"spec.objective.metricStrategies[{i}].value"
            yield Violation(path, f"must be one of {', '.join(STRATEGIES)}", strategy.get("value"))


def _algorithm(document: Document) -> Iterator[Violation]:
    algorithm = document["spec"].get("algorithm")
    if algorithm is None:
        yield Violation("spec.algorithm", "must be specified")
    elif algorithm.get("algorithmName") in NOT_OFFERED:
        rule = f"is an algorithm of Katib that is {fields.NOT_OFFERED}; offered are {', '.join(sorted(SUGGESTERS))}"
        yield Violation("spec.algorithm.algorithmName", rule, algorithm.get("algorithmName"))
    elif algorithm.get("algorithmName") not in SUGGESTERS:
        rule = f"must be one of {', '.join(sorted(SUGGESTERS))}"
        yield Violation("spec.algorithm.algorithmName", rule, algorithm.get("algorithmName"))


def _early_stopping(document: Document) -> Iterator[Violation]:
    stopping = document["spec"].get("earlyStopping")
    if stopping is not None and stopping.get("algorithmName") not in STOPPING_RULES:
        rule = f"must be one of {', '.join(STOPPING_RULES)}"
        yield Violation("spec.earlyStopping.algorithmName", rule, stopping.get("algorithmName"))


def _resume_policy(document: Document) -> Iterator[Violation]:
    policy = document["spec"].get("resumePolicy")
    if policy not in RESUME_POLICIES:
        yield Violation("spec.resumePolicy", f"must be one of {', '.join(RESUME_POLICIES)}", policy)


def _parameters_or_nas(document: Document) -> Iterator[Violation]:
    spec = document["spec"]
    if not spec.get("parameters") and "nasConfig" not in spec:
        yield Violation("spec", "spec.parameters or spec.nasConfig must be specified", sorted(spec))
    if spec.get("parameters") and "nasConfig" in spec:
        yield Violation("spec", "only one of spec.parameters and spec.nasConfig may be specified", sorted(spec))
    elif "nasConfig" in spec:
        rule = f"is {fields.NOT_OFFERED}: Katib's search of architectures, of the algorithms"
        yield Violation("spec.nasConfig", f"{rule} {' and '.join(NOT_OFFERED)}.", IN_RULE)


def _parameters(document: Document) -> Iterator[Violation]:
    seen: set[str] = set()
    for i, parameter in enumerate(document["spec"].get("parameters", [])):
        path, name = f"spec.parameters[{i}]", parameter.get("name", "")
        if not name:
            yield Violation(f"{path}.name", "must be specified", name)
        elif name in seen:  # Katib takes it, but one assignment is then one too many to start a trial with
            yield Violation(f"{path}.name", "must be unique among spec.parameters", name)
        seen.add(name)
        if parameter.get("parameterType") not in TYPES:
            yield Violation(
                f"{path}.parameterType", f"must be one of {', '.join(TYPES)}", parameter.get("parameterType")
            )
        yield from _feasible_space(path, parameter)


def _feasible_space(path: str, parameter: Document) -> Iterator[Violation]:
    space, kind = parameter.get("feasibleSpace"), parameter.get("parameterType")
    path = f"{path}.feasibleSpace"
    if not space:
        yield Violation(path, "must be specified", space)
        return
    if space.get("distribution") not in DISTRIBUTIONS:
        rule = f"must be one of {', '.join(DISTRIBUTIONS)}"
        yield Violation(f"{path}.distribution", rule, space.get("distribution"))
    if kind in ("int", "double"):
        if "list" in space:
            yield Violation(f"{path}.list", f"must be absent for parameterType {kind}", space["list"])
        for bound in ("min", "max"):
            if not space.get(bound):
                yield Violation(f"{path}.{bound}", f"must be specified for parameterType {kind}", space.get(bound))
    elif kind in ("categorical", "discrete"):
        for bound in ("min", "max", "step"):
            if space.get(bound):
                yield Violation(f"{path}.{bound}", f"must be absent for parameterType {kind}", space[bound])


def _collector(document: Document) -> Iterator[Violation]:
    collector = document["spec"]["metricsCollectorSpec"]
    kind = collector["collector"].get("kind")
    source = collector.get("source", {})
    path = "spec.metricsCollectorSpec"
    if kind not in COLLECTORS:
        yield Violation(f"{path}.collector.kind", f"must be one of {', '.join(COLLECTORS)}", kind)
    check = _COLLECTOR_CHECKS.get(kind)
    if check is not None:
        yield from check(f"{path}.source", source)
    if kind == "Custom" and "customCollector" not in collector["collector"]:
        yield Violation(f"{path}.collector.customCollector", "must be specified for the Custom collector")
    yield from _filters(f"{path}.source.filter.metricsFormat", source)


def _file(path: str, source: Document) -> Iterator[Violation]:
    file = source.get("fileSystemPath", {})
    if file.get("kind") != "File" or not file.get("path", "").startswith("/"):
        yield Violation(f"{path}.fileSystemPath", "must be of kind File with an absolute path", file)
    if file.get("format") not in ("TEXT", "JSON"):
        yield Violation(f"{path}.fileSystemPath.format", "must be TEXT or JSON", file.get("format"))
    if file.get("format") == "JSON" and "filter" in source:
        yield Violation(f"{path}.filter", "must be absent when the file's format is JSON", source["filter"])


def _events(path: str, source: Document) -> Iterator[Violation]:
    file = source.get("fileSystemPath", {})
    if file.get("kind") != "Directory" or not file.get("path", "").startswith("/"):
        yield Violation(f"{path}.fileSystemPath", "must be of kind Directory with an absolute path", file)
    if file.get("format"):
        yield Violation(f"{path}.fileSystemPath.format", "must be empty", file["format"])


def _prometheus(path: str, source: Document) -> Iterator[Violation]:
    get = source.get("httpGet", {})
    if not PORT.fullmatch(str(get.get("port"))):
        yield Violation(f"{path}.httpGet.port", "must be a positive integer", get.get("port"))
    if not str(get.get("path", "")).startswith("/"):
        yield Violation(f"{path}.httpGet.path", "must start with '/'", get.get("path"))


def _custom(path: str, source: Document) -> Iterator[Violation]:
    file = source.get("fileSystemPath")
    if file is not None and (file.get("kind") not in ("File", "Directory") or not file.get("path", "").startswith("/")):
        yield Violation(f"{path}.fileSystemPath", "must be of kind File or Directory with an absolute path", file)


_COLLECTOR_CHECKS: dict[object, Callable[[str, Document], Iterator[Violation]]] = {
    "File": _file,
    "TensorFlowEvent": _events,
    "PrometheusMetric": _prometheus,
    "Custom": _custom,
}


def _filters(path: str, source: Document) -> Iterator[Violation]:
    for expression in source.get("filter", {}).get("metricsFormat", []):
        try:
            groups = compiled(expression).groups
        except InputError as error:
            yield Violation(path, str(error), IN_RULE)
            continue
        if groups < 2:
            yield Violation(path, "must have two groups, the metric's name and its value", expression)


RULES: tuple[Callable[[Document], Iterator[Violation]], ...] = (
    _kind,
    _name,
    _counts,
    _objective,
    _algorithm,
    _early_stopping,
    _resume_policy,
    _parameters_or_nas,
    _parameters,
    _collector,
    template_rules.broken,
    search_rules.broken,
)
