"""What trials leave is data: whatever they write, and however much, the search reads it within bounds and goes on."""

import json
import os
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kondense.katib import metrics
from kondense.katib.event_files import read_scalars
from kondense.katib.metrics import LONGEST_LINE, lines_of
from kondense.katib.spec import Experiment, load
from kondense.katib.template import NO_CHANGES
from kondense_pipelines.local_search import reports as module
from kondense_pipelines.local_search.reports import FirstReports, Reports

from tests.support.data_makers import deep_place, nested
from tests.support.event_records import event
from tests.support.experiment_example import container, experiment, scripted, write
from tests.unit.local_search.test_kinds import collector, few, start


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Check the most memory that the block took, in bytes, reserved memory included."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@pytest.fixture
def place() -> Iterator[Path]:
    with deep_place() as path:
        yield path


def read(tmp_path: Path, document: dict[str, Any] | None = None) -> Experiment:
    return load(write(document or experiment(), tmp_path))


@pytest.mark.parametrize("kind", ["TensorFlowEvent", "File"])
@pytest.mark.parametrize(
    "script",
    [
        "mkdir -p /tb/" + "d/" * 101,
        "mkdir -p /tb/" + "d/" * 1_100,  # more than Python's calls in each other
        "mkdir /tb; ln -s /tb /tb/link; touch /tb/$(head -c 255 /dev/zero | tr '\\0' x); mkfifo /tb/pipe",
        "mkfifo /tb",
        "ln -s /dev/zero /tb",
        "mkdir /tb; ln -s /dev/zero /tb/zero",
    ],
)
def test_whatever_a_trial_leaves_where_its_reports_should_be_the_search_goes_on(
    place: Path, script: str, kind: str
) -> None:
    document = few(scripted(""), 2)
    document["spec"]["maxFailedTrialCount"] = 2
    document = collector(document, kind, path="/tb", kind="File" if kind == "File" else "Directory")
    container(document)["args"] = [f"{script} 2> /dev/null; true"]
    result, trials = start(document, place)
    assert len(trials) == 2 and {trial["status"] for trial in trials} <= {"failed", "metrics_unavailable"}
    if kind == "TensorFlowEvent" and "d/d" in script:
        assert trials[0]["reason"].startswith("its reports cannot be read: ") and "\n" not in trials[0]["reason"]


@pytest.mark.parametrize("levels", [1, 101, 1_100])
def test_what_an_interrupted_attempt_has_left_is_removed(place: Path, levels: int) -> None:
    document = collector(few(scripted("")), "TensorFlowEvent", path="/tb", kind="Directory")
    container(document)["args"] = ["touch /tb"]
    nested(place / "trial" / "events", levels)
    Reports(read(place, document), NO_CHANGES).clear(place / "trial")
    assert list((place / "trial").iterdir()) == []


def test_a_trial_that_reports_without_end_takes_a_few_bytes_a_report(tmp_path: Path) -> None:
    reports = Reports(read(tmp_path), NO_CHANGES)
    count = 30_000  # as objects in a list, some 100 bytes each
    (tmp_path / "output.log").write_text("loss=1\n" * (count - 1) + "loss=0.5\n")
    with at_most(2**20):
        found = reports.read(tmp_path, tmp_path / "output.log")
    assert len(found.curve) == count and found.observations["loss"] == metrics.Observation("0.5", "1", "0.5")


def test_a_line_without_end_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"loss=0.25\n")
        file.truncate(100 * 2**20)
    with at_most(8 * LONGEST_LINE), path.open("rb") as file:
        lengths = [len(line) for line in lines_of(file)]
    assert lengths == [9, *[LONGEST_LINE] * 99, LONGEST_LINE - 10]


@pytest.mark.parametrize("text", [b"", b"\n", b"a", b"a\n", b"a\n\nb", b"a\rb\n", b"\xff\n", "ä\u2028\n".encode()])
def test_lines_end_with_a_line_feed_only(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    with path.open("rb") as file:
        assert list(lines_of(file)) == text.decode(errors="replace").removesuffix("\n").split("\n")[: len(text)]
    with path.open("rb") as file:
        whole = list(lines_of(file, unfinished=False))
        assert (
            file.read() == text[len("".join(f"{line}\n" for line in whole).encode(errors="replace")) :]
            or b"\xff" in text
        )
    assert len(whole) == text.count(b"\n")


def test_first_reports_are_read_on_from_where_the_last_look_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, seen, log = Reports(read(tmp_path), NO_CHANGES), FirstReports(), tmp_path / "output.log"
    reports.follow(tmp_path, log, seen, 3)
    assert (seen.curve, seen.position) == ([], 0)
    log.write_text("loss=1\nother\nloss=")
    reports.follow(tmp_path, log, seen, 3)
    assert seen.curve == [1.0] and seen.position == len("loss=1\nother\n")
    taken: list[str] = []
    monkeypatch.setattr(module.metrics, "reported", lambda lines, *_: iter(taken.extend(lines) or ()))
    with log.open("a") as file:
        file.write("2\n")
    reports.follow(tmp_path, log, seen, 3)
    assert taken == ["loss=2"]
    monkeypatch.undo()
    log.write_text("loss=7\n")  # a program that begins its file anew
    reports.follow(tmp_path, log, seen, 3)
    assert seen.curve == [7.0]
    with log.open("a") as file:
        file.write("loss=8\nloss=9\n")
    reports.follow(tmp_path, log, seen, 2)
    reports.follow(tmp_path, log, seen, 2)
    assert seen.curve == [7.0, 8.0, 9.0]
    with log.open("a") as file:
        file.write("loss=10\n")
    reports.follow(tmp_path, log, seen, 2)
    assert seen.curve == [7.0, 8.0, 9.0]  # that is enough


def test_one_look_reads_so_much_and_the_next_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 10)
    reports, seen, log = Reports(read(tmp_path), NO_CHANGES), FirstReports(), tmp_path / "output.log"
    log.write_text("".join(f"loss={value}\n" for value in range(5)))
    looks = []
    for _ in range(4):
        reports.follow(tmp_path, log, seen, 99)
        looks.append(len(seen.curve))
    assert looks == [2, 4, 5, 5] and seen.curve == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("line", ["Traceback", "[1]"])
def test_a_line_that_is_no_object_makes_a_file_of_json_none_of_reports(tmp_path: Path, line: str) -> None:
    document = collector(few(scripted("")), "File", path="/m.log", kind="File", format="JSON")
    container(document)["args"] = ["cat /m.log"]
    reports, seen = Reports(read(tmp_path, document), NO_CHANGES), FirstReports()
    file = tmp_path / "metrics.log"
    file.write_text(json.dumps({"loss": "1"}) + "\n" + '{"los')
    reports.follow(tmp_path, tmp_path / "output.log", seen, 9)
    assert seen.curve == [1.0]
    file.write_text(json.dumps({"loss": "1"}) + f"\n{line}\n" + json.dumps({"loss": "2"}) + "\n")
    for _ in range(2):
        reports.follow(tmp_path, tmp_path / "output.log", seen, 9)
    assert seen.curve == [1.0] and seen.broken
    assert reports.read(tmp_path, tmp_path / "output.log").observations["loss"].latest == metrics.UNAVAILABLE


def test_a_record_of_events_that_is_not_there_is_not_reserved(tmp_path: Path) -> None:
    path = tmp_path / "events"
    whole = event(1.0, "loss", 0.5)
    path.write_bytes(whole + struct.pack("<Q", 60 * 2**20) + os.urandom(100))
    with at_most(2**20):
        assert [value for _, _, value in read_scalars(path)] == ["0.5"]
