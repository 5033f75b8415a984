"""A peer in a process and an environment of its own, speaking JSON lines.

The first line sent describes the problem; then the peer writes one line per evaluation it wants,
`{"values": {...}, "resource": r}`, and reads one line, `{"loss": x}`, or `null` at the end of the run, which it
confirms. The process serves one run after the other (`serve`).
"""

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.search.problems import Problem

HERE = Path(__file__).parent
REQUIREMENTS = {
    "optuna": ("optuna==5.0.0",),
    "optuna_front": ("optuna==5.0.0",),
    # The last release is of 2019: it needs the ConfigSpace, NumPy and pandas of its later years.
    "hpbandster": (
        "hpbandster==0.7.4",
        "ConfigSpace==0.6.1",
        "numpy<2",
        "pandas<2.2",
        "scipy<1.12",
        "statsmodels<0.15",
    ),
    "dehb": ("dehb==0.1.2",),
    "smac": ("smac==2.4.1", "scikit-learn<1.9"),  # it imports what scikit-learn 1.9 moved
    "smac_front": ("smac==2.4.1", "scikit-learn<1.9"),
    "syne_tune": ("syne-tune==0.16.0",),
    "syne_tune_front": ("syne-tune==0.16.0",),
}


class Peer:
    """An optimizer of another package, asked one evaluation at a time."""

    def __init__(self, name: str, problem: Problem, seed: int) -> None:
        self.process = _process(name)
        parameters = [
            {
                "name": parameter.name,
                "values": list(parameter.values),
                "low": parameter.low,
                "high": parameter.high,
                "whole": parameter.kind == "int",
            }
            for parameter in problem.space.parameters
        ]
        self._send({"parameters": parameters, "min": problem.min_resource, "max": problem.max_resource, "seed": seed})

    def _send(self, message: Mapping[str, object]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def ask(self) -> tuple[Mapping[str, str], int]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with exit code {self.process.wait()}: {' '.join(self.process.args)}")
        wanted = json.loads(line)
        return {name: str(value) for name, value in wanted["values"].items()}, int(wanted["resource"])

    def tell(self, loss: float) -> None:
        self._send({"loss": loss})

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("null\n")
        self.process.stdin.flush()
        while self.process.stdout.readline() not in ("ended\n", ""):
            pass  # an evaluation that was asked for in the meantime


@functools.cache
def _process(name: str) -> "subprocess.Popen[str]":
    """Return the peer's process, which ends with this one: its input ends."""
    options = [option for requirement in REQUIREMENTS[name] for option in ("--with", requirement)]
    command = ["uv", "run", "--quiet", "--no-project", "--python", "3.11", *options, "python"]
    return subprocess.Popen(
        [*command, str(HERE / f"{name}_peer.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
        env={key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")},
    )
