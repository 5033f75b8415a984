"""Limits of a local run in comparison with Katib, checked before the first trial starts."""

from collections.abc import Iterator, Mapping
from typing import Any

from kondense.katib.fields import Violation

from kondense_pipelines.local_search import baseline

COLLECTORS = ("StdOut", "Push", "File")
TEMPLATE = "spec.trialTemplate"


def broken(document: Mapping[str, Any]) -> list[Violation]:
    """Return the fields that a local run of this Experiment does not support.

    Args:
        document: an Experiment that complies with the webhook's rules.
    """
    spec = document["spec"]
    return [*_search(spec), *_template(spec["trialTemplate"]), *_metrics(spec), *baseline.broken(document)]


def _search(spec: Mapping[str, Any]) -> Iterator[Violation]:
    for key in ("nasConfig", "earlyStopping"):
        if key in spec:
            yield Violation(f"spec.{key}", "must be absent for a local run", spec[key])
    if spec.get("maxTrialCount") is None and spec["objective"].get("goal") is None:
        rule = "spec.maxTrialCount or spec.objective.goal must be specified for a local run, or it would never end"
        yield Violation("spec.maxTrialCount", rule)


def _template(template: Mapping[str, Any]) -> Iterator[Violation]:
    if "configMap" in template:
        rule = "must be absent for a local run: put the Job into trialSpec"
        yield Violation(f"{TEMPLATE}.configMap", rule, template["configMap"])
        return
    job = template["trialSpec"]
    if job.get("kind") != "Job":
        yield Violation(f"{TEMPLATE}.trialSpec.kind", "must be Job for a local run", job.get("kind"))
        return
    containers = (((job.get("spec") or {}).get("template") or {}).get("spec") or {}).get("containers") or []
    primary = template["primaryContainerName"]
    named = [container for container in containers if container.get("name") == primary]
    if not named:
        names = [container.get("name") for container in containers]
        yield Violation(f"{TEMPLATE}.primaryContainerName", f"must be one of the Job's containers {names}", primary)
    elif not named[0].get("command"):
        rule = f"container {primary} must have a command: that of its image is not known here"
        yield Violation(f"{TEMPLATE}.trialSpec", rule, named[0].get("command"))


def _metrics(spec: Mapping[str, Any]) -> Iterator[Violation]:
    collector = spec["metricsCollectorSpec"]
    kind = collector["collector"]["kind"]
    if kind not in COLLECTORS:
        rule = f"must be one of {', '.join(COLLECTORS)} for a local run"
        yield Violation("spec.metricsCollectorSpec.collector.kind", rule, kind)
    if kind == "File":
        path = collector["source"]["fileSystemPath"]["path"]
        if path not in str(spec["trialTemplate"].get("trialSpec")):
            # On a cluster each pod has its own file; a local run replaces the path by one in the trial's directory.
            rule = (
                "must occur in the trial's command or variables for a local run, so that each trial gets its own file"
            )
            yield Violation("spec.metricsCollectorSpec.source.fileSystemPath.path", rule, path)
