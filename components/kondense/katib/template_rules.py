"""The webhook's rules for ``spec.trialTemplate``.

Source: validateTrialTemplate and validateTrialJob in validator.go of Katib 0.19.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kondense.katib import job_schema
from kondense.katib.fields import IN_RULE, Violation

META_REFERENCE = re.compile(r"\$\{trialSpec\.([^{}]+)\}")
OPENING = "${trialParameters."
META_KEYS = ("Name", "Namespace", "Kind", "APIVersion", "Annotations", "Labels")
INDEXED = re.compile(r"([^\[\]]+)\[([^\[\]]+)\]")
PATH = "spec.trialTemplate"
ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}  # by Go's JSON


def broken(document: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield every violation of the rules for the trial template."""
    template = document["spec"].get("trialTemplate")
    if template is None:
        yield Violation(PATH, "must be specified")
        return
    if not template.get("primaryContainerName"):
        yield Violation(f"{PATH}.primaryContainerName", "must be specified", template.get("primaryContainerName"))
    for condition in ("successCondition", "failureCondition"):
        if not template.get(condition):
            yield Violation(f"{PATH}.{condition}", "must be specified", template.get(condition))
    if "trialParameters" not in template:
        yield Violation(f"{PATH}.trialParameters", "must be specified")
    yield from _source(template)
    if "trialSpec" in template:
        names = {parameter.get("name") for parameter in document["spec"].get("parameters", [])}
        yield from _trial_parameters(template, names)
        yield from _leftover(template)
        yield from _trial_spec(template["trialSpec"])


def is_meta_reference(reference: str) -> bool:
    """Return whether a reference such as ``${trialSpec.Name}`` is metadata of the trial."""
    match = META_REFERENCE.search(reference)
    if not match:
        return False
    indexed = INDEXED.fullmatch(match[1])
    return (indexed[1] if indexed else match[1]) in META_KEYS


def _source(template: Mapping[str, Any]) -> Iterator[Violation]:
    if "trialSpec" not in template and "configMap" not in template:
        yield Violation(PATH, "trialSpec or configMap must be specified", sorted(template))
    if "trialSpec" in template and "configMap" in template:
        yield Violation(PATH, "only one of trialSpec and configMap may be specified", sorted(template))
    for key in ("configMapName", "configMapNamespace", "templatePath") if "configMap" in template else ():
        if not template["configMap"].get(key):
            yield Violation(f"{PATH}.configMap.{key}", "must be specified", template["configMap"].get(key))


def _trial_parameters(template: Mapping[str, Any], experiment_names: set[str | None]) -> Iterator[Violation]:
    used = _placeholders(template["trialSpec"])
    names: set[str] = set()
    references: set[str] = set()
    for i, parameter in enumerate(template.get("trialParameters", [])):
        path = f"{PATH}.trialParameters[{i}]"
        name, reference = parameter.get("name", ""), parameter.get("reference", "")
        if not name or not reference or "{" in name or "}" in name:
            rule = "name and reference must be specified and the name must not contain braces"
            yield Violation(path, rule, parameter)
            continue
        if name in names:
            yield Violation(f"{path}.name", "must be unique among trialParameters", name)
        if reference in references:
            yield Violation(f"{path}.reference", "must be unique among trialParameters", reference)
        names.add(name)
        references.add(reference)
        if experiment_names and not is_meta_reference(reference) and reference not in experiment_names:
            yield Violation(f"{path}.reference", "must be one of spec.parameters or a ${trialSpec.*} key", reference)
        if name not in used:
            rule = f"must be used in the template as ${{trialParameters.{name}}}, but is not"
            yield Violation(f"{path}.name", rule, IN_RULE)


def _leftover(template: Mapping[str, Any]) -> Iterator[Violation]:
    declared = {parameter.get("name") for parameter in template.get("trialParameters", [])}
    for name in sorted(_placeholders(template["trialSpec"]) - declared):
        rule = "every ${trialParameters.x} in the template must be one of trialParameters"
        yield Violation(f"{PATH}.trialSpec", rule, name)


def _placeholders(spec: Mapping[str, Any]) -> set[str]:
    """Return the names in ``${trialParameters.NAME}``, which have at least one character, as in Go's JSON."""
    text = json.dumps(spec, ensure_ascii=False).translate(ESCAPED)
    names = set()
    start = text.find(OPENING)
    while start >= 0:
        start += len(OPENING)
        end = text.find("}", start + 1)
        if end < 0:
            break
        names.add(text[start:end])
        start = text.find(OPENING, end)
    return names


def _trial_spec(spec: Mapping[str, Any]) -> Iterator[Violation]:
    path = f"{PATH}.trialSpec"
    metadata = spec.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    for key in ("name", "namespace"):
        if metadata.get(key):
            yield Violation(f"{path}.metadata.{key}", "must be absent: Katib sets it", metadata[key])
    for key in ("apiVersion", "kind"):
        if not isinstance(spec.get(key), str) or not spec[key]:
            yield Violation(f"{path}.{key}", "must be specified", spec.get(key))
    if (spec.get("apiVersion"), spec.get("kind")) == ("batch/v1", "Job"):
        yield from job_schema.broken(spec, path)
