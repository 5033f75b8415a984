"""What the report says of measurements: worst classes, intervals, arithmetic, spoiled images, searches."""

import copy
import html
import re

import pytest
from kondense.artifacts.report import models
from kondense.report.line_chart import BOTTOM, LEFT, RIGHT, TOP, Line, accuracy_axis, across, line_chart
from kondense.report.method_pictures import method_pictures
from kondense.report.page import render
from kondense.report.robustness_view import robustness_view
from kondense.report.timing_table import timing_table

from tests.support.report_makers import make_evaluation, make_evaluations, make_ratio
from tests.unit.report.test_report_choice import compare


def text_of(markup):
    """The words of some markup, without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", " ", "".join(markup)))


def broken_class(evaluation, index, lost):
    """Move ``lost`` images of one class to the next one."""
    changed = copy.deepcopy(evaluation)
    row = changed["confusion"][index]
    row[index] -= lost
    row[(index + 1) % len(row)] += lost
    changed["per_class_accuracy"][index] = row[index] / sum(row)
    changed["test_accuracy"] -= lost / sum(sum(each) for each in changed["confusion"])
    return changed


def test_a_broken_class_is_flagged_though_the_average_is_fair():
    evaluations = make_evaluations()
    evaluations[2] = broken_class(evaluations[2], 5, 120)
    report = compare(evaluations)
    worst = next(m for m in models(report) if m["name"] == "pruned")["difference"]["worst_class"]
    teacher = evaluations[0]["per_class_accuracy"][5]
    assert worst["name"] == "Sandal"
    assert worst["change"] == pytest.approx(evaluations[2]["per_class_accuracy"][5] - teacher)
    assert worst["flagged"]
    (note,) = [each for each in report["notes"] if "class" in each]
    assert note.startswith("pruned: class Sandal changed by −12.") and "test accuracy by −1." in note
    assert note in text_of(render(report))


def test_ordinary_changes_are_not_flagged():
    report = compare(make_evaluations())
    assert not any(model["difference"]["worst_class"]["flagged"] for model in models(report))
    assert report["notes"] == []


def test_a_fall_that_few_images_can_explain_is_not_flagged():
    evaluations = [make_evaluation("teacher"), make_evaluation("pruned")]
    for evaluation in evaluations:
        evaluation["confusion"] = [[10 if i == j else 0 for j in range(10)] for i in range(10)]
        evaluation["per_class_accuracy"] = [1.0] * 10
    evaluations[1] = broken_class(evaluations[1], 3, 1)
    worst = compare(evaluations)["candidates"][0]["difference"]["worst_class"]
    assert worst["change"] == pytest.approx(-0.1)
    assert not worst["flagged"]


@pytest.mark.parametrize(("chosen", "word"), [("integer", "int8"), ("float", "fp32")])
def test_the_reason_says_which_arithmetic_was_measured_to_be_faster(chosen, word):
    evaluations = [make_evaluation("teacher"), make_evaluation("quantized")]
    evaluations[1]["arithmetic"]["chosen"] = chosen
    report = compare(evaluations)
    assert report["chosen"] == "quantized"
    assert f"; it computes in {word}, by measurement: int8 runs at 1.10× (1.07 to 1.12)" in report["reason"]
    low = evaluations[1]["latency_ratio"]["batch_1"]["low"]
    assert f"95 % interval {low:.2f}× to" in report["reason"]


def test_notes_tell_of_float_layers_lost_programs_and_an_unquiet_machine():
    evaluations = [make_evaluation("teacher"), make_evaluation("quantized")]
    evaluations[1]["layers"][1]["float_reason"] = "ConvTranspose2d has no integer kernel"
    evaluations[1]["program"] = {"bytes": 9, "lossless": False, "largest_difference": 0.25}
    evaluations[1]["timings"][0]["settled"] = False
    notes = compare(evaluations)["notes"]
    assert "quantized: conv2 remained in float: ConvTranspose2d has no integer kernel." in notes
    assert "quantized: the torch.export program was not kept: its logits differ by up to 0.25." in notes
    assert any(note.startswith("Times of quantized still drifted") for note in notes)


def test_int8_that_is_slower_than_float_is_told_of_every_candidate():
    names = ("teacher", "quantized", "pruned-quantized", "distilled-quantized", "fast")
    evaluations = [make_evaluation(name) if "fast" not in name else make_evaluation("quantized") for name in names]
    evaluations[4]["name"] = "fast"
    arithmetics = [evaluation["arithmetic"] for evaluation in evaluations]
    arithmetics[1] |= {"chosen": "float", "integer_speedup": dict.fromkeys(("batch_1", "batch_64"), make_ratio(0.8))}
    arithmetics[2]["integer_speedup"] = {
        "batch_1": make_ratio(0.9),
        "batch_64": make_ratio(0.99),
    }  # the latter is noise
    arithmetics[3] |= {"reason": "as requested", "integer_speedup": None}
    evaluations[3]["latency_ratio"] = {"batch_1": make_ratio(1.5), "batch_64": make_ratio(0.5)}
    slower = "int8 is slower than float for this network on this machine:"
    assert [note for note in compare(evaluations)["notes"] if "slower" in note] == [
        f"quantized: {slower} 0.80× at batch 1 and 0.80× at batch 64 the speed of the same weights in float; the file"
        " computes in float.",
        f"pruned-quantized: {slower} 0.90× at batch 1 the speed of the same weights in float.",
        f"distilled-quantized: {slower} 0.50× at batch 64 the speed of the teacher in float.",
    ]


def test_what_remained_in_float_is_told_once_for_all_candidates():
    evaluations = [make_evaluation("teacher"), make_evaluation("quantized"), make_evaluation("pruned-quantized")]
    for evaluation in evaluations[1:]:
        evaluation["layers"][1] |= {"name": "", "float_reason": "there is no integer kernel for the pos of a Net"}
    assert (
        "quantized, pruned-quantized: what the network holds itself remained in float: there is no integer kernel for"
        " the pos of a Net."
    ) in compare(evaluations)["notes"]


def test_the_table_of_times_has_every_way_with_its_intervals():
    report = compare(make_evaluations())
    pruned = next(model for model in models(report) if model["name"] == "pruned")
    table = timing_table(pruned)
    assert table.count("<tr>") == 1 + len(pruned["timings"])
    words = text_of(table)
    assert "0.061 (0.060–0.063)" in " ".join(words.split())
    assert words.count("unsettled") == 2
    assert "PyTorch simulates" not in words
    quantized = next(model for model in models(report) if model["name"] == "quantized")
    assert "PyTorch simulates integers in float" in text_of(timing_table(quantized))


def test_spoiled_images_are_shown_before_and_after():
    report = compare(make_evaluations())
    markup = "".join(robustness_view(report))
    assert markup.count("<svg") == 3
    assert markup.count("<tr>") == 2 + len(models(report))
    assert "teacher" in markup and "chosen" in markup
    mean = report["candidates"][0]["robustness"]["mean"] - report["teacher"]["robustness"]["mean"]
    assert f"{100 * mean:.2f}".replace("-", "−") in markup


def test_the_page_names_the_runtimes_that_serve_a_file():
    words = text_of(render(compare(make_evaluations())))
    assert "onnxruntime 1.18 or later (checked: 1.18.1, 1.32.0)" in words
    assert "wrong in onnxruntime 1.21 to 1.24 on processors with AMX: conv1 (25 filters)" in words


def test_an_older_run_without_these_measurements_still_has_its_page():
    evaluations = make_evaluations()
    optional = ("timings", "latency_ratio", "arithmetic", "kernels", "robustness", "program", "bits_per_weight")
    optional += ("runtimes",)
    for evaluation in evaluations:
        for key in optional:
            del evaluation[key]
        for record in evaluation["lineage"]:
            del record["details"]
    report = compare(evaluations)
    words = text_of(render(report))
    assert "No model of this run was measured on corrupted images." in words
    assert "No step of this run scanned layers or searched." in words
    assert "it computes in" not in report["reason"]


def test_each_scan_and_search_is_drawn_once_whoever_shares_it():
    report = compare(make_evaluations())
    markup = "".join(method_pictures(report))
    titles = re.findall(r'<h3 class="part-title">(.*?) <span', markup)
    assert titles.count("quantize static int8") == 1
    assert titles.count("prune l1 50% of channels") == 2
    assert "quantized, pruned-quantized" in markup
    words = text_of(markup)
    for words_wanted in ("Lottery tickets", "Greedy search", "bits per weight of this layer alone", "fc2"):
        assert words_wanted in words
    assert "step 8: conv2" in markup


def test_a_line_runs_through_its_points():
    vertical, horizontal = accuracy_axis([0.5, 0.9]), across(2, 8)
    picture = line_chart(
        [Line("only", [(2, 0.5), (5, 0.9), (8, 0.7)], ["a", "b", "c"])],
        title="Accuracy",
        horizontal=horizontal,
        ticks=[(2, "two"), (8, "eight")],
        below="bits",
        vertical=vertical,
    )
    path = re.search(r'points="([^"]+)"', picture)[1]
    places = [tuple(map(float, pair.split(","))) for pair in path.split()]
    assert [x for x, _ in places] == pytest.approx([LEFT, (LEFT + RIGHT) / 2, RIGHT], abs=0.1)
    assert places[1][1] < places[2][1] < places[0][1]
    assert all(TOP <= y <= BOTTOM for _, y in places)
    assert picture.count("data-tip") == 3


def test_a_falling_axis_runs_from_high_to_low():
    axis = across(1, 3, falling=True)
    assert (axis.position(3), axis.position(1)) == (LEFT, RIGHT)


def test_labels_of_lines_that_end_together_stand_apart():
    lines = [Line(name, [(0, 0.9), (1, value)], ["", ""]) for name, value in (("one", 0.5), ("two", 0.501))]
    picture = line_chart(
        lines, title="", horizontal=across(0, 1), ticks=[], below="", vertical=accuracy_axis([0.5, 0.9])
    )
    heights = [float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)" class="label', picture)]
    assert len(heights) == 2
    assert abs(heights[0] - heights[1]) >= 12
    assert max(heights) <= BOTTOM + 4
