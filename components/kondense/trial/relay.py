"""Run a command and report the metrics that it prints to Katib: ``python -m kondense.trial.relay -- COMMAND``.

The command prints ``name=value``. Katib's StdOut collector is a second container, which looks for the command's
process once, when it starts, and misses a command that has ended by then; the relay has no such limit. Without a
cluster, ``kondense search`` reads the metrics from the command's output.
"""

import argparse
import functools
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence

from kondense import failure
from kondense.errors import EXPECTED
from kondense.trial.push import report

LONGEST_LINE = 2**20  # characters; a longer line is read as several
METRIC = re.compile(r"(?<![\w-])([\w-]+)\s*=\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])")


def metrics_in(line: str, names: Sequence[str]) -> dict[str, float]:
    """Return the finite values of these metrics in a line, by name; the last one of a name counts."""
    values = {name: float(text) for name, text in METRIC.findall(line) if name in names}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def relay(command: Sequence[str], names: Sequence[str]) -> int:
    """Run ``command``, print its output, report each line's metrics, and return its exit code.

    Args:
        command: a program and its arguments; it receives SIGTERM.
        names: of the metrics to report.

    Raises:
        OSError: the program cannot be started, or Katib's database manager does not accept the metrics.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        previous = signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        try:
            last, reported = "", False
            for line in _printed(iter(functools.partial(process.stdout.readline, LONGEST_LINE), "")):
                last = line.strip() or last
                if metrics := metrics_in(line, names):
                    report(metrics)
                    reported = True
            code = process.wait()
        finally:
            signal.signal(signal.SIGTERM, previous)
    if code:
        failure.report_failure(last or f"{command[0]} ended with exit code {code}")
    elif not reported:
        failure.report_failure(
            f"the command must print a finite value of one of {', '.join(names)} as name=value, but did not."
        )
        return 1
    return code if code >= 0 else 128 - code  # a signal ended it


def _printed(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        sys.stdout.write(line)
        sys.stdout.flush()
        yield line


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments and run the command."""
    parser = argparse.ArgumentParser(prog="python -m kondense.trial.relay", description=__doc__, allow_abbrev=False)
    parser.add_argument("--metrics", required=True, help="the metrics of the Experiment, joined by commas")
    parser.add_argument("command", nargs="+", help="the program and its arguments, after --")
    options = parser.parse_args(arguments)
    try:
        return relay(options.command, [name.strip() for name in options.metrics.split(",")])
    except EXPECTED as error:
        failure.report_failure(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
