import copy
import math

import pytest
from kondense.artifacts.report import (
    Evaluation,
    evaluation_bytes,
    read_evaluation,
    read_report,
    report_bytes,
    validate_evaluation,
    validate_report,
)
from kondense.files import ArtifactError, write_json

from tests.support.report_makers import make_evaluation, make_evaluations
from tests.unit.report.test_report_choice import compare


def test_an_evaluation_survives_its_file(tmp_path):
    content = make_evaluation("sparse-packed")
    (tmp_path / "evaluation.json").write_bytes(evaluation_bytes(content))
    assert read_evaluation(tmp_path) == content


def test_a_report_survives_its_file(tmp_path):
    report = compare(make_evaluations())
    (tmp_path / "report.json").write_bytes(report_bytes(report))
    assert read_report(tmp_path) == report


def keys_of(value, path=()):
    """Every key of a nested document, by its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from keys_of(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from keys_of(value[0], (*path, 0))


FREE = ("config", "metrics", "inputs", "versions", "splits", "details", "curves", "seconds")


def test_every_missing_key_is_named():
    content = make_evaluation("pruned")
    for name in Evaluation.__optional_keys__:
        content.pop(name, None)
    for times in content["latency_ms"].values():
        assert set(times) == {"median", "p95"}
    checked = 0
    for path in keys_of(content):
        if any(name in path[:-1] for name in FREE) or path[-1] in ("details", "seconds") or "lineage" in path[:-1]:
            continue
        damaged = copy.deepcopy(content)
        parent = damaged
        for step in path[:-1]:
            parent = parent[step]
        del parent[path[-1]]
        with pytest.raises(ArtifactError, match=str(path[-1])):
            validate_evaluation(damaged)
        checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("test_accuracy",), 90.8, "evaluation.json: test_accuracy must be in [0, 1], but got 90.8."),
        (("test_accuracy",), math.nan, "evaluation.json: test_accuracy must be a finite number, but got nan."),
        (("test_accuracy",), "0.9", "evaluation.json: test_accuracy must be float, but got str '0.9'."),
        (("parameters",), 1.5, "evaluation.json: parameters must be int, but got float '1.5'."),
        (("bytes", "kz"), 0, "evaluation.json: bytes.kz must be in [1, inf), but got 0."),
        (("bytes", "kz"), True, "evaluation.json: bytes.kz must be int, but got bool 'True'."),
        (("latency_ms", "batch_1", "p95"), 0.0, "evaluation.json: latency_ms.batch_1.p95 must be in (0, inf)"),
        (("layers", 1, "sparsity"), -0.1, "evaluation.json: layers[1].sparsity must be in [0, 1], but got -0.1."),
        (("steps",), "prune", "evaluation.json: steps must be list, but got str 'prune'."),
        (("dataset",), [], "evaluation.json: dataset must be dict, but got list '[]'."),
        (("environment", "versions", "torch"), 2, "evaluation.json: environment.versions['torch'] must be str"),
        (("format_version",), 2, "evaluation.json must have format_version 1, but got 2."),
        (("per_class_accuracy",), [0.5], "per_class_accuracy must have one value per class, 10, but got 1."),
        (("confusion", 3), [1, 2], "confusion must be 10 rows of 10 counts."),
        (("nonzero_parameters",), 10**9, "nonzero_parameters must be at most parameters"),
    ],
)
def test_a_wrong_value_is_named_with_the_rule(path, value, text):
    content = make_evaluation("pruned")
    parent = content
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    with pytest.raises(ArtifactError) as caught:
        validate_evaluation(content)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_further_keys_and_null_where_it_means_something_are_allowed():
    content = {**make_evaluation("teacher"), "remark": "new in a later release"}
    assert content["teacher_agreement"] is None
    assert content["environment"]["gpu"] is None
    assert validate_evaluation(content) == content


def test_a_file_that_is_missing_or_of_another_version(tmp_path):
    with pytest.raises(ArtifactError, match=r"must hold a file evaluation\.json"):
        read_evaluation(tmp_path)
    write_json(tmp_path / "report.json", {"format_version": 9})
    with pytest.raises(ArtifactError, match="format_version 1, but got 9"):
        read_report(tmp_path)


def test_a_choice_must_name_a_candidate():
    report = compare(make_evaluations())
    with pytest.raises(ArtifactError, match="chosen must be one of teacher, quantized"):
        validate_report({**report, "chosen": "nobody"})


def test_all_candidates_of_a_report_have_its_classes_and_a_name():
    report = compare(make_evaluations())
    model = report["candidates"][1]
    model["dataset"] = model["dataset"] | {"classes": [*model["dataset"]["classes"][:-1], "other"]}
    with pytest.raises(ArtifactError, match=f"classes of '{model['name']}' must be those of the report"):
        validate_report(report)
    with pytest.raises(ArtifactError, match="name must not be empty, but got ' '"):
        validate_evaluation(make_evaluation("pruned") | {"name": " "})
