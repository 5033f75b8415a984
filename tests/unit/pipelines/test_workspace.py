"""The directory of one run, its lock and its scratch space, with processes that are killed."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kondense.errors import InputError
from kondense_pipelines.local.workspace import LOCK, SCRATCH, run_directory, scratch_of

HOLD = """
import sys, tempfile
from pathlib import Path
from kondense_pipelines.local.workspace import run_directory
with run_directory(Path(sys.argv[1])):
    print(tempfile.mkdtemp(), flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(directory: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds ``directory`` and has made a temporary directory; it ends with the block."""
    command = [sys.executable, "-c", HOLD, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process, Path(process.stdout.readline().strip())
        process.communicate()


@pytest.fixture(params=["short", "a-name-too-long-for-the-sockets-of-multiprocessing" * 2])
def directory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="k") as place:
        monkeypatch.setenv("TMPDIR", place)
        yield Path(place, "runs", request.param)


def test_temporary_files_lie_in_the_scratch_space_and_nothing_is_left(directory: Path) -> None:
    before = tempfile.gettempdir()
    with run_directory(directory) as scratch:
        assert Path(tempfile.mkdtemp()).parent == scratch == Path(os.environ["TMPDIR"])
        assert scratch.parent == directory or len(str(directory)) > 70
        assert scratch.stat().st_mode & 0o777 == 0o700
        (directory / "result").touch()
    assert not scratch.exists() and [path.name for path in directory.iterdir()] == ["result"]
    assert tempfile.gettempdir() == before != str(scratch)


def test_a_directory_that_was_made_for_nothing_is_removed(directory: Path) -> None:
    with run_directory(directory):
        assert directory.is_dir()
    assert not directory.parent.exists()  # it was made for this one, too
    directory.mkdir(parents=True)
    with run_directory(directory):
        pass
    assert directory.is_dir()


def test_a_second_run_on_one_directory_is_refused_in_one_line_and_leaves_the_first_alone(directory: Path) -> None:
    with holder(directory) as (process, made):
        with (
            pytest.raises(InputError, match="must not be in use, but another run uses it") as caught,
            run_directory(directory),
        ):
            pass
        assert "\n" not in str(caught.value) and str(directory) in str(caught.value)
        assert made.is_dir() and process.poll() is None
    with run_directory(directory):
        pass


@pytest.mark.parametrize("again", ["the same directory", "one beside it"])
def test_what_a_killed_run_left_is_removed_by_the_next(directory: Path, again: str) -> None:
    with holder(directory) as (process, made):
        process.kill()
    assert process.returncode == -signal.SIGKILL and made.is_dir()
    with run_directory(directory if again == "the same directory" else directory.with_name("next")):
        assert not made.exists() and (again == "the same directory" or not list(directory.iterdir()))


def test_a_living_run_beside_it_keeps_its_files(directory: Path) -> None:
    with holder(directory) as (_, made), run_directory(directory.with_name("next")):
        assert made.is_dir()


def test_directories_of_others_are_left_alone(directory: Path) -> None:
    other = directory.with_name("other") / SCRATCH  # without a lock: not a run's
    other.mkdir(parents=True)
    with run_directory(directory):
        assert other.is_dir()
    assert not (directory / LOCK).exists()


def test_only_short_paths_hold_scratch_space() -> None:
    assert scratch_of(Path("/r")) == Path("/r", SCRATCH)
    long = [scratch_of(Path("/", "r" * 80, name)) for name in ("a", "b")]
    assert long[0] != long[1] and all(len(str(path)) < 75 for path in long)
