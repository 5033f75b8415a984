"""Where the trials of this machine report their metrics, by the Experiment's collector.

On a cluster each pod has its own file system. Here the path of a File or TensorFlowEvent collector is replaced, in the
trial's command and variables, by one in the trial's directory. A path that only the program knows stays where it is:
trials then run one at a time, and what each has written is moved into its directory.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kondense.errors import InputError
from kondense.katib import metrics
from kondense.katib.event_files import event_reports
from kondense.katib.metrics import MetricLine
from kondense.katib.spec import Experiment
from kondense.katib.template import LocalChanges
from kondense.search.numbers import number

NAMES = {"File": "metrics.log", "TensorFlowEvent": "events"}  # in a trial's directory
MOST_REPORTS = 1_000  # of a trial's curve in the results


@dataclass(frozen=True)
class Reports:
    """The reports of an Experiment's trials."""

    experiment: Experiment
    changes: LocalChanges

    @property
    def name(self) -> str:
        """The file or directory of a trial's reports in its directory; empty for its output."""
        return NAMES.get(self.experiment.collector.kind, "")

    @property
    def fixed(self) -> Path | None:
        """The path of this machine that every trial writes to; None if each has its own."""
        path = self.experiment.collector.path
        if not self.name or path.rstrip("/") in json.dumps(self.experiment.trial_spec):
            return None
        return Path(self.changes.mapped(path))

    def prepare(self, *, started: bool) -> None:
        """Make the directory of a fixed path.

        Args:
            started: whether the run has started trials before; then what is at the path is theirs.

        Raises:
            InputError: it cannot be written, or holds a file that is not the run's.
        """
        path = self.fixed
        if path is None:
            return
        advice = f"let the trial's command name it, or map it: --map {self.experiment.collector.path}=PATH"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the collector's path {path} must be writable ({error.strerror}): {advice}.") from None
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"the collector's path {path} must be writable, but is not: {advice}.")
        if not started and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
            raise InputError(f"the collector's path {path} must not exist before the run: move it, or {advice}.")

    def own_path(self, directory: Path) -> Path | None:
        """Return the path that replaces the collector's for a trial; None if nothing is replaced."""
        return directory / self.name if self.name and self.fixed is None else None

    def clear(self, directory: Path) -> None:
        """Remove the reports of an interrupted attempt."""
        for path in (directory / self.name if self.name else None, self.fixed):
            if path is not None and path.is_dir():
                shutil.rmtree(path)
            elif path is not None:
                path.unlink(missing_ok=True)

    def collect(self, directory: Path) -> None:
        """Move what a trial has written to the fixed path into its directory."""
        path = self.fixed
        if path is not None and path.exists():
            shutil.move(path, directory / self.name)

    def read(self, directory: Path, log: Path) -> list[MetricLine]:
        """Return the reports of a trial so far, in order."""
        path = self._path(directory, log)
        if self.experiment.collector.kind == "TensorFlowEvent":
            return event_reports(path, self.experiment.objective) if path.is_dir() else []
        return metrics.reported(_lines(path), self.experiment.collector, self.experiment.objective)

    def size(self, directory: Path, log: Path) -> int:
        """Return the size of the file of a trial's reports so far, 0 without one."""
        path = self._path(directory, log)
        return path.stat().st_size if path.is_file() else 0

    def _path(self, directory: Path, log: Path) -> Path:
        own = directory / self.name if self.name else log
        return own if own.exists() or self.fixed is None else self.fixed

    def curve(self, reports: list[MetricLine]) -> list[float]:
        """Return the finite numbers reported for the objective."""
        mine = (report.value for report in reports if report.name == self.experiment.objective.metric)
        return [value for value in map(number, mine) if value is not None]


def shortened(curve: list[float], first: int = 0) -> list[float]:
    """Return a curve for the results: at most MOST_REPORTS, the first `first` and the last of the others."""
    if len(curve) <= max(MOST_REPORTS, first):
        return curve
    last = max(MOST_REPORTS - first, 1)
    return [*curve[:first], *curve[-last:]]


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            yield from (line.removesuffix("\n") for line in lines)
