"""The benchmark of kills, on commands of a second: what it compares and what it finds left."""

import random
import sys
from pathlib import Path

from benchmarks.hardness.kills import Case, Place, Subject, run_case
from benchmarks.hardness.kills_part import CASE, cases, models_of_run

WRITE = """
import pathlib, sys, time
pathlib.Path("out").mkdir(exist_ok=True)
time.sleep(0.3)
pathlib.Path("out/weights.kz").write_text("same")
"""
DRIVER = {"driver": lambda place, driver: [driver]}


def subject_of(program: str) -> Subject:
    return Subject("run", [sys.executable, "-c", program], DRIVER, models_of_run)


def case_of(program: str, top: Path, kills: int):
    return run_case(subject_of(program), Place(top), kills=kills, rng=random.Random(0), spread_s=0.1)


def test_a_killed_command_is_given_again_until_its_results_are_those_of_the_undisturbed(tmp_path: Path) -> None:
    whole = case_of(WRITE, tmp_path / "whole", 0)
    killed = case_of(WRITE, tmp_path / "killed", 2)
    assert not whole.faults and not killed.faults
    assert killed.kills["driver"] == killed.again == 2 and whole.again == 0
    assert killed.results == whole.results != {}


def test_what_is_left_behind_and_a_command_that_never_ends_well_are_faults(tmp_path: Path) -> None:
    left = "import tempfile; tempfile.mkdtemp(); pathlib.Path('out/.model.host.1-ab').touch()"
    assert len([fault for fault in case_of(WRITE + left, tmp_path / "left", 0).faults if "is left" in fault]) == 2
    faults = case_of(WRITE + "raise ValueError(1)", tmp_path / "failing", 0).faults
    assert any("a traceback" in fault for fault in faults) and any("still ends with 1" in fault for fault in faults)


def test_cases_go_on_behind_those_that_are_kept(tmp_path: Path) -> None:
    first = cases(subject_of(WRITE), tmp_path, kills=1, seed=0)
    assert [case.faults for case in first] == [[], []] and first[1].kills["driver"] == 1
    (tmp_path / "0" / CASE).write_text((tmp_path / "0" / CASE).read_text().replace("weights.kz", "other.kz"))
    (tmp_path / "1" / CASE).unlink()
    again = cases(subject_of(WRITE), tmp_path, kills=1, seed=0)
    assert again[0] == Case.read(tmp_path / "0" / CASE)
    assert again[1].faults == ["not as in the undisturbed case: other.kz, weights.kz"]
