"""The gate: the rules that a model must meet to be published. Stdlib only.

Accuracies are fractions of the images of a test split, so they are compared only on equal splits.
"""

import dataclasses

from kondense.publish.config import PublishConfig
from kondense.publish.versions import VersionRecord

ROUNDING = 1e-9  # a drop of exactly the bound passes


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule, the measured value, and whether the value meets the rule."""

    rule: str
    value: str
    holds: bool

    def sentence(self) -> str:
        """Return the rule and the value in one clause."""
        return f"{self.rule}: {self.value}"


@dataclasses.dataclass(frozen=True)
class Reference:
    """The champion for comparison: its accuracy on the candidate's test split, its record."""

    version: str
    test_accuracy: float
    record: VersionRecord


def teacher_checks(config: PublishConfig, record: VersionRecord) -> list[Check]:
    """Compare the model, in PyTorch and exported, with its teacher."""
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
    """Compare the model with the champion: images, classes, accuracy, objective."""
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
        sizes = (float(version["bytes"]["kz"]) for version in (record, champion.record))
        checks.append(_objective_check(config, champion.version, *sizes, unit="B in weights.kz"))
    if config.objective == "latency" and record["machine"] == champion.record["machine"]:
        times_ms = (version["latency_ms"]["batch_1"]["median"] for version in (record, champion.record))
        checks.append(_objective_check(config, champion.version, *times_ms, unit="ms at batch 1"))
    elif config.objective == "latency":
        value = f"measured on {record['machine']['cpu']}, the champion on {champion.record['machine']['cpu']}"
        checks.append(Check(rule="latency is compared only on the same machine", value=value, holds=True))
    return checks


def points(fraction: float) -> str:
    """Return a fraction in percentage points: 0.0123 -> 1.23."""
    return f"{100 * fraction:.2f}"


def signed_points(fraction: float) -> str:
    """Return a difference of fractions in percentage points, with its sign."""
    return f"{100 * fraction:+.2f}"


def percent(fraction: float) -> str:
    """Return a fraction in per cent: 0.9123 -> 91.23 %."""
    return f"{100 * fraction:.2f} %"


def _objective_check(config: PublishConfig, version: str, value: float, champions: float, *, unit: str) -> Check:
    return Check(
        rule=f"at most {100 * config.objective_tolerance:g} % above the {champions:g} {unit} of champion {version}",
        value=f"{value:g} {unit} ({100 * (value / champions - 1):+.1f} %)",
        holds=value <= champions * (1 + config.objective_tolerance) + ROUNDING,
    )
