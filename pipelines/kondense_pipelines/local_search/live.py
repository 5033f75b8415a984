"""A local run on the terminal: a table that keeps itself current, or one line per trial where there is no terminal."""

import time
from pathlib import Path

from kondense.search.history import Status
from kondense.search.ledger import identity
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from kondense_pipelines.local_search.state import FAILURES, Outcome, State, TrialRecord

REFRESH_S = 0.25
MARGIN = 11  # lines of the terminal that the table's frame, title and caption take
COLOURS = {
    Status.RUNNING: "cyan",
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.METRICS_UNAVAILABLE: "yellow",
    Status.KILLED: "magenta",
}


class Display:
    """What a person sees of a run."""

    def __init__(self, console: Console | None = None) -> None:
        """Show on ``console``; standard output by default."""
        self._console = console or Console()
        self._live: Live | None = None
        self._shown = 0.0

    def start(self, state: State) -> None:
        """Begin to show a run."""
        if self._console.is_terminal:
            self._live = Live(_table(state, self._rows()), console=self._console, auto_refresh=False)
            self._live.start()
        else:
            self._line(headline(state))

    def update(self, state: State) -> None:
        """Show the state as it is now, a few times a second at most."""
        now = time.monotonic()
        if self._live is not None and now - self._shown >= REFRESH_S:
            self._shown = now
            self._live.update(_table(state, self._rows()), refresh=True)

    def finished(self, state: State, record: TrialRecord) -> None:
        """Tell that a trial has ended."""
        if self._live is None:
            self._line(f"{headline(state)}: {trial_line(state, record)}")

    def stop(self, state: State) -> None:
        """Leave the last state standing."""
        if self._live is not None:
            self._live.update(_table(state, self._rows()), refresh=True)
            self._live.stop()
            self._live = None

    def ended(self, state: State, outcome: Outcome, reason: str, page: Path) -> None:
        """Tell how the run ended, the best configuration, and where its page is."""
        self._line(f"{outcome.value}: {reason}.")
        if best := state.best():
            self._line(f"Best: {trial_line(state, best)}")
            for name, value in best.assignments.items():
                self._line(f"  {name} = {value}")
            if state.baseline is not None:
                self._line(baseline_line(state, best))
        else:
            self._line("No trial has a value.")
        self._line(f"Report: {page}")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _rows(self) -> int:
        return max(self._console.height - MARGIN, 5)


def headline(state: State) -> str:
    """Return where the run stands in one line."""
    most = state.experiment.max_trials
    parts = [f"{state.experiment.name} ({state.experiment.algorithm})"]
    parts.append(f"{len(state.finished)}{f'/{most}' if most else ''} trials")
    if running := state.count(Status.RUNNING):
        parts.append(f"{running} running")
    if failed := state.count(*FAILURES):
        parts.append(f"{failed} failed")
    if best := state.best():
        parts.append(f"best {state.experiment.objective.metric}={best.value:.6g}{_at(state, best)}")
    return ", ".join(parts)


def trial_line(state: State, record: TrialRecord) -> str:
    """Return what became of one trial in one line."""
    words = [record.name, record.status.value]
    if record.value is not None:
        words.append(f"{state.experiment.objective.metric}={record.value:.6g}{_at(state, record)}")
    if record.seconds is not None:
        words.append(f"in {record.seconds:.1f} s")
    if record.reason:
        words.append(f"({record.reason})")
    return " ".join(words)


def baseline_line(state: State, best: TrialRecord) -> str:
    """Return how far the best trial is from the baseline, in one line."""
    assert state.baseline is not None
    assert best.value is not None
    text = f"Baseline: {trial_line(state, state.baseline)}"
    if state.baseline.value is None:
        return text
    return f"{text}; the best is {best.value - state.baseline.value:+.6g} from it"


def _at(state: State, record: TrialRecord) -> str:
    resource = state.resource(record)
    return "" if resource is None else f" at {resource:g} {state.resource_name}"


def _table(state: State, rows: int) -> Table:
    resource_name = state.resource_name
    table = Table(title=headline(state), title_justify="left", title_style="bold", caption_justify="left")
    failed = [state.trials[name] for name in state.finished if state.trials[name].reason]
    table.caption = escape(trial_line(state, failed[-1])) if failed else None
    for title in ("trial", "rung", resource_name, "status", state.experiment.objective.metric, "seconds"):
        if title:
            table.add_column(title, justify="left" if title in ("trial", "status") else "right", no_wrap=True)
    best = state.best()
    running = [record for record in state.trials.values() if record.status is Status.RUNNING]
    ended = [state.trials[name] for name in reversed(state.finished)]
    for record in (running + ended)[:rows]:
        named = identity(record.name)
        resource = state.resource(record)
        cells = [record.name.removeprefix(f"{state.experiment.name}-"), str(named.rung) if named else ""]
        if resource_name:
            cells.append("" if resource is None else f"{resource:g}")
        cells.append(f"[{COLOURS.get(record.status, 'white')}]{record.status.value}[/]")
        cells.append("" if record.value is None else f"{record.value:.6g}")
        seconds = record.seconds
        if seconds is None and record.started is not None:
            seconds = time.time() - record.started
        cells.append("" if seconds is None else f"{seconds:.1f}")
        table.add_row(*cells, style="bold" if record is best else None)
    return table
