import itertools
import math

import numpy as np
import pytest
from kondense.files import ArtifactError
from kondense.report.choice import OBJECTIVES, pareto_front
from kondense.report.document import build_report

from tests.support.report_makers import make_evaluation, make_evaluations, make_record

RECORD = make_record("report", "report balanced", [])


def compare(evaluations, *, objective="balanced", max_validation_drop=0.01):
    digests = [f"{index:064x}" for index in range(len(evaluations))]
    return build_report(
        evaluations, digests, title="", objective=objective, max_validation_drop=max_validation_drop, record=RECORD
    )


def model(name, *, validation=0.9, test=0.9, kz=100_000, latency=0.1):
    return make_evaluation(
        name, figures=(validation, test, kz, latency, 50 * latency), recipe=([], (20, 50, 500), 32, 0.0)
    )


TEACHER = {"validation": 0.91, "test": 0.9, "kz": 1_600_000, "latency": 0.1}


@pytest.mark.parametrize(
    ("objective", "chosen"), [("bytes", "small"), ("latency", "fast"), ("balanced", "both")], ids=str
)
def test_each_objective_has_its_winner(objective, chosen):
    candidates = [
        model("small", kz=10_000, latency=0.2),
        model("fast", kz=900_000, latency=0.02),
        model("both", kz=20_000, latency=0.04),
    ]
    assert compare([model("teacher", **TEACHER), *candidates], objective=objective)["chosen"] == chosen


def test_balanced_is_the_geometric_mean_of_the_two_ratios():
    teacher, candidate = model("teacher", **TEACHER), model("candidate", kz=17_243, latency=0.025)
    scored = compare([teacher, candidate])["candidates"][0]
    assert scored["difference"]["bytes_ratio"] == pytest.approx(1_724_320 / 17_243)
    assert scored["difference"]["latency_ratio"] == pytest.approx(4.0)
    assert scored["score"] == pytest.approx(math.sqrt(1_724_320 / 17_243 * 4.0))


def test_the_bound_is_checked_on_validation_and_not_on_test():
    teacher = model("teacher", validation=0.91, test=0.9)
    best_on_test = model("good-test", validation=0.8, test=0.95, kz=1_000)
    holds = model("good-validation", validation=0.905, test=0.85, kz=50_000)
    report = compare([teacher, best_on_test, holds])
    assert report["chosen"] == "good-validation"
    assert [candidate["within_bound"] for candidate in report["candidates"]] == [False, True]


@pytest.mark.parametrize(("validation", "chosen"), [(0.9, "candidate"), (0.8998, "teacher")])
def test_a_drop_of_exactly_the_bound_holds_it(validation, chosen):
    # 0.91 - 0.9 is 0.010000000000000009 in floating point.
    assert compare([model("teacher", **TEACHER), model("candidate", validation=validation)])["chosen"] == chosen


def test_without_a_candidate_that_holds_the_bound_the_teacher_stays_and_the_nearest_is_named():
    teacher = model("teacher", **TEACHER)
    report = compare([teacher, model("far", validation=0.5), model("near", validation=0.8956, kz=30_000)])
    assert report["chosen"] == "teacher"
    assert report["reason"].startswith("None of 2 candidates meets the bound")
    assert "near, at −1.44 points" in report["reason"]
    assert "1.00 points" in report["reason"]


def test_a_candidate_no_better_than_the_teacher_does_not_replace_it():
    teacher = model("teacher", **TEACHER)
    report = compare([teacher, model("slow", kz=400_000, latency=0.13)], objective="latency")
    assert report["chosen"] == "teacher"
    assert "none is better than teacher: the nearest is slow, with a latency ratio of 0.77×" in report["reason"]


def test_equal_scores_go_to_the_higher_validation_accuracy_and_then_to_the_earlier():
    teacher = model("teacher", **TEACHER)
    twins = [model("first", validation=0.905), model("second", validation=0.908), model("third", validation=0.908)]
    assert compare([teacher, *twins])["chosen"] == "second"


def test_the_reason_is_one_sentence_with_the_figures_of_the_run():
    reason = compare(make_evaluations())["reason"]
    for figure in ("7 candidates", "6 meet", "sparse-packed", "8.79×", "76.9× smaller", "22.4 kB", "90.71 %", "−0.13"):
        assert figure in reason
    assert reason.count(". ") == 0
    assert reason.endswith(".")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_teacher_alone_is_chosen(objective):
    report = compare([make_evaluation("teacher")], objective=objective)
    assert report["chosen"] == "teacher"
    assert report["candidates"] == []


def test_pareto_front_against_the_definition_on_small_grids():
    # Few distinct values, so that ties and duplicates are common.
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(1, 8))
        costs, accuracies = rng.integers(1, 5, count).tolist(), rng.integers(1, 5, count).tolist()
        dominated = [False] * count
        for own, other in itertools.permutations(range(count), 2):
            as_good = costs[other] <= costs[own] and accuracies[other] >= accuracies[own]
            better = costs[other] < costs[own] or accuracies[other] > accuracies[own]
            dominated[own] |= as_good and better
        assert pareto_front(costs, accuracies) == [not each for each in dominated]


def test_fronts_are_of_test_accuracy_against_kz_bytes_and_against_latency():
    report = compare(make_evaluations())
    fronts = {each["name"]: each["pareto"] for each in [report["teacher"], *report["candidates"]]}
    assert [name for name, front in fronts.items() if "bytes" in front] == ["teacher", "sparse-packed"]
    assert [name for name, front in fronts.items() if "latency" in front] == [
        "teacher",
        "pruned",
        "distilled",
        "pruned-distilled-quantized",
        "sparse-packed",
    ]


def test_candidates_of_other_data_cannot_be_compared():
    teacher, other = make_evaluation("teacher"), make_evaluation("quantized")
    other["dataset"]["seed"] = 7
    with pytest.raises(ArtifactError, match=r"quantized must be evaluated on the teacher's data .* seed 7"):
        compare([teacher, other])


def test_two_candidates_of_one_name_are_refused():
    with pytest.raises(ArtifactError, match="two are 'quantized'"):
        compare([make_evaluation("teacher"), make_evaluation("quantized"), make_evaluation("quantized")])


def test_notes_name_an_export_that_disagrees_and_different_machines():
    evaluations = make_evaluations()
    assert compare(evaluations)["notes"] == []
    evaluations[1]["onnx_agreement"] = 0.97
    evaluations[2]["environment"]["cpu"] = "Another CPU"
    notes = compare(evaluations)["notes"]
    assert len(notes) == 2
    assert notes[0].startswith("quantized: ")
    assert "97.0 %" in notes[0]
    assert "pruned on Another CPU" in notes[1]
    assert "nor can the ratios of quantized, pruned" in notes[1]
    for evaluation in evaluations[1:]:
        evaluation["teacher_latency_ms"] = evaluations[0]["latency_ms"]
    assert "but their ratios to the teacher can" in compare(evaluations)["notes"][1]


def test_latency_is_compared_with_the_teacher_timed_in_turns_where_evaluate_did_so():
    teacher, candidate = model("teacher", **TEACHER), model("candidate", latency=0.05)
    candidate["teacher_latency_ms"] = {
        "batch_1": {"median": 0.2, "p95": 0.3},
        "batch_64": {"median": 5.0, "p95": 6.0},
    }
    difference = compare([teacher, candidate])["candidates"][0]["difference"]
    assert difference["latency_ratio"] == pytest.approx(4.0)
    assert difference["latency_ratio_batch_64"] == pytest.approx(2.0)


def test_lineage_ends_with_the_reports_own_record_after_the_chosen_models():
    report = compare(make_evaluations())
    assert [record["stage"] for record in report["lineage"]] == ["train", "prune", "quantize", "report"]
