"""The setting `earlier` from the trials of earlier searches: results files, object stores, Experiments on a cluster."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kondense.errors import InputError
from kondense.files import parse_json
from kondense.json_text import LARGEST_JSON
from kondense.katib import results
from kondense.katib.document import read_search
from kondense.katib_search.cluster import Katib, connect_to_cluster
from kondense.katib_search.experiment import Plan
from kondense.katib_search.trials import read_trials
from kondense.search.earlier import FEWEST, MOST, SETTING
from kondense.search.goals import all_goals
from kondense.search.numbers import number
from kondense.search.run import Search
from kondense.search.suggesters import SUGGESTERS
from kondense.store.open import open_store
from kondense.store.store import NotFoundError

CLUSTER = "katib://"
ADDRESS = f"an address on a cluster must be {CLUSTER}NAMESPACE or {CLUSTER}NAMESPACE/EXPERIMENT"  # else refused
RESULTS = "results.json"

_Trial = tuple[dict[str, str], float | None, list[float | None]]
"""The shared parameters' values, the resource, and the value of each metric of the goals; None for an unknown one."""


def with_earlier(document: Mapping[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    """Return an Experiment with the trials of earlier searches in its setting `earlier`.

    Args:
        document: the Experiment.
        sources: of each search a results.json or its directory, at a path, ``minio://`` or ``s3://``, or
            ``katib://NAMESPACE/EXPERIMENT``; ``katib://NAMESPACE`` are its Experiments with this one's objective that
            share the most parameters with it.

    Raises:
        InputError: a source is no search, has another goal, or shares no parameter or too few trials.
        StoreError: a store cannot be reached.
        ClusterError: a cluster cannot be reached.
    """
    text = earlier_setting(sources, read_search(document))
    spec = document["spec"]
    entries = [entry for entry in spec["algorithm"].get("algorithmSettings") or [] if entry.get("name") != SETTING]
    algorithm = {**spec["algorithm"], "algorithmSettings": [*entries, {"name": SETTING, "value": text}]}
    return {**document, "spec": {**spec, "algorithm": algorithm}}


def earlier_setting(sources: Sequence[str], search: Search) -> str:
    """Return the text of the setting; arguments and errors as in ``with_earlier``."""
    names = [name for name in search.space.names if name != search.resource_name]
    read: dict[str, Mapping[str, Any]] = {}
    for source in sources:
        read |= _of_namespace(source, search, names) if _is_namespace(source) else {source: _read(source)}
    for source, found in read.items():
        theirs = {str(each.get("name")) for each in found["parameters"] if isinstance(each, Mapping)}
        if not theirs & set(names):
            raise InputError(
                f"an earlier search must share parameters with this one ({', '.join(names)}), but {source} has "
                f"{', '.join(sorted(theirs)) or 'none'}."
            )
        names = [name for name in names if name in theirs]
        if not names:
            raise InputError(
                f"the earlier searches must share parameters, but {', '.join(sources)} have none in common."
            )
    trials = [trial for source, found in read.items() for trial in _trials(source, found, search, names)]
    if len(trials) < FEWEST:
        raise InputError(
            f"earlier searches must have at least {FEWEST} trials with values of this space, but "
            f"{', '.join(sources)} have {len(trials)}."
        )
    return json.dumps(_chosen(trials, search), separators=(",", ":"))


def _read(source: str) -> Mapping[str, Any]:
    """Return the results of a search."""
    if source.startswith(CLUSTER):
        return _from_cluster(source)
    place, _, key = source.rpartition("/") if source.endswith(".json") else (source.rstrip("/"), "", RESULTS)
    try:
        text = open_store(place or ".").read(key, limit_bytes=LARGEST_JSON)
    except NotFoundError:
        raise InputError(f"an earlier search must be a {RESULTS} or its directory, but {source} is none.") from None
    found = parse_json(text, source, format_version=results.FORMAT_VERSION)
    fields = {"objective": dict, "parameters": list, "trials": list}
    wrong = [name for name, kind in fields.items() if not isinstance(found.get(name), kind)]
    if not wrong and not all(isinstance(trial, dict) for trial in found["trials"]):
        wrong = ["trials"]
    if wrong:
        raise InputError(f"{source} must be the results of a search, but {wrong[0]} is damaged or missing.")
    return found


def _is_namespace(source: str) -> bool:
    return source.startswith(CLUSTER) and "/" not in source.removeprefix(CLUSTER).rstrip("/")


def _of_namespace(source: str, search: Search, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return the results of the Experiments of a namespace that fit the search best, by their addresses.

    They have its objectives and trials with values, and share the most parameters with it, all of them the same.
    """
    namespace = source.removeprefix(CLUSTER).rstrip("/")
    if not namespace:
        raise InputError(f"{ADDRESS}, but got {source!r}.")
    katib = Katib(connect_to_cluster, namespace)
    metrics = {metric or search.metric for metric in all_goals(search.goals, search.goal).metrics}
    fitting: dict[frozenset[str], list[Mapping[str, Any]]] = {}
    for body in katib.experiments():
        spec = body.get("spec") or {}
        if (spec.get("algorithm") or {}).get("algorithmName") not in SUGGESTERS:
            continue  # a search of architectures, or by a service of others
        objective = spec.get("objective") or {}
        reported = {objective.get("objectiveMetricName"), *(objective.get("additionalMetricNames") or [])}
        same = objective.get("objectiveMetricName") != search.metric or objective.get("type") == search.goal
        theirs = frozenset(each.get("name") for each in spec.get("parameters") or [])
        if same and metrics <= reported and theirs & set(names):
            fitting.setdefault(theirs & set(names), []).append(body)
    for shared in sorted(fitting, key=lambda each: (-len(each), sorted(each))):
        found = {f"{CLUSTER}{namespace}/{body['metadata']['name']}": body for body in fitting[shared]}
        read = {source: _results(katib, body) for source, body in found.items()}
        if fit := {source: each for source, each in read.items() if _has_trials(source, each, search, sorted(shared))}:
            return fit
    raise InputError(
        f"a namespace of earlier searches must have an Experiment with values of {', '.join(sorted(metrics))} and with "
        f"parameters of this one ({', '.join(names)}), but {namespace} has none."
    )


def _has_trials(source: str, found: Mapping[str, Any], search: Search, names: Sequence[str]) -> bool:
    try:
        return any(True for _ in _trials(source, found, search, names))
    except InputError:  # it declares the metric, and no trial has reported it
        return False


def _results(katib: Katib, body: Mapping[str, Any]) -> Mapping[str, Any]:
    plan = Plan(body)
    trials = read_trials(katib.trials(body["metadata"]["name"]), plan)
    return results.summary(body, plan.search, trials, outcome="", reason="", best=None, finished=())


def _from_cluster(source: str) -> Mapping[str, Any]:
    namespace, slash, name = source.removeprefix(CLUSTER).partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise InputError(f"{ADDRESS}, but got {source!r}.")
    katib = Katib(connect_to_cluster, namespace)
    body = katib.get(name)
    if body is None:
        raise InputError(f"an earlier search must exist, but there is no Experiment {name} in namespace {namespace}.")
    return _results(katib, body)


def _trials(source: str, found: Mapping[str, Any], search: Search, names: Sequence[str]) -> Iterable[_Trial]:
    """Yield the trials of a search that have all values and lie in this search's space."""
    goals = all_goals(search.goals, search.goal)
    own, theirs = search.metric, found["objective"]
    if theirs.get("metric") == own and theirs.get("type") != search.goal:
        raise InputError(
            f"an earlier search must have the goal of this one, {search.goal} {own}, but {source} has "
            f"{str(theirs.get('type'))[:80]!r}."
        )
    metrics = [metric or own for metric in goals.metrics]
    objectives = len(goals.objectives)
    reported: set[str] = set()
    for trial in found["trials"]:
        texts = {str(name): str(text) for name, text in _mapping(trial, "metrics").items()}
        if theirs.get("metric") == own and isinstance(trial.get("value"), int | float):
            texts[own] = repr(float(trial["value"]))
        reported |= set(texts)
        values = [number(texts.get(metric, "")) for metric in metrics]
        assignments = _mapping(trial, "assignments")
        shared = {name: str(assignments[name]) for name in names if name in assignments}
        resource = trial.get("resource")
        if (
            trial.get("status") == "succeeded"
            and len(shared) == len(names)
            and all(search.space[name].contains(value) for name, value in shared.items())
            and None not in values[:objectives]
        ):
            yield shared, float(resource) if isinstance(resource, int | float) else None, values
    for metric in metrics[:objectives]:
        if metric not in reported:
            raise InputError(f"an earlier search must have values of {metric}, but no trial of {source} has one.")


def _mapping(trial: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    content = trial.get(name)
    return content if isinstance(content, Mapping) else {}


def _chosen(trials: list[_Trial], search: Search) -> list[_Trial]:
    """Return at most MOST trials: the best half at the largest resources, and others at even distances."""
    goals = all_goals(search.goals, search.goal)

    def key(trial: _Trial) -> tuple[float, ...]:
        losses = (each.loss(value or 0.0) for each, value in zip(goals.objectives, trial[2], strict=False))
        return (-(trial[1] or 0.0), *losses)

    ranked = sorted(trials, key=key)
    if len(ranked) <= MOST:
        return ranked
    half = MOST // 2
    rest = ranked[half:]
    return ranked[:half] + [rest[index * len(rest) // half] for index in range(half)]
