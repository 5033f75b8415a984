import itertools
import re

import numpy as np
import pytest
from kondense.report import figures, scatter
from kondense.report.axes import Axis, cost_axis
from kondense.report.document import build_report
from kondense.report.label_layout import Point, overlap, place_labels
from kondense.report.training_curves import trainings

from tests.support.report_makers import make_evaluations
from tests.unit.report.test_report_choice import compare

FRAME = (0.0, 0.0, 480.0, 320.0)


def points_at(rng, count):
    return [
        Point(x, y, 7.0, rng.uniform(60, 180), 16.0)
        for x, y in zip(rng.uniform(20, 460, count), rng.uniform(20, 300, count), strict=True)
    ]


@pytest.mark.parametrize("count", [1, 8, 16])
def test_labels_cover_neither_each_other_nor_leave_the_frame(count):
    rng = np.random.default_rng(count)
    for _ in range(10):
        places = [place for place in place_labels(points_at(rng, count), FRAME) if place]
        for first, second in itertools.combinations(places, 2):
            assert overlap(first.rectangle, second.rectangle) == 0
        for left, top, right, bottom in (place.rectangle for place in places):
            assert 0 <= left < right <= 480
            assert 0 <= top < bottom <= 320


def test_eight_scattered_labels_all_find_room_off_every_marker():
    rng = np.random.default_rng(3)
    for _ in range(10):
        points = [
            Point(20 + 55 * column, rng.uniform(20, 300), 7.0, 120.0, 16.0) for column in rng.permutation(8).tolist()
        ]
        places = place_labels(points, FRAME)
        assert all(places)
        for place, point in itertools.product(places, points):
            assert overlap(place.rectangle, point.rectangle) == 0


def test_of_labels_without_room_the_one_of_higher_priority_stays():
    crowd = [Point(240.0, 160.0, 7.0, 470.0, 150.0) for _ in range(6)]
    places = place_labels(crowd, FRAME, priorities=[0, 0, 0, 1, 0, 0])
    assert places[3] is not None
    assert None in places


def test_axis_maps_its_ends_and_keeps_values_inside():
    axis = Axis(10.0, 1000.0, 0.0, 100.0, logarithmic=True)
    assert [axis.position(value) for value in (10, 100, 1000, 5000)] == pytest.approx([0, 50, 100, 100])
    assert Axis(0.0, 2.0, 100.0, 0.0).position(0.5) == pytest.approx(75)


@pytest.mark.parametrize("values", [[22_411, 1_598_204], [0.048, 0.131], [5, 5], [1e-3, 1e9], [900, 3700]])
def test_ticks_are_few_rising_and_on_the_axis(values):
    axis = cost_axis(values, 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert all(axis.low <= tick <= axis.high for tick in ticks)


def test_a_training_that_candidates_share_is_shown_once():
    shown = {(run.stage, tuple(run.names)) for run in trainings(compare(make_evaluations()))}
    assert ("distill", ("distilled", "distilled-quantized")) in shown
    assert len([stage for stage, _ in shown if stage == "train"]) == 1


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figures.size(812), "812 B"),
        (figures.size(999), "999 B"),
        (figures.size(1_000), "1.00 kB"),
        (figures.size(999_600), "1.00 MB"),
        (figures.size(25_700), "25.7 kB"),
        (figures.size(1_724_320), "1.72 MB"),
        (figures.size(123_456 * 10**12), "123,456 TB"),
        (figures.amount(431_080), "431k"),
        (figures.amount(7), "7"),
        (figures.times(0.899), "0.90×"),
        (figures.times(76.94), "76.9×"),
        (figures.times(9.996), "10.0×"),
        (figures.times(1234.0), "1,234×"),
        (figures.times(0.012), "0.0120×"),
        (figures.milliseconds(0.0608), "0.061"),
        (figures.milliseconds(0.00234), "0.0023"),
        (figures.milliseconds(4.91), "4.91"),
        (figures.milliseconds(118.4), "118"),
        (figures.signed_points(-0.00191), "−0.19"),
        (figures.signed_points(-0.000001), "0.00"),
        (figures.signed_points(0.0012), "+0.12"),
        (figures.percent(0.9996), "> 99.9 %"),
        (figures.percent(1.0), "100 %"),
    ],
)
def test_how_figures_are_written(written, expected):
    assert written == expected


def test_ticks_of_accuracies_that_are_close_differ():
    evaluations = make_evaluations()[:2]
    for evaluation in evaluations:
        evaluation["test_accuracy"] = 0.844
    options = {"title": "", "objective": "bytes", "max_validation_drop": 0.01, "record": evaluations[0]["lineage"][0]}
    picture = str(scatter.against_bytes(build_report(evaluations, ["1", "2"], **options)))
    labels = re.findall(r'class="tick end"[^>]*>([\d.]+)<', picture)
    assert len(labels) == len({*labels}) >= 2
