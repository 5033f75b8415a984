"""A journal survives a kill at any byte."""

import json
import subprocess
import sys

import pytest
from kondense.search.journal import FORMAT_VERSION, Journal, JournalError


def test_events_come_back_in_order(tmp_path):
    with Journal(tmp_path / "j", experiment="a") as journal:
        assert journal.events == []
        journal.append({"event": "one"})
        journal.append({"event": "two", "value": 0.1})
    with Journal(tmp_path / "j", experiment="a") as journal:
        assert journal.events == [{"event": "one"}, {"event": "two", "value": 0.1}]


def test_a_line_torn_anywhere_is_cut_off(tmp_path):
    path = tmp_path / "j"
    with Journal(path, experiment="a") as journal:
        journal.append({"event": "one"})
        journal.append({"event": "two"})
    whole = path.read_bytes()
    last = whole.rfind(b"\n", 0, -1) + 1
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        with Journal(path, experiment="a") as journal:
            assert journal.events == [{"event": "one"}]
            journal.append({"event": "three"})
        with Journal(path, experiment="a") as journal:
            assert [event["event"] for event in journal.events] == ["one", "three"]


def test_a_torn_header_starts_anew(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b'{"event":"ru')
    with Journal(path, experiment="a") as journal:
        assert journal.events == []
    assert json.loads(path.read_text())["experiment"] == "a"


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "j"
    with Journal(path, experiment="a") as journal:
        journal.append({"event": "one"})
        journal.append({"event": "two"})
    path.write_bytes(path.read_bytes().replace(b'{"event":"one"}', b'{"event":\xff'))
    with pytest.raises(JournalError, match="j:2 must be an event of a search as JSON"):
        Journal(path, experiment="a")


def test_another_experiment_is_refused(tmp_path):
    Journal(tmp_path / "j", experiment="a").__exit__()
    with pytest.raises(JournalError, match="must belong to this search"):
        Journal(tmp_path / "j", experiment="b")


def test_another_experiment_is_told_in_one_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    header = {"event": "run", "format_version": FORMAT_VERSION, "experiment": "a\nb" * 100}
    path.write_text(json.dumps(header) + "\n")
    with pytest.raises(JournalError, match="must belong to this search, but its digest is 'a") as refused:
        Journal(path, experiment="one")
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


@pytest.mark.parametrize(("given", "told"), [("9", "9"), (r'"a\nb"', r"'a\\nb'")])
def test_an_unknown_format_is_refused_in_one_line(tmp_path, given, told):
    (tmp_path / "j").write_text(f'{{"event":"run","format_version":{given},"experiment":"a"}}\n')
    with pytest.raises(JournalError, match=rf"j must have format_version 2, but got {told}\.$"):
        Journal(tmp_path / "j", experiment="a")


def test_two_runs_do_not_share_a_journal(tmp_path):
    with Journal(tmp_path / "j", experiment="a"), pytest.raises(JournalError, match="another search uses it"):
        Journal(tmp_path / "j", experiment="a")
    with Journal(tmp_path / "j", experiment="a"):
        pass


def test_a_value_that_is_no_number_is_not_written(tmp_path):
    with Journal(tmp_path / "j", experiment="a") as journal, pytest.raises(ValueError):
        journal.append({"value": float("nan")})


FULL = """
import resource, sys
from pathlib import Path
from kondense.search.journal import Journal
path = Path(sys.argv[1])
with Journal(path, experiment="a") as journal:
    journal.append({"event": "one"})
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))  # room for half of the next line
    try:
        journal.append({"event": "two", "text": "x" * 40})
    except OSError as error:
        print(error)
    assert path.stat().st_size == size
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.append({"event": "three"})
"""


def test_a_line_that_the_disk_has_no_room_for_is_refused_whole(tmp_path):
    path = tmp_path / "j"
    run = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "File too large; the earlier events are complete" in run.stdout
    assert str(path) in run.stdout
    with Journal(path, experiment="a") as journal:
        assert [event["event"] for event in journal.events] == ["one", "three"]


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"name": "a", "time": 1}',
        '{"event": 1}',
        '{"event": "started", "name": "a"}',
        '{"event": "started", "name": ["a"], "time": 1}',
        '{"event": "finished", "name": "a", "time": 1, "status": "succeeded", "reason": "", "value": "0.5"}',
        '{"event": "finished", "name": "a", "time": NaN, "status": "succeeded", "reason": "", "value": 0.5}',
        '{"event": "suggested", "trials": [{"name": "a"}], "settings": {}}',
        '{"event": "suggested", "trials": [{"name": "a", "assignments": {"x": 1}}], "settings": {}}',
        '{"event": "suggested", "trials": [], "settings": []}',
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path, line):
    with Journal(tmp_path / "j", experiment="a"):
        pass
    with (tmp_path / "j").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(JournalError, match="j:2 must be an event of a search as JSON, but got"):
        Journal(tmp_path / "j", experiment="a")
