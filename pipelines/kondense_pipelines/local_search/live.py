"""Progress of a local run on the terminal: a table that is updated, or one line per trial without a terminal."""

import time
from pathlib import Path

from kondense.search.history import Status
from kondense.search.ledger import identity
from kondense.search.numbers import number as read_number
from kondense.search.run import Outcome, Run, Search, TrialRecord
from rich.console import Console
from rich.live import Live
from rich.table import Table

from kondense_pipelines.terminal import plain

REFRESH_S = 0.25
WIDEST = 16  # characters of a hyperparameter's column
MARGIN = 11  # lines of the terminal for the table's frame, title and caption
COLOURS = {
    Status.RUNNING: "cyan",
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.METRICS_UNAVAILABLE: "yellow",
    Status.KILLED: "magenta",
    Status.EARLY_STOPPED: "blue",
}


class Display:
    """Shows the progress of a run."""

    def __init__(self, console: Console | None = None) -> None:
        """Show on ``console``; standard output by default."""
        self._console = console or Console()
        self._live: Live | None = None
        self._shown = 0.0

    def start(self, run: Run) -> None:
        """Show a run for the first time."""
        if self._console.is_terminal:
            self._live = Live(_table(run, self._rows()), console=self._console, auto_refresh=False)
            self._live.start()
        else:
            self._line(run.headline())

    def update(self, run: Run) -> None:
        """Show the current state, a few times a second at most."""
        now = time.monotonic()
        if self._live is not None and now - self._shown >= REFRESH_S:
            self._shown = now
            self._live.update(_table(run, self._rows()), refresh=True)

    def finished(self, run: Run, trial: TrialRecord) -> None:
        """Print the result of a trial, without a terminal."""
        if self._live is None:
            self._line(f"{run.headline()}: {run.search.trial_line(trial)}")

    def stop(self, run: Run) -> None:
        """Show the last state and end the updates."""
        if self._live is not None:
            self._live.update(_table(run, self._rows()), refresh=True)
            self._live.stop()
            self._live = None

    def ended(self, run: Run, outcome: Outcome, reason: str, page: Path) -> None:
        """Print the outcome, the best configuration, and the path of the page."""
        self._line(f"{outcome.value}: {reason}.")
        search = run.search
        if best := run.best():
            for trial in search.front(run.finished) if search.goals and len(search.goals.objectives) > 1 else ():
                self._line(f"Front: {search.trial_line(trial)}")
            if not search.feasible(best):
                self._line("No trial keeps the constraints; the best is the one that breaks them least.")
            if search.pick is not None and not search.is_picked(best):
                self._line(f"No trial meets {search.pick.text!r}; the best is the nearest.")
            self._line(f"{'Best' if search.pick is None else 'Picked'}: {search.trial_line(best)}")
            for name, value in best.assignments.items():
                self._line(f"  {name} = {value}")
            if run.baseline is not None:
                self._line(baseline_line(run, best))
        else:
            self._line("No trial has a value.")
        self._line(f"Report: {page}")

    def _line(self, text: str) -> None:
        self._console.print(plain(text), highlight=False, soft_wrap=True)

    def _rows(self) -> int:
        return max(self._console.height - MARGIN, 5)


def baseline_line(run: Run, best: TrialRecord) -> str:
    """Return the difference of the best trial from the baseline, in one line."""
    assert run.baseline is not None
    assert best.value is not None
    text = f"Baseline: {run.search.trial_line(run.baseline)}"
    if run.baseline.value is None:
        return text
    return f"{text}; the difference of the best is {best.value - run.baseline.value:+.6g}"


def _table(run: Run, rows: int) -> Table:
    search = run.search
    table = Table(title=run.headline(), title_justify="left", title_style="bold", caption_justify="left")
    failed = [trial for trial in run.finished if trial.reason]
    table.caption = plain(search.trial_line(failed[-1])) if failed else None
    for title in ("trial", "rung", search.resource_name, "status", search.metric, *search.further, "seconds"):
        if title:
            table.add_column(title, justify="left" if title in ("trial", "status") else "right", no_wrap=True)
    for name in _hyperparameters(search):
        table.add_column(plain(name), no_wrap=True, overflow="ellipsis", max_width=WIDEST)
    best, front = run.best(), {trial.name for trial in search.front(run.finished)}
    running = [trial for trial in run.trials.values() if trial.status is Status.RUNNING]
    for trial in [*running, *reversed(run.finished)][:rows]:
        style = "bold reverse" if trial is best and len(front) > 1 else "bold" if trial.name in front else None
        table.add_row(*_cells(run, trial), style=style)
    return table


def _cells(run: Run, trial: TrialRecord) -> list[str]:
    issued, resource, seconds = identity(trial.name), run.search.resource(trial), trial.seconds
    if seconds is None and trial.started is not None:
        seconds = time.time() - trial.started
    return [
        trial.name.removeprefix(f"{run.search.name}-"),
        str(issued.rung) if issued else "",
        *([] if resource is None else [f"{resource:g}"]),
        f"[{COLOURS.get(trial.status, 'white')}]{trial.status.value}[/]",
        "" if trial.value is None else f"{trial.value:.6g}",
        *(plain(_short(trial.metrics.get(name, ""))) for name in run.search.further),
        "" if seconds is None else f"{seconds:.1f}",
        *(plain(_short(trial.assignments.get(name, ""))) for name in _hyperparameters(run.search)),
    ]


def _hyperparameters(search: Search) -> list[str]:
    return [name for name in search.space.names if name != search.resource_name]


def _short(value: str) -> str:
    """Return a number with four digits, and another value as it is."""
    number = read_number(value)
    return value if number is None or value.lstrip("+-").isdecimal() else f"{number:.4g}"
