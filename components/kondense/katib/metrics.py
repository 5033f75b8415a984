"""A trial's metrics: parsed from its output, with one value chosen per metric.

Source: file-metricscollector.go and getMetrics in trial_controller_util.go of Katib 0.19.
"""

import contextlib
import datetime
import decimal
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from kondense.errors import KondenseError
from kondense.katib.expressions import compiled
from kondense.katib.spec import Collector, Objective
from kondense.search.numbers import number, parse_float

UNAVAILABLE = "unavailable"  # Katib's word for a metric without a report
LONGEST_LINE = 2**20  # bytes of a trial's output; a longer line is read as several
# What Go's TrimSpace takes off: Python takes four control characters for blanks besides.
BLANKS = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and not "\x1c" <= c <= "\x1f")
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, for which Go reads the replacement character
EPOCH = datetime.datetime.min.replace(tzinfo=datetime.UTC)  # the time of a line without one, or with none that exists
# Go's time.RFC3339Nano.
TIME = re.compile(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


class LineError(KondenseError, ValueError):
    """A line of a file in JSON makes it none of reports."""


@dataclass(frozen=True, slots=True)
class MetricLine:
    """One report of one metric; the value is the reported text."""

    name: str
    value: str
    time: datetime.datetime = EPOCH


@dataclass(frozen=True)
class Observation:
    """The smallest, the largest and the latest report of one metric, as text or ``unavailable``."""

    min: str = UNAVAILABLE
    max: str = UNAVAILABLE
    latest: str = UNAVAILABLE

    def picked(self, strategy: str) -> str:
        """Return the value of a strategy (min, max or latest); the latest if no number was reported."""
        value: str = getattr(self, strategy)
        return self.latest if value == UNAVAILABLE else value


def collect(lines: Iterable[str], collector: Collector, objective: Objective) -> dict[str, Observation]:
    """Return the observation of every metric of the objective.

    A local trial with the Push collector prints `name=value`, which is parsed with Katib's default filter, as for
    StdOut.

    Args:
        lines: the trial's output (StdOut, Push) or its metrics file (File), without line ends.
        collector: its filters, or JSON lines according to its format.
        objective: the metrics to find. If the objective's own is missing, all are unavailable.
    """
    return observe(reported(lines, collector, objective), objective)


def lines_of(file: BinaryIO, *, unfinished: bool = True) -> Iterator[str]:
    """Yield the lines of a trial's output from the file's position, without line ends.

    Args:
        file: the output; a trial may write without end and without a line end.
        unfinished: whether the last line counts without its end. If not, the file stands at its beginning afterwards.
    """
    while line := file.readline(LONGEST_LINE):
        if not (unfinished or line.endswith(b"\n") or len(line) == LONGEST_LINE):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line.removesuffix(b"\n").decode(errors="replace")


def reported(lines: Iterable[str], collector: Collector, objective: Objective) -> Iterator[MetricLine]:
    """Yield the reports of the objective's metrics in the order of the lines.

    Raises:
        LineError: a line of a file in JSON is no JSON, or no object.
    """
    metrics = (objective.metric, *objective.additional)
    if collector.kind == "File" and collector.format == "JSON":
        return _json_reports(lines, metrics)
    return _text_reports(lines, metrics, collector.filters)


def observe(reports: Iterable[MetricLine], objective: Objective) -> dict[str, Observation]:
    """Return the observation of every metric of the objective.

    All are unavailable without a report of its own metric, or if a LineError ends the reports.
    """
    tallies = {name: _Tally() for name in (objective.metric, *objective.additional)}
    with contextlib.suppress(LineError):
        for report in reports:
            if report.name in tallies:
                tallies[report.name].add(report)
    if tallies[objective.metric].latest_time is None:
        return dict.fromkeys(tallies, Observation())
    return {name: Observation(tally.low, tally.high, tally.latest) for name, tally in tallies.items()}


def picked(observations: Mapping[str, Observation], objective: Objective) -> tuple[dict[str, str], float | None, str]:
    """Return the metrics as chosen by the strategies, the objective's value, and the reason if it is not finite.

    Katib counts a trial whose value is not a number as succeeded.
    """
    metrics = {name: observation.picked(objective.strategies[name]) for name, observation in observations.items()}
    reported = metrics.get(objective.metric, "")
    value = number(reported)
    return metrics, value, "" if value is not None else f"{objective.metric} is no finite number: {reported!r}"


def _text_reports(lines: Iterable[str], metrics: tuple[str, ...], filters: tuple[str, ...]) -> Iterator[MetricLine]:
    patterns = [compiled(expression) for expression in filters]
    for line in lines:
        if not any(metric in line for metric in metrics):
            continue
        time = _time(line.split(" ", 1)[0]) if " " in line else EPOCH
        for pattern in patterns:
            for match in pattern.finditer(line.encode(errors="replace").decode()):
                name = (match[1] or "").strip(BLANKS)
                if name in metrics:
                    yield MetricLine(name, (match[2] or "").strip(BLANKS), time)


def _json_reports(lines: Iterable[str], metrics: tuple[str, ...]) -> Iterator[MetricLine]:
    reports: list[MetricLine] = []
    for line in lines:
        if not line:
            continue
        try:
            content = json.loads(line, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
        except (ValueError, RecursionError):
            raise LineError("one line that is not JSON invalidates the file") from None
        if content is None:  # to Go an object without keys
            continue
        if not isinstance(content, Mapping):
            raise LineError("one line that is no object invalidates the file")
        # Katib accepts strings only: a number is not a report.
        time = _json_time(content.get("timestamp"))
        reports += [
            MetricLine(name, SURROGATE.sub("\ufffd", content[name]), time)
            for name in metrics
            if isinstance(content.get(name), str)
        ]
    yield from reports


@dataclass
class _Tally:
    """What the reports of one metric come to, one after the other."""

    low: str = UNAVAILABLE
    high: str = UNAVAILABLE
    latest: str = UNAVAILABLE
    lowest: float = math.nan
    highest: float = math.nan
    latest_time: datetime.datetime | None = None

    def add(self, report: MetricLine) -> None:
        value = parse_float(report.value)
        if value is not None:
            if self.low == UNAVAILABLE:
                self.low = self.high = report.value
                self.lowest = self.highest = value
            elif value < self.lowest:
                self.low, self.lowest = report.value, value
            elif value > self.highest:
                self.high, self.highest = report.value, value
        if self.latest_time is None or self.latest_time <= report.time:
            self.latest_time, self.latest = report.time, report.value


def _no_constant(name: str) -> float:
    """Refuse NaN and Infinity, which Python's json writes and Go's does not read."""
    raise ValueError(name)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _whole(text: str) -> int:
    _finite(text)
    return int(text)


def _time(text: str) -> datetime.datetime:
    """Return a line's time; a leap second, a day 00 or a zone of a day and more are no times to Katib either."""
    if not TIME.fullmatch(text):
        return EPOCH
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return EPOCH


def _json_time(value: object) -> datetime.datetime:
    if isinstance(value, str):
        return _time(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Katib takes the digits behind the point for nanoseconds, and its database keeps microseconds.
        seconds, _, digits = format(decimal.Decimal(repr(float(value))), "f").partition(".")
        try:
            time = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
            return time + datetime.timedelta(microseconds=int(digits or 0) // 1000)
        except (ValueError, OverflowError, OSError):  # milliseconds: the year 55,840
            return EPOCH
    return EPOCH
