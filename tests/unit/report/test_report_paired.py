"""Intervals of paired differences, against SciPy and by counting; the choice that uses them."""

import numpy as np
import pytest
import torch
from kondense.measuring.chance import is_at_chance
from kondense.measuring.classification import paired
from kondense.report.choice import MET, MISSED, UNDECIDED, decided
from kondense.report.document import build_report
from kondense.report.paired import images_to_decide, interval
from scipy import stats

from tests.support.report_makers import make_evaluations


def test_it_is_walds_interval_of_the_adjusted_table() -> None:
    images, lost, gained = 500, 30, 12
    found = interval({"images": images, "lost": lost, "gained": gained})
    cells = np.array([images - lost - gained, 0, lost, gained]) + [0.5, 0.5, 0.5, 0.5]
    changes = np.repeat([0.0, 0.0, -1.0, 1.0], 1)
    share = cells / cells.sum()
    mean = (share * changes).sum()
    deviation = np.sqrt((share * (changes - mean) ** 2).sum() / cells.sum())
    low, high = stats.norm.interval(0.95, mean, deviation)
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-5)


@pytest.mark.parametrize("images", [40, 91, 500])
def test_it_holds_the_true_difference_nineteen_times_in_twenty(images: int) -> None:
    rng = np.random.default_rng(0)
    lost, gained = 0.05, 0.02
    counts = rng.multinomial(images, [lost, gained, 1 - lost - gained], size=2000)
    spreads = [interval({"images": images, "lost": int(b), "gained": int(c)}) for b, c, _ in counts]
    held = np.mean([each["low"] <= gained - lost <= each["high"] for each in spreads])
    assert held > 0.93


def test_images_that_only_one_model_gets_right_are_counted() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1])
    before, after = torch.tensor([0, 1, 0, 0, 2]), torch.tensor([1, 1, 2, 2, 0])
    assert paired(before, after, labels) == {"images": 5, "lost": 2, "gained": 1}


def test_how_many_images_a_bound_needs() -> None:
    needed = images_to_decide(0.01)
    assert -interval({"images": needed, "lost": 0, "gained": 0})["low"] <= 0.01
    assert -interval({"images": needed - 1, "lost": 0, "gained": 0})["low"] > 0.01
    assert images_to_decide(0.0) == 0  # no number of images shows that nothing at all is lost


def test_what_the_images_decide() -> None:
    few = interval({"images": 91, "lost": 1, "gained": 0})
    many = interval({"images": 5000, "lost": 60, "gained": 50})
    worse = interval({"images": 5000, "lost": 200, "gained": 20})
    changes = [{"validation_accuracy": -0.01, "validation_interval": each} for each in (few, many, worse)]
    assert [decided(each, 0.01) for each in changes] == [UNDECIDED, MET, MISSED]
    assert decided({"validation_accuracy": -0.01}, 0.01) == MET  # an older evaluation: the difference itself


def test_a_teacher_at_chance() -> None:
    assert is_at_chance(0.12, 100, 0.1) and is_at_chance(0.05, 1000, 0.1)
    assert not is_at_chance(0.2, 1000, 0.1) and not is_at_chance(0.9, 20, 0.1)


def report_of(lost: dict[str, int], images: int = 5000, **changes: float):
    evaluations = [each for each in make_evaluations() if each["name"] in ("teacher", *lost)]
    for each in evaluations:
        each["dataset"]["splits"]["validation"] = images
        each["validation_accuracy"] = 0.91 - lost.get(each["name"], 0) / images
        if each["name"] in lost:
            counts = {"images": images, "lost": lost[each["name"]], "gained": 0}
            each["paired"] = {"validation": counts, "test": counts}
    evaluations[0] |= changes
    options = {"title": "", "objective": "bytes", "max_validation_drop": 0.01, "record": evaluations[0]["lineage"][0]}
    return build_report(evaluations, [str(index) for index in range(len(evaluations))], **options)


def test_the_choice_is_among_those_whose_whole_interval_is_within_the_bound() -> None:
    report = report_of({"quantized": 10, "sparse-packed": 48})  # 48 of 5,000: 0.96 points, the bound is 1.00
    states = {each["name"]: (each["within_bound"], each["bound"]) for each in report["candidates"]}
    assert states == {"quantized": (True, MET), "sparse-packed": (True, UNDECIDED)}
    assert report["chosen"] == "quantized"  # sparse-packed is smaller
    assert "1 of them with the whole 95 % interval, to which the choice is limited" in report["reason"]


def test_a_split_that_cannot_decide_says_so() -> None:
    report = report_of({"quantized": 0, "sparse-packed": 0}, images=91)
    assert report["chosen"] == "sparse-packed"
    assert (
        "but 91 validation images are too few to be sure that any of them does (one image is 1.10 points)"
        in report["reason"]
    )
    assert any("91 validation images are too few to tell whether a candidate loses 1.00" in n for n in report["notes"])
    assert not any("too few" in note for note in report_of({"quantized": 0})["notes"])


def test_a_teacher_at_chance_is_the_first_note() -> None:
    report = report_of({"quantized": 0}, validation_accuracy=0.1)
    assert report["notes"][0].startswith("The teacher is at chance: 10.0 % of 5000 validation images")
