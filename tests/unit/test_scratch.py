"""Temporary directories of processes that were killed are removed, those of living ones are not."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kondense.scratch import PREFIX, claim, release, scratch_directory

from tests.support.documents import ROOT

HOLDS = """
import os, sys, time
from pathlib import Path
from kondense.scratch import scratch_directory
beside = Path(sys.argv[2]) if sys.argv[2] else None
with scratch_directory("held", beside=beside) as path:
    (path / "file").write_text("x")
    if sys.argv[1] == "fork" and os.fork():
        os._exit(9)  # as a kill: nothing is cleaned up
    print(path, os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def held(how: str, beside: Path | None = None) -> tuple[Path, int, subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, how, str(beside or "")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    path, pid = process.stdout.readline().split()
    return Path(path), int(pid), process


@pytest.mark.parametrize("how", ["alone", "fork"])
@pytest.mark.parametrize("beside", [False, True])
def test_what_a_killed_process_left_is_removed_by_the_next_one(temporary, how, beside):
    final = temporary / "out" / "data" if beside else None
    (temporary / "out").mkdir()
    left, pid, process = held(how, final)
    with scratch_directory("other", beside=final), scratch_directory("held", beside=final) as own:
        assert (left / "file").is_file()  # its owner, or the fork of its owner, lives
        assert own.is_dir()
    os.kill(pid, signal.SIGKILL)
    process.stdout.read()  # ends with the last process that has it
    process.wait(60)
    process.stdout.close()
    assert left.is_dir()
    with scratch_directory("other", beside=final) as own:
        assert not left.exists() or left.name.startswith(".data.held-")  # another purpose beside the same file
        with scratch_directory("held", beside=final):
            assert not left.exists() and own.is_dir()
    assert [path.name for path in temporary.rglob("*")] == ["out"]


def test_it_is_private_and_named(temporary):
    with scratch_directory("load") as path:
        assert path.parent == temporary and path.name.startswith(f"{PREFIX}load-")
        assert path.stat().st_mode & 0o777 == 0o700
    with scratch_directory("shards", beside=temporary / "data") as path:
        assert path.parent == temporary and path.name.startswith(".data.shards-")
    path, lock = claim("load")
    release(path, lock)
    assert not any(temporary.iterdir())


def test_what_is_not_a_directory_of_ours_stays(temporary):
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / "kept").touch()
    (temporary / f"{PREFIX}link").symlink_to(temporary / "elsewhere")
    (temporary / f"{PREFIX}file").touch()
    (temporary / "kondense-other").mkdir()
    before = sorted(temporary.rglob("*"))
    with scratch_directory("load"):
        pass
    assert sorted(temporary.rglob("*")) == before


def test_every_temporary_directory_is_one_of_these():
    """What a killed process leaves is removed only where it is one."""
    allowed = {"scratch.py", "workspace.py"}
    makes = re.compile(r"tempfile\.(mkdtemp|mkstemp|TemporaryDirectory)|tempfile import (?!gettempdir)")
    found = {
        path.name
        for part in ("components", "pipelines/kondense_pipelines")
        for path in (ROOT / part).rglob("*.py")
        if makes.search(path.read_text())
    }
    assert found <= allowed
