"""Entry points are read once, and again when what is installed has changed."""

import sys
from pathlib import Path

import pytest
from kondense import entry_points

from tests.support.distribution import make_distribution


def test_a_distribution_that_comes_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not entry_points.of_group("kondense.toys")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert not entry_points.of_group("kondense.toys")
    make_distribution(tmp_path, {}, {"kondense.toys": {"ball": "toys:BALL"}, "other": {"a": "b"}})
    assert [(point.name, point.value) for point in entry_points.of_group("kondense.toys")] == [("ball", "toys:BALL")]
    assert not entry_points.of_group("other")


def test_one_reading_serves_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points.read()
    monkeypatch.setattr("importlib.metadata.entry_points", pytest.fail)
    entry_points.of_group("kondense.scores")
    entry_points.of_group("kondense.networks")
