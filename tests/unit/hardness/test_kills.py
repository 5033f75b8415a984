"""The benchmark of kills, on commands of a second: what it compares and what it finds left."""

import random
import sys
from pathlib import Path

from benchmarks.hardness.kills import Place, Subject, run_case

WRITE = """
import pathlib, sys, time
pathlib.Path("out").mkdir(exist_ok=True)
time.sleep(0.3)
pathlib.Path("out/weights.kz").write_text("same")
"""
DRIVER = {"driver": lambda place, driver: [driver]}


def case_of(program: str, top: Path, kills: int):
    subject = Subject("run", [sys.executable, "-c", program], DRIVER)
    return run_case(subject, Place(top), kills=kills, rng=random.Random(0), spread_s=0.1)


def test_a_killed_command_is_given_again_until_its_results_are_those_of_the_undisturbed(tmp_path: Path) -> None:
    whole = case_of(WRITE, tmp_path / "whole", 0)
    killed = case_of(WRITE, tmp_path / "killed", 2)
    assert not whole.faults and not killed.faults
    assert killed.kills["driver"] == killed.again == 2 and whole.again == 0
    assert killed.digests == whole.digests != {}


def test_what_is_left_behind_and_a_command_that_never_ends_well_are_faults(tmp_path: Path) -> None:
    left = "import tempfile; tempfile.mkdtemp(); pathlib.Path('out/.model.host.1-ab').touch()"
    assert len([fault for fault in case_of(WRITE + left, tmp_path / "left", 0).faults if "is left" in fault]) == 2
    faults = case_of(WRITE + "raise ValueError(1)", tmp_path / "failing", 0).faults
    assert any("a traceback" in fault for fault in faults) and any("still ends with 1" in fault for fault in faults)
