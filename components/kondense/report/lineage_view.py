"""The lineage of all candidates as one tree; shared steps appear once. Stdlib only."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from kondense.artifacts.report import Candidate, LineageRecord, Report, models
from kondense.report.markup import Child, Markup, element


@dataclasses.dataclass
class Step:
    """A lineage record, the following steps, and the models that end with it."""

    record: LineageRecord | None
    followers: dict[str, "Step"] = dataclasses.field(default_factory=dict)
    ends: list[Candidate] = dataclasses.field(default_factory=list)


def lineage_tree(report: Report) -> Step:
    """Return the root, the data set; models with equal records share their steps."""
    root = Step(None)
    for model in models(report):
        step = root
        for record in model["lineage"]:
            key = json.dumps(record, sort_keys=True)
            step = step.followers.setdefault(key, Step(record))
        step.ends.append(model)
    return root


def lineage_view(report: Report) -> Markup:
    """Return the tree as nested lists; each step opens to its configuration, digests and versions."""
    dataset = report["dataset"]
    sizes = ", ".join(f"{count:,} {split}" for split, count in dataset["splits"].items())
    root = element(
        "div",
        element("span", "data", class_="stage"),
        element("span", dataset["name"], class_="summary-text"),
        element("span", f"{sizes}; seed {dataset['seed']}; {dataset['source']}", class_="muted"),
        class_="step",
    )
    tree = element("li", root, _followers(lineage_tree(report), report))
    return element("ul", tree, class_="tree")


def pairs(values: Mapping[str, Any], *, kind: str = "pairs-list") -> Markup:
    """Return a mapping as a description list; ``kind`` is its class: ``pairs-list`` or ``pairs-list digests``."""
    return element(
        "dl",
        [element("div", element("dt", key), element("dd", _written(value))) for key, value in values.items()],
        class_=kind,
    )


def _followers(step: Step, report: Report) -> Markup | None:
    if not step.followers:
        return None
    return element(
        "ul",
        [element("li", _step(follower, report), _followers(follower, report)) for follower in step.followers.values()],
    )


def _step(step: Step, report: Report) -> Markup:
    record = step.record
    assert record is not None, "only the root has no record"
    heading = [
        element("span", record["stage"], class_="stage"),
        element("span", record["summary"].removeprefix(record["stage"]).strip(), class_="summary-text"),
        [_end(model, report) for model in step.ends],
    ]
    parts: list[Child] = [
        _part("Configuration", record["config"]),
        _part("Measured by the step", record["metrics"]),
        _part("Inputs, sha256", record["inputs"], kind="pairs-list digests"),
        _part("Result, sha256", {model["name"]: model["digest"] for model in step.ends}, kind="pairs-list digests"),
        _part("Versions", record["versions"] | {"source revision": record.get("revision", "")}),
    ]
    return element("details", element("summary", heading), element("div", parts, class_="record"), class_="step")


def _end(model: Candidate, report: Report) -> Markup:
    kind = "tag chosen" if model["name"] == report["chosen"] else "tag name"
    return element("span", model["name"], class_=kind)


def _part(title: str, values: Mapping[str, Any], *, kind: str = "pairs-list") -> list[Markup] | None:
    return [element("h4", title), pairs(values, kind=kind)] if values else None


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if value != "" else "–"
