"""The gate: the rules that a model must hold to be published. Stdlib only.

Accuracies are fractions of the images of one test split, so they are compared on equal splits only.
"""

import dataclasses

from kondense.publish.config import PublishConfig
from kondense.publish.versions import VersionRecord

ROUNDING = 1e-9  # accuracies are fractions of counts: a drop of exactly the bound must hold it


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule, the value it was held against, and whether it holds."""

    rule: str
    value: str
    holds: bool

    def sentence(self) -> str:
        """Return the rule and the value in one clause."""
        return f"{self.rule}: {self.value}"


@dataclasses.dataclass(frozen=True)
class Reference:
    """The champion as the gate sees it: its accuracy on the candidate's test split, its record."""

    version: str
    test_accuracy: float
    record: VersionRecord


def teacher_checks(config: PublishConfig, record: VersionRecord) -> list[Check]:
    """Hold the model, in PyTorch and exported, against its teacher."""
    teacher = record["teacher_test_accuracy"]
    accuracies = {"test accuracy": record["test_accuracy"], "exported test accuracy": record["onnx_test_accuracy"]}
    return [
        Check(
            rule=f"{name} at most {points(config.max_test_drop)} points below the teacher's {percent(teacher)}",
            value=f"{percent(accuracy)} ({signed_points(accuracy - teacher)} points)",
            holds=teacher - accuracy <= config.max_test_drop + ROUNDING,
        )
        for name, accuracy in accuracies.items()
    ]


def champion_checks(config: PublishConfig, record: VersionRecord, champion: Reference) -> list[Check]:
    """Hold the model against the champion: same images, same classes, accuracy, objective."""
    kind = (record["image_shape"], record["classes"])
    if kind != (champion.record["image_shape"], champion.record["classes"]):
        shape, classes = champion.record["image_shape"], len(champion.record["classes"])
        return [
            Check(
                rule=f"same images and classes as champion {champion.version} ({shape}, {classes} classes)",
                value=f"{record['image_shape']}, {len(record['classes'])} classes: publish it under another name",
                holds=False,
            )
        ]
    accuracy, best = record["test_accuracy"], champion.test_accuracy
    checks = [
        Check(
            rule=(
                f"test accuracy at most {points(config.champion_tolerance)} points below the {percent(best)}"
                f" of champion {champion.version}"
            ),
            value=f"{percent(accuracy)} ({signed_points(accuracy - best)} points)",
            holds=best - accuracy <= config.champion_tolerance + ROUNDING,
        )
    ]
    if config.objective == "bytes":
        own, other = record["bytes"]["kz"], champion.record["bytes"]["kz"]
        checks.append(_objective_check(config, champion.version, float(own), float(other), "B in weights.kz"))
    if config.objective == "latency" and record["machine"] == champion.record["machine"]:
        own_ms, other_ms = (each["latency_ms"]["batch_1"]["median"] for each in (record, champion.record))
        checks.append(_objective_check(config, champion.version, own_ms, other_ms, "ms at batch 1"))
    elif config.objective == "latency":
        value = f"measured on {record['machine']['cpu']}, the champion on {champion.record['machine']['cpu']}"
        checks.append(Check(rule="latency is compared only on the same machine", value=value, holds=True))
    return checks


def points(fraction: float) -> str:
    """Return a fraction in points: 0.0123 -> 1.23."""
    return f"{100 * fraction:.2f}"


def signed_points(fraction: float) -> str:
    """Return a difference of fractions in points with its sign."""
    return f"{100 * fraction:+.2f}"


def percent(fraction: float) -> str:
    """Return a fraction in per cent: 0.9123 -> 91.23 %."""
    return f"{100 * fraction:.2f} %"


def _objective_check(config: PublishConfig, version: str, own: float, other: float, unit: str) -> Check:
    return Check(
        rule=f"at most {100 * config.objective_tolerance:g} % above the {other:g} {unit} of champion {version}",
        value=f"{own:g} {unit} ({100 * (own / other - 1):+.1f} %)",
        holds=own <= other * (1 + config.objective_tolerance) + ROUNDING,
    )
