"""The progress of a run: a bar over the steps, the epochs of the current one, and a line per finished step."""

import re
import time
from types import TracebackType

from kondense.artifacts.failed import Failed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from kondense_pipelines.local.steps import StepResult
from kondense_pipelines.terminal import plain

# Stages log `epoch 3/8 train_loss=0.31 validation_accuracy=0.89`, which Katib's collector can read too.
EPOCH = re.compile(r"epoch (\d{1,18})/(\d{1,18})\b(.*)")
SHOWN = {"train_loss": "loss", "validation_accuracy": "accuracy"}
WARNING = "warning: "  # prefix of the lines of a stage's output that the terminal shows
FIGURE = re.compile(r"\b(\w+)=([-+.\deE]+)")


class RunProgress:
    """Shows a run on ``console``: live on a terminal, plain lines elsewhere. A context manager and an ``Observer``.

    Args:
        console: where to print.
        steps: number of steps of the run.
    """

    def __init__(self, console: Console, steps: int) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", style="dim", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.overall = self.progress.add_task("all steps", total=steps, figures="")
        self.current = self.overall
        self.announced = ""

    def __enter__(self) -> "RunProgress":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def started(self, step: str) -> None:
        """Show that ``step`` has begun."""
        self.current = self.progress.add_task(step, total=None, figures="")

    def line(self, step: str, text: str) -> None:
        """Show the epoch if ``text`` reports one; without a terminal, announce the step at its first line."""
        if self.announced != step and not self.console.is_terminal:
            self.announced = step  # a reused step prints nothing, so it is not announced
            self.console.print(f"{time.strftime('%H:%M:%S')}  {step} ...", highlight=False)
        if text.startswith(WARNING):
            self.console.print(f"[yellow]![/] {plain(step)}: {plain(text.removeprefix(WARNING))}", highlight=False)
        if line := read_epoch(text):
            epoch, epochs, figures = line
            shown = [f"{short} {figures[name][:6]}" for name, short in SHOWN.items() if name in figures]
            self.progress.update(self.current, completed=epoch, total=epochs, figures="  ".join(shown))

    def finished(self, result: StepResult) -> None:
        """Count the step and print a line about it."""
        self.progress.remove_task(self.current)
        self.progress.advance(self.overall)
        if result.failed:
            self._failed(result, result.failed)
            return
        mark = "[cyan]=[/]" if result.reused else "[green]✓[/]"
        note = "reused, nothing changed" if result.reused else f"{result.seconds:6.1f} s"
        self.console.print(f"{mark} {plain(result.name):32} {note}", highlight=False)

    def _failed(self, result: StepResult, failed: Failed) -> None:
        """Print why a candidate's step has no model; the run goes on."""
        name = result.name
        if failed.get("passed_on"):
            self.console.print(f"[dim]-[/] {plain(name):32} skipped: {plain(failed['step'])} failed", highlight=False)
        else:
            text = f"[red]✗[/] {plain(name):32} {plain(failed['reason'])} (log: {plain(str(result.log))})"
            self.console.print(text, highlight=False, soft_wrap=True)


def read_epoch(text: str) -> tuple[int, int, dict[str, str]] | None:
    """Return epoch, epochs and the figures of a stage's progress line; None for any other line."""
    match = EPOCH.match(text)
    return (int(match[1]), int(match[2]), dict(FIGURE.findall(match[3]))) if match else None
