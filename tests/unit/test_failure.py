"""Why a container fails stands in its log and on its pod's status."""

from pathlib import Path

import pytest
from kondense import failure
from kondense.errors import LONGEST_LINE, InputError, KondenseError

LONG = "import_uri must be a model artifact (a directory with model.json) or a .safetensors file, but got x."


def test_a_short_reason_is_one_line_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    failure.report_failure("sparsity must be in [0, 1),\n  but got 2.", termination_log=log)
    assert log.read_text() == "sparsity must be in [0, 1), but got 2.\n"
    assert capsys.readouterr().err == "error: sparsity must be in [0, 1), but got 2.\n"


def test_a_long_reason_begins_with_what_fits_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    failure.report_failure(LONG, termination_log=log)
    first, whole = log.read_text().splitlines()
    assert 40 < len(f"error: {first}") <= 80
    assert LONG.startswith(first.removesuffix("..."))
    assert whole == LONG
    assert capsys.readouterr().err.splitlines() == [f"error: {first}", f"error: {LONG}"]


def test_outside_of_a_pod_a_reason_is_one_line_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failure.report_failure(LONG, termination_log=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert capsys.readouterr().err == f"error: {LONG}\n"


def test_what_a_stage_may_raise_ends_in_one_line_and_a_bug_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended, failure.reporting_failures():
        raise InputError("rounds must be in [1, 9], but got 10.")
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(KeyError), failure.reporting_failures():
        raise KeyError("a bug")


@pytest.mark.parametrize("error", [ValueError(), TimeoutError(""), OSError(" ")])
def test_an_error_without_words_is_told_by_its_type(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    failure.report_failure(error)
    assert capsys.readouterr().err == f"error: {type(error).__name__}\n"


def test_one_long_word_does_not_leave_nothing() -> None:
    assert len(f"error: {failure.shortened('a ' + 'y' * 200)}") == 80


def test_a_termination_log_keeps_what_kubernetes_keeps(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    failure.report_failure("word " * 3000, termination_log=log)
    assert log.stat().st_size <= 4096


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert failure.one_line("got 'a\x1b]0;b\x07\x9b2J'\nΩ") == r"got 'a\x1b]0;b\x07\x9b2J' Ω"


@pytest.mark.parametrize("kind", [KondenseError, InputError])
def test_a_long_line_of_an_error_is_shown_by_its_ends(kind: type[KondenseError]) -> None:
    whole = "x" * LONGEST_LINE
    assert str(kind(whole)) == whole
    first, second = str(kind(f"setting start must be one of a, but got {'y' * 10**6}.\nnext")).splitlines()
    assert first.startswith("setting start must be one of a, but got yyy") and first.endswith("yyy.")
    assert " ... " in first and len(first) <= LONGEST_LINE
    assert second == "next"
