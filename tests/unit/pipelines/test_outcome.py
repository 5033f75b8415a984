import io
import re
from pathlib import Path

import pytest
from kondense_pipelines.local.progress import RunProgress, read_epoch
from kondense_pipelines.local.steps import StepResult, error_in, failure_line
from rich.console import Console

LOG = Path("runs/x/logs/train.log")
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "a.py", line 1, in run',
    "kondense.training.fit.NonFiniteLossError: the loss must be finite, but is nan in epoch 1, step 3.",
]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["ValueError: sparsity must be in [0, 1), but got 1.0."], "sparsity must be in [0, 1), but got 1.0."),
        (TRACEBACK, "the loss must be finite, but is nan in epoch 1, step 3."),
        (["KeyError: 'x'", "some note"], "KeyError: 'x'"),
        (["error: bits must be in [2, 8], but got 9."], "bits must be in [2, 8], but got 9."),
        (["MemoryError"], "MemoryError"),
        (["all is well"], ""),
        ([], ""),
    ],
)
def test_the_last_error_without_its_traceback(lines: list[str], error: str) -> None:
    assert error_in(lines) == error


def test_a_failure_is_one_line_with_step_reason_and_log() -> None:
    line = failure_line("train teacher", 1, TRACEBACK, LOG)
    assert line == (
        "step 'train teacher' failed: the loss must be finite, but is nan in epoch 1, step 3."
        " (log: runs/x/logs/train.log)"
    )


@pytest.mark.parametrize("code", [-9, 137])
def test_a_signal_is_named(code: int) -> None:
    assert "SIGKILL" in failure_line("prune", code, TRACEBACK, LOG)


def test_an_exit_without_an_error_says_its_code() -> None:
    assert "exit code 3" in failure_line("prune", 3, ["bye"], LOG)


def test_an_epoch_line_is_read() -> None:
    line = "epoch 3/8 train_loss=0.3121 validation_accuracy=0.8934 learning_rate=1.2e-03"
    figures = {"train_loss": "0.3121", "validation_accuracy": "0.8934", "learning_rate": "1.2e-03"}
    assert read_epoch(line) == (3, 8, figures)
    assert read_epoch("wrote 3/8 files") is None
    assert read_epoch(f"epoch {'9' * 5000}/8 loss=1") is None  # more digits than Python reads
    assert read_epoch("epoch 3/8 " + "x" * 10**6) == (3, 8, {})  # minutes, if each letter may begin a name


def test_a_terminal_shows_steps_epochs_and_figures_on_one_line() -> None:
    screen = io.StringIO()
    with RunProgress(Console(file=screen, force_terminal=True, width=100), 2) as progress:
        progress.started("train teacher")
        progress.line("train teacher", "epoch 2/8 train_loss=0.218053 validation_accuracy=0.885 images_per_s=1739")
        progress.progress.refresh()
        progress.finished(StepResult("train teacher", False, 3.25, {}))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"train teacher +\S+ +2/8 +loss 0\.2180 +accuracy 0\.885 +0:00:0", text)
    assert re.search(r"✓ train teacher +3\.2 s", text)


def test_a_warning_of_a_stage_is_seen() -> None:
    screen = io.StringIO()
    with RunProgress(Console(file=screen, width=200), 1) as progress:
        progress.started("distill")
        progress.line("distill", "warning: the student is larger than the teacher: 20 parameters against [10].")
        progress.line("distill", "no warning: all is well")
    lines = screen.getvalue().splitlines()
    assert lines[1:] == ["! distill: the student is larger than the teacher: 20 parameters against [10]."]
