"""What ends the ``kondense`` command from outside."""

import os
import signal
from collections.abc import Iterator

import pytest
import typer
from kondense_pipelines.errors import reported


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Neither pytest nor a fault of these tests is to change what the signals do."""
    kept = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}  # nohup's
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line_after_the_cleaning_up(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before, cleaned = signal.getsignal(number), False
    with pytest.raises(typer.Exit) as ended, reported():
        try:
            os.kill(os.getpid(), number)
            raise AssertionError("the signal was not heeded")
        finally:
            os.kill(os.getpid(), number)  # a second one does not disturb it
            cleaned = True
    assert cleaned and ended.value.exit_code == 128 + number
    assert capsys.readouterr().err == f"error: stopped by {number.name}; the same command continues.\n"
    assert signal.getsignal(number) is before


def test_a_command_that_was_told_to_outlive_its_terminal_does() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with reported():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
