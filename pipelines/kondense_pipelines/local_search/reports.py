"""Where the trials of this machine report their metrics, by the Experiment's collector.

On a cluster each pod has its own file system. Here the path of a File or TensorFlowEvent collector is replaced, in the
trial's command and variables, by one in the trial's directory. A path that only the program knows stays where it is:
trials then run one at a time, and what each has written is moved into its directory.
"""

import collections
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from kondense.errors import InputError
from kondense.files import open_file
from kondense.katib import metrics
from kondense.katib.event_files import event_reports
from kondense.katib.metrics import MetricLine, Observation
from kondense.katib.spec import Experiment
from kondense.katib.template import LocalChanges
from kondense.removal import remove_directory
from kondense.search.numbers import number

NAMES = {"File": "metrics.log", "TensorFlowEvent": "events"}  # in a trial's directory
MOST_REPORTS = 1_000  # of a trial's curve in the results
MOST_AT_ONCE = 16 * 2**20  # bytes of a running trial's output that are read between two looks at the other trials


@dataclass(frozen=True)
class Reading:
    """What a trial has reported in all.

    Attributes:
        observations: of each metric.
        curve: the finite numbers reported for the objective, as doubles: a trial may report without end.
    """

    observations: Mapping[str, Observation]
    curve: Sequence[float]


UNREAD = Reading({}, ())


@dataclass
class FirstReports:
    """The first reports of a running trial, read on from where the last look at them ended.

    Attributes:
        curve: the finite numbers reported for the objective.
        position: in the file, in bytes.
        broken: whether a line that is not as it must be has made the file none of reports.
    """

    curve: list[float] = field(default_factory=list)
    position: int = 0
    broken: bool = False


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
                remove_directory(path)
            elif path is not None:
                path.unlink(missing_ok=True)

    def collect(self, directory: Path) -> None:
        """Move what a trial has written to the fixed path into its directory."""
        path = self.fixed
        if path is not None and path.exists():
            shutil.move(path, directory / self.name)

    def read(self, directory: Path, log: Path) -> Reading:
        """Return the reports of a trial that has ended.

        Raises:
            ArtifactError, OSError: what it has left cannot be read.
        """
        path, curve = self._path(directory, log), array("d")
        if self.experiment.collector.kind == "TensorFlowEvent":
            reports: Iterable[MetricLine] = event_reports(path, self.experiment.objective) if path.is_dir() else ()
        else:
            reports = metrics.reported(_lines(path), self.experiment.collector, self.experiment.objective)
        return Reading(metrics.observe(self._noted(reports, curve), self.experiment.objective), curve)

    def follow(self, directory: Path, log: Path, seen: FirstReports, count: int) -> None:
        """Read on in the output of a running trial, until `seen` has ``count`` reports of the objective.

        Raises:
            ArtifactError, OSError: it cannot be read.
        """
        path = self._path(directory, log)
        if len(seen.curve) >= count or seen.broken or not path.is_file():
            return
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size < seen.position:  # it has begun anew
                seen.curve, seen.position = [], 0
            file.seek(seen.position)
            reports = metrics.reported(_some_lines(file), self.experiment.collector, self.experiment.objective)
            try:
                collections.deque(self._noted(reports, seen.curve), maxlen=0)
            except metrics.LineError:
                seen.broken = True
            seen.position = file.tell()

    def _path(self, directory: Path, log: Path) -> Path:
        own = directory / self.name if self.name else log
        return own if own.exists() or self.fixed is None else self.fixed

    def _noted(self, reports: Iterable[MetricLine], curve: MutableSequence[float]) -> Iterator[MetricLine]:
        """Yield the reports, and add the finite numbers of the objective to ``curve``."""
        for report in reports:
            if report.name == self.experiment.objective.metric and (value := number(report.value)) is not None:
                curve.append(value)
            yield report


def shortened(curve: Sequence[float], first: int = 0) -> list[float]:
    """Return a curve for the results: at most MOST_REPORTS, the first `first` and the last of the others."""
    if len(curve) <= max(MOST_REPORTS, first):
        return list(curve)
    last = max(MOST_REPORTS - first, 1)
    return [*curve[:first], *curve[-last:]]


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with open_file(path) as file:
            yield from metrics.lines_of(file)


def _some_lines(file: BinaryIO) -> Iterator[str]:
    """Yield the whole lines from the file's position on, but only those of the next MOST_AT_ONCE bytes."""
    ends = file.tell() + MOST_AT_ONCE
    for line in metrics.lines_of(file, unfinished=False):
        yield line
        if file.tell() >= ends:
            return
