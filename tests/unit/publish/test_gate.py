from typing import Any

import pytest
from kondense.publish.config import PublishConfig
from kondense.publish.gate import Reference, champion_checks, teacher_checks


def make_record(**changes: Any) -> dict[str, Any]:
    record = {
        "test_accuracy": 0.9,
        "onnx_test_accuracy": 0.9,
        "teacher_test_accuracy": 0.91,
        "image_shape": [1, 28, 28],
        "classes": ["a", "b"],
        "bytes": {"kz": 1000},
        "latency_ms": {"batch_1": {"median": 0.1}},
        "machine": {"cpu": "this", "cores": 2},
    }
    return {**record, **changes}


def holds(checks: list) -> list[bool]:
    return [check.holds for check in checks]


@pytest.mark.parametrize(
    ("accuracy", "exported", "expected"),
    [
        (0.90, 0.90, [True, True]),  # a drop of exactly the bound
        (0.8999, 0.90, [False, True]),
        (0.90, 0.8999, [True, False]),
        (0.95, 0.95, [True, True]),
    ],
)
def test_the_drop_against_the_teacher(accuracy: float, exported: float, expected: list[bool]) -> None:
    record = make_record(test_accuracy=accuracy, onnx_test_accuracy=exported)
    assert holds(teacher_checks(PublishConfig(max_test_drop=0.01), record)) == expected


def test_a_check_gives_rule_and_value() -> None:
    check = teacher_checks(PublishConfig(max_test_drop=0.005), make_record())[0]
    assert check.sentence() == "test accuracy at most 0.50 points below the teacher's 91.00 %: 90.00 % (-1.00 points)"


@pytest.mark.parametrize(
    ("options", "changes", "expected"),
    [
        ({}, {"test_accuracy": 0.898}, [True, True]),
        ({}, {"test_accuracy": 0.8979}, [False, True]),
        ({}, {"test_accuracy": 0.95}, [True, True]),
        ({"champion_tolerance": 0.0}, {"test_accuracy": 0.9}, [True, True]),
        ({"champion_tolerance": 0.0}, {"test_accuracy": 0.8999}, [False, True]),
        ({}, {"bytes": {"kz": 1050}}, [True, True]),
        ({}, {"bytes": {"kz": 1051}}, [True, False]),
        ({"objective": "none"}, {"bytes": {"kz": 9999}}, [True]),
        ({"objective": "latency"}, {"bytes": {"kz": 9999}}, [True, True]),
        ({"objective": "latency"}, {"latency_ms": {"batch_1": {"median": 0.2}}}, [True, False]),
        (
            {"objective": "latency", "objective_tolerance": 1.0},
            {"latency_ms": {"batch_1": {"median": 0.2}}},
            [True] * 2,
        ),
    ],
)
def test_against_the_champion(options: dict[str, Any], changes: dict[str, Any], expected: list[bool]) -> None:
    champion = Reference("v1", 0.9, make_record())
    assert holds(champion_checks(PublishConfig(**options), make_record(**changes), champion)) == expected


def test_latency_of_another_machine_is_not_compared() -> None:
    slow = make_record(latency_ms={"batch_1": {"median": 9.0}}, machine={"cpu": "other", "cores": 2})
    checks = champion_checks(PublishConfig(objective="latency"), slow, Reference("v1", 0.9, make_record()))
    assert holds(checks) == [True, True]
    assert "only on the same machine: measured on other, the champion on this" in checks[1].sentence()


@pytest.mark.parametrize(
    "other", [{"image_shape": [3, 32, 32]}, {"image_shape": [1, 14, 14]}, {"classes": ["a", "a"]}, {"classes": ["c"]}]
)
def test_a_model_for_other_images_or_classes_needs_another_name(other: dict[str, Any]) -> None:
    checks = champion_checks(PublishConfig(), make_record(**other), Reference("v1", 0.9, make_record()))
    assert holds(checks) == [False]
    assert "publish it under another name" in checks[0].sentence()


@pytest.mark.parametrize(
    ("options", "changes", "sentences"),
    [
        (
            {},
            {"test_accuracy": 0.8979, "bytes": {"kz": 1051}},
            [
                "test accuracy at most 0.20 points below the 90.00 % of champion v1: 89.79 % (-0.21 points)",
                "at most 5 % above the 1000 B in weights.kz of champion v1: 1051 B in weights.kz (+5.1 %)",
            ],
        ),
        (
            {"objective": "latency", "objective_tolerance": 0.25, "champion_tolerance": 0.0123},
            {"latency_ms": {"batch_1": {"median": 0.0625}}},
            [
                "test accuracy at most 1.23 points below the 90.00 % of champion v1: 90.00 % (+0.00 points)",
                "at most 25 % above the 0.1 ms at batch 1 of champion v1: 0.0625 ms at batch 1 (-37.5 %)",
            ],
        ),
    ],
)
def test_the_checks_against_the_champion_give_their_figures(
    options: dict[str, Any], changes: dict[str, Any], sentences: list[str]
) -> None:
    champion = Reference("v1", 0.9, make_record())
    checks = champion_checks(PublishConfig(**options), make_record(**changes), champion)
    assert [check.sentence() for check in checks] == sentences
