"""Limits of a local run in comparison with Katib, checked before the first trial starts."""

from collections.abc import Iterator, Mapping
from typing import Any

from kondense.katib import controller_rules, fields, replicas
from kondense.katib.fields import IN_RULE, Violation
from kondense.katib.template import NO_CHANGES, LocalChanges
from kondense.search.stopping import Rule, read_rule

from kondense_pipelines.local_search import baseline

COLLECTORS = ("StdOut", "Push", "File", "TensorFlowEvent", "None")
STOPPABLE = ("StdOut", "File")  # collectors that can stop a trial early, as on a cluster
TEMPLATE = "spec.trialTemplate"
MOST_PARALLEL = 1_000  # trials, each of which is a process here


def broken(document: Mapping[str, Any], changes: LocalChanges = NO_CHANGES) -> list[Violation]:
    """Return what keeps an Experiment from running: Katib's controller would fail, or this machine has no means.

    Args:
        document: an Experiment that complies with the webhook's rules.
        changes: what replaces the image's paths and command.
    """
    spec = document["spec"]
    return [
        *controller_rules.broken(document),
        *_search(spec),
        *_template(spec["trialTemplate"], changes),
        *_metrics(spec),
        *baseline.broken(document),
    ]


def early_stopping(spec: Mapping[str, Any]) -> Rule | None:
    """Return the rule of `earlyStopping`; None without one.

    Raises:
        ValueError: there is no such rule, or a setting breaks its rule.
    """
    stopping = spec.get("earlyStopping")
    if not stopping:
        return None
    entries = stopping.get("algorithmSettings") or []
    settings = {str(entry.get("name", "")): str(entry.get("value", "")) for entry in entries}
    return read_rule(str(stopping.get("algorithmName")), settings)


def _search(spec: Mapping[str, Any]) -> Iterator[Violation]:
    kind = spec["metricsCollectorSpec"]["collector"]["kind"]
    if "earlyStopping" in spec:
        try:
            early_stopping(spec)
        except ValueError as error:
            yield Violation("spec.earlyStopping.algorithmSettings", str(error), IN_RULE)
        if kind not in STOPPABLE:
            rule = f"needs the collector {' or '.join(STOPPABLE)}, as on a cluster"
            yield Violation("spec.earlyStopping", rule, kind)
    if (parallel := spec.get("parallelTrialCount") or 1) > MOST_PARALLEL:
        yield Violation("spec.parallelTrialCount", f"must be at most {MOST_PARALLEL:,} for a local run", parallel)
    if spec.get("maxTrialCount") is None and spec["objective"].get("goal") is None:
        rule = "spec.maxTrialCount or spec.objective.goal must be specified for a local run, or it would never end"
        yield Violation("spec.maxTrialCount", rule)


def _template(template: Mapping[str, Any], changes: LocalChanges) -> Iterator[Violation]:
    if "configMap" in template:
        rule = "must be absent for a local run: put the object into trialSpec"
        yield Violation(f"{TEMPLATE}.configMap", rule, template["configMap"])
        return
    job = template["trialSpec"]
    if job.get("kind") not in replicas.KINDS:
        rule = (
            f"is {fields.NOT_OFFERED}: must be {', '.join(replicas.KINDS[:-1])} or {replicas.KINDS[-1]} for a local run"
        )
        yield Violation(f"{TEMPLATE}.trialSpec.kind", rule, job.get("kind"))
        return
    primary = template["primaryContainerName"]
    try:
        found = replicas.replicas(job, primary)
    except (AttributeError, TypeError, ValueError) as error:
        yield Violation(f"{TEMPLATE}.trialSpec.spec", f"must be a {job['kind']}, but: {error}", IN_RULE)
        return
    if not found:
        rule = f"must be one of the {job['kind']}'s containers {replicas.names(job)}"
        yield Violation(f"{TEMPLATE}.primaryContainerName", rule, primary)
    elif not found[0].container.get("command") and not changes.command:
        rule = f"container {primary} must have a command: that of its image is not known here; --command gives one"
        yield Violation(f"{TEMPLATE}.trialSpec", rule, found[0].container.get("command"))


def _metrics(spec: Mapping[str, Any]) -> Iterator[Violation]:
    kind = spec["metricsCollectorSpec"]["collector"]["kind"]
    if kind not in COLLECTORS:
        rule = f"is {fields.NOT_OFFERED}: must be one of {', '.join(COLLECTORS)} for a local run"
        yield Violation("spec.metricsCollectorSpec.collector.kind", rule, kind)
