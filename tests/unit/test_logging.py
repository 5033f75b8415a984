import logging
import subprocess
import sys

import pytest
from kondense.logging import LOG, to_stdout


def test_a_library_prints_nothing() -> None:
    program = "from kondense.logging import LOG; LOG.info('a'); LOG.warning('b'); LOG.error('c')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_commands_print_lines_and_mark_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with to_stdout(), to_stdout():
        LOG.info("epoch 1/8 train_loss=0.3")
        LOG.warning("the student is larger")
        LOG.debug("hidden")
    LOG.info("silent again")
    assert capsys.readouterr().out == "epoch 1/8 train_loss=0.3\nwarning: the student is larger\n"


def test_a_record_is_one_line_that_a_terminal_does_not_obey(capsys: pytest.CaptureFixture[str]) -> None:
    with to_stdout():
        LOG.info("class %s", "cat\naccuracy=1.0\r\x1b[2J\x9b1A")
    assert capsys.readouterr().out == "class cat\\naccuracy=1.0\\r\\x1b[2J\\x9b1A\n"


def test_an_application_shows_the_lines_its_own_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    LOG.info("seen")
    assert caplog.record_tuples == [("kondense", logging.INFO, "seen")]
