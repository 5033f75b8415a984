"""The fields of a Katib Experiment and their types, according to its CustomResourceDefinition.

A type is a Python type, a one-element list (a list of that type) or a dictionary of fields; ``dict`` is an object whose
content is checked elsewhere, ``object`` is any value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kondense.errors import meant

FieldType = type | list[Any] | dict[str, Any]

EXPERIMENT: dict[str, FieldType] = {
    "apiVersion": str,
    "kind": str,
    "metadata": {
        "name": str,
        "namespace": str,
        "labels": dict,
        "annotations": dict,
        # Further fields of an object that was read from a cluster.
        "creationTimestamp": object,
        "finalizers": object,
        "generateName": object,
        "generation": object,
        "managedFields": object,
        "ownerReferences": object,
        "resourceVersion": object,
        "uid": object,
    },
    "status": object,
    "spec": {
        "objective": {
            "type": str,
            "goal": float,
            "objectiveMetricName": str,
            "additionalMetricNames": [str],
            "metricStrategies": [{"name": str, "value": str}],
        },
        "algorithm": {"algorithmName": str, "algorithmSettings": [{"name": str, "value": str}]},
        "earlyStopping": {"algorithmName": str, "algorithmSettings": [{"name": str, "value": str}]},
        "parallelTrialCount": int,
        "maxTrialCount": int,
        "maxFailedTrialCount": int,
        "resumePolicy": str,
        "parameters": [
            {
                "name": str,
                "parameterType": str,
                "feasibleSpace": {"min": str, "max": str, "step": str, "list": [str], "distribution": str},
            }
        ],
        "nasConfig": dict,
        "metricsCollectorSpec": {
            "collector": {"kind": str, "customCollector": dict},
            "source": {
                "fileSystemPath": {"path": str, "kind": str, "format": str},
                "httpGet": dict,
                "filter": {"metricsFormat": [str]},
            },
        },
        "trialTemplate": {
            "retain": bool,
            "trialSpec": dict,
            "configMap": {"configMapName": str, "configMapNamespace": str, "templatePath": str},
            "trialParameters": [{"name": str, "description": str, "reference": str}],
            "primaryPodLabels": dict,
            "primaryContainerName": str,
            "successCondition": str,
            "failureCondition": str,
        },
    },
}


NOT_OFFERED = "not offered here"  # in the rule of what Katib takes and this package does not have
IN_RULE = object()  # a Violation's value if the rule's text already has it


@dataclass(frozen=True)
class Violation:
    """A broken rule of an Experiment: the path, the rule and the value."""

    path: str
    rule: str
    value: object = None

    def __str__(self) -> str:
        if self.value is IN_RULE:
            return f"{self.path}: {self.rule}"
        return f"{self.path}: {self.rule}, but got {self.value!r}."


def typed(value: Any, expected: FieldType, path: str, violations: list[Violation]) -> Any:
    """Return ``value`` without the wrongly typed and unknown fields, which are recorded as violations.

    The rules can read the rest without type checks, so that one wrong field does not hide the errors in others.

    Args:
        value: a parsed YAML value.
        expected: its type, as in ``EXPERIMENT``.
        path: its path, for the violations.
        violations: receives one entry per omitted field.
    """
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            violations.append(Violation(path, "must be an object", value))
            return {}
        return dict(_typed_fields(value, expected, path, violations))
    if isinstance(expected, list):
        if not isinstance(value, list):
            violations.append(Violation(path, "must be a list", value))
            return []
        kept = [typed(item, expected[0], f"{path}[{i}]", violations) for i, item in enumerate(value)]
        return [item for item in kept if item is not None]
    if not _has_type(value, expected):
        violations.append(Violation(path, f"must be {_NAMES[expected]}", value))
        return {} if expected is dict else None
    return value


_NAMES = {str: "a string (quote it)", int: "an integer", float: "a number", bool: "true or false", dict: "an object"}


def _typed_fields(
    value: dict[Any, Any], expected: dict[str, FieldType], path: str, violations: list[Violation]
) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        inner = f"{path}.{key}" if path else str(key)
        if key not in expected:
            # kubectl's strict validation rejects it; a lenient client would drop it silently.
            rule = f"unknown field{meant(key, expected)}; the known fields are {', '.join(expected)}"
            violations.append(Violation(inner, rule, item))
        elif item is not None and (kept := typed(item, expected[key], inner, violations)) is not None:
            yield key, kept


def _has_type(value: object, expected: type) -> bool:
    if expected is object:
        return True
    if isinstance(value, bool):
        return expected is bool
    return isinstance(value, (int, float) if expected is float else expected)
