"""Seconds that a step pays before its own work, started cold and forked from the warm server.

    python -m benchmarks.warm_start [--rounds 7] [--output FILE]

The step imports what the prune stage imports and ends. Rounds alternate, so that a drifting machine hits
both alike; medians and their ratio are printed, and written as JSON with --output. The server's own start
is given beside them: a run pays it once, while kfp is imported and the first steps go on.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from kondense_pipelines.local.stage_process import run_stage
from kondense_pipelines.local.warm import WarmServer

SCRIPT = 'python3 -m kfp.dsl.executor_main "$@"'
PROGRAM = "def step():\n    import torch, torchvision, torch_pruning, onnx, safetensors.torch\n"


def seconds_of_step(directory: str, server: WarmServer | None) -> float:
    executor_input = json.dumps({"inputs": {}, "outputs": {"outputFile": f"{directory}/executor_output.json"}})
    arguments = ["--executor_input", executor_input, "--function_to_execute", "step"]
    lines: list[str] = []
    began = time.perf_counter()
    code = run_stage(["sh", "-ec", SCRIPT, PROGRAM, *arguments], {}, lines.append, server)
    seconds = time.perf_counter() - began
    if code or any("warm start is off" in line for line in lines):
        raise RuntimeError("\n".join(lines))
    return seconds


def wait_until_idle(pid: int) -> None:
    """Return when the process has used no processor time for a second."""
    before = -1
    while before != (used := sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))):
        before = used
        time.sleep(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Path(directory, "server.log").open("w") as log:
        began = time.perf_counter()
        with WarmServer(log) as server:
            seconds_of_step(directory, server)  # waits for the first module only; the others follow when idle
            wait_until_idle(server.process.pid)
            start_s = time.perf_counter() - began
            rounds = [
                (seconds_of_step(directory, None), seconds_of_step(directory, server)) for _ in range(options.rounds)
            ]
    cold_s, warm_s = (statistics.median(column) for column in zip(*rounds, strict=True))
    result = {
        "rounds": options.rounds,
        "cold_s": cold_s,
        "warm_s": warm_s,
        "ratio": cold_s / warm_s,
        "start_s": start_s,
    }
    print(
        f"a step's start, median of {options.rounds}: cold {cold_s:.2f} s, warm {warm_s:.2f} s, {cold_s / warm_s:.0f}x"
    )
    print(f"the server's own start: {start_s:.1f} s")
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
