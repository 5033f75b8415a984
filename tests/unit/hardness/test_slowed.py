"""`make test-slowed`: the processes of tests are stopped at random, and what they take is told by the test's name."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.slowed import Watch, main

TESTS = """
import subprocess, sys, time
def test_with_a_child():
    code = "import time; kept = bytearray(150 << 20); time.sleep(0.5)"
    assert subprocess.run([sys.executable, "-c", code], start_new_session=True).returncode == 0
def test_other():
    assert {good}
"""


@pytest.mark.parametrize(("good", "limit"), [("False", "4"), ("True", "0.1")])  # a test fails, a process takes too much
def test_failures_and_memory_are_told(tmp_path, capfd, good, limit):
    (tmp_path / "test_made.py").write_text(TESTS.format(good=good))
    before = signal.getsignal(signal.SIGTERM)
    try:
        found = main([str(tmp_path), f"--rootdir={tmp_path}", "--every=2", "--longest=0.05", f"--limit={limit}"])
    finally:
        signal.signal(signal.SIGTERM, before)
    told = capfd.readouterr().out
    assert found == 1, told
    first = next(line for line in told.splitlines() if line.startswith("| "))
    assert "test_made.py::test_with_a_child" in first
    assert int(first.split()[1].replace(",", "")) >= 150


def test_processes_of_a_run_are_known_by_their_mark(tmp_path):
    watch = Watch(tmp_path / "current")
    watch.current.write_text("a test")
    program = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with contextlib.ExitStack() as stack:
        ours, other = (
            stack.enter_context(subprocess.Popen(program, env=mark, stdout=subprocess.PIPE, start_new_session=True))
            for mark in ({"KONDENSE_SLOWED": str(watch.current)}, {"KONDENSE_SLOWED": "elsewhere"})
        )
        for each in (ours, other):
            stack.callback(each.kill)
            assert each.stdout is not None and each.stdout.readline()
        assert watch.processes() == [ours.pid]
        watch.sample(watch.processes())
        assert watch.peaks["a test"] > 2**20


def test_a_run_that_is_stopped_tells_its_memory_too(tmp_path):
    began = tmp_path / "began"
    (tmp_path / "test_made.py").write_text(f"""
import pathlib, time
def test_without_end():
    pathlib.Path({str(began)!r}).touch()
    time.sleep(600)
""")
    command = [sys.executable, "-m", "benchmarks.slowed", str(tmp_path), f"--rootdir={tmp_path}", "--longest=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not began.exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)  # some looks at the memory
        process.terminate()
        told = process.communicate()[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert "MiB in all; the largest processes:" in told and "test_made.py::test_without_end |" in told
