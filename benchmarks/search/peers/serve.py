"""The peer's side of `process`: the package is imported once, every run is a fork."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

CHANNEL = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # some of the packages print


def serve(run: Callable[[dict[str, Any]], None]) -> None:
    """Run every problem that comes in, until the input ends.

    Args:
        run: searches without end; it gets the problem and calls `evaluate`.
    """
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            run(json.loads(line))
            os._exit(1)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit("the run failed")
        print("ended", file=CHANNEL)


def evaluate(values: Mapping[str, Any], resource: float) -> Any:
    """Return what the benchmark answers; end this fork if the budget is spent."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
    print(json.dumps({"values": plain, "resource": round(resource)}), file=CHANNEL)
    answer = json.loads(sys.stdin.readline() or "null")
    if answer is None:
        os._exit(0)
    return answer["loss"]
