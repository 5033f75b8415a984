"""Time and memory of the suggestion service: ``python -m benchmarks.suggestion``.

A server process of its own per algorithm and number of trials; requests come over gRPC on loopback, as from
Katib's controller. Every trial in the request was issued by the service before. Time is one GetSuggestions as the
caller sees it, the message's way there and back included; memory is the process's peak resident set.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from kondense.katib.api import messages, services

LIMIT_S = 0.2  # one GetSuggestions with 10,000 trials
LIMIT_MIB = 100  # of the process
ISSUED_AT_ONCE = 500
ASKED = 16  # trials asked for in the timed requests
MODELS = ("tpe", "multivariate-tpe", "bayesianoptimization", "cmaes", "sobol")  # of one resource
ALGORITHMS = ("random", "grid", *MODELS, "hyperband", "bohb")


def experiment(algorithm: str) -> Any:
    result = messages.Experiment(name=f"benchmark-{algorithm}")
    spec = result.spec
    spec.objective.type, spec.objective.objective_metric_name = messages.MAXIMIZE, "accuracy"
    spec.algorithm.algorithm_name = algorithm
    if algorithm == "grid":
        for name in "abcde":
            _add(spec, name, messages.INT, min="1", max="8")
        spec.max_trial_count = 20_000
        return result
    _add(spec, "lr", messages.DOUBLE, min="0.0001", max="0.3", distribution=messages.LOG_UNIFORM)
    _add(spec, "momentum", messages.DOUBLE, min="0.5", max="0.99")
    _add(spec, "weight_decay", messages.DOUBLE, min="0.000001", max="0.01", distribution=messages.LOG_UNIFORM)
    _add(spec, "batch_size", messages.DISCRETE, list=["32", "64", "128", "256"])
    _add(spec, "schedule", messages.CATEGORICAL, list=["constant", "cosine", "step"])
    _add(spec, "augment", messages.CATEGORICAL, list=["true", "false"])
    if algorithm in ("hyperband", "bohb"):
        _add(spec, "epochs", messages.INT, min="1", max="27")
        spec.algorithm.algorithm_settings.add(name="resource_name", value="epochs")
    return result


def _add(spec: Any, name: str, kind: int, **space: Any) -> None:
    spec.parameter_specs.parameters.add(name=name, parameter_type=kind, feasible_space=messages.FeasibleSpace(**space))


def grown(stub: Any, algorithm: str, trials: int) -> Any:
    """Return a request with this many succeeded trials, all of them issued by the service.

    Those of a model of one resource are random ones: models would take minutes to issue 10,000.
    """
    if algorithm in MODELS:
        request = grown(stub, "random", trials)
        request.experiment.spec.algorithm.algorithm_name = algorithm
        return request
    request = messages.GetSuggestionsRequest(experiment=experiment(algorithm))
    while len(request.trials) < trials:
        request.current_request_number = min(ISSUED_AT_ONCE, trials - len(request.trials))
        reply = stub.GetSuggestions(request, timeout=600)
        for entry in reply.parameter_assignments:
            trial = request.trials.add(name=entry.trial_name)
            trial.spec.parameter_assignments.assignments.extend(entry.assignments)
            trial.status.condition = messages.TrialStatus.SUCCEEDED
            trial.status.observation.metrics.add(name="accuracy", value=repr(_value(entry)))
        del request.experiment.spec.algorithm.algorithm_settings[:]
        settings = {item.name: item.value for item in experiment(algorithm).spec.algorithm.algorithm_settings}
        settings |= {item.name: item.value for item in reply.algorithm.algorithm_settings}
        for name, value in settings.items():
            request.experiment.spec.algorithm.algorithm_settings.add(name=name, value=value)
    return request


def _value(entry: Any) -> float:
    numbers = [float(a.value) for a in entry.assignments if a.value.replace(".", "").replace("e-", "").isdigit()]
    return math.tanh(sum(math.log1p(number) for number in numbers) / 20)


@contextlib.contextmanager
def service() -> Iterator[tuple[Any, int]]:
    """Yield the stub and the process id of a service of its own."""
    command = [sys.executable, "-m", "kondense.suggestion.server", "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        port = json.loads(server.stderr.readline())["port"]
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield services.SuggestionStub(channel), server.pid
        server.terminate()


def measure(algorithm: str, trials: int, repeats: int, restarted: bool) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        stub, pid = stack.enter_context(service())
        # As Katib's controller does before it asks for trials; the service imports the algorithm's package there.
        checked = messages.ValidateAlgorithmSettingsRequest(experiment=experiment(algorithm))
        stub.ValidateAlgorithmSettings(checked, timeout=60)
        request = grown(stub, algorithm, trials)
        if restarted:
            stack.close()
            stub, pid = stack.enter_context(service())
        request.current_request_number = ASKED
        before_s = _cpu_s(pid)
        seconds = [_timed(stub, request) for _ in range(repeats)]
        cpu_s = (_cpu_s(pid) - before_s) / repeats
        peak_mib = _peak_mib(pid)
    return {
        "algorithm": algorithm,
        "trials": trials,
        "asked": ASKED,
        "request_bytes": request.ByteSize(),
        "repeats": repeats,
        "median_s": round(statistics.median(seconds), 4),
        "mean_cpu_s": round(cpu_s, 4),
        "max_s": round(max(seconds), 4),
        "peak_mib": round(peak_mib, 1),
    }


def _timed(stub: Any, request: Any) -> float:
    """Return the seconds of a call in which one more trial has ended, as between two calls of Katib's."""
    value = request.trials[len(request.trials) // 2].status.observation.metrics[0]
    value.value = repr(float(value.value) + 1e-9)
    started = time.perf_counter()
    reply = stub.GetSuggestions(request, timeout=60)
    seconds = time.perf_counter() - started
    assert len(reply.parameter_assignments) == ASKED
    return seconds


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process: unlike the time a caller sees, no other load lengthens it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suggestion", description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000], help="trials in the request")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--repeats", type=int, default=9, help="timed requests per row")
    parser.add_argument("--restarted", action="store_true", help="time a service that has not seen the experiment")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"GetSuggestions for {ASKED} trials over gRPC on loopback, {options.repeats} repeats")
    print(f"{os.cpu_count()} CPUs, load average {load:.1f}: with more load than CPUs, compare the server's CPU time")
    print(f"{'algorithm':<20} {'trials':>7} {'request':>9} {'median':>9} {'max':>9} {'CPU':>9} {'peak memory':>12}")
    rows = []
    for algorithm in options.algorithms:
        for trials in options.trials:
            row = measure(algorithm, trials, options.repeats, options.restarted)
            rows.append(row)
            print(
                f"{algorithm:<20} {trials:>7} {row['request_bytes'] / 2**20:>5.1f} MiB {row['median_s']:>7.3f} s"
                f" {row['max_s']:>7.3f} s {row['mean_cpu_s']:>7.3f} s {row['peak_mib']:>8.0f} MiB",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"format_version": 1, "load_average": load, "rows": rows}, indent=2) + "\n")
    missed = [row for row in rows if row["median_s"] > LIMIT_S or row["peak_mib"] > LIMIT_MIB]
    print(f"goals: {LIMIT_S} s and {LIMIT_MIB} MiB: {len(missed)} of {len(rows)} rows miss")
    return 0


if __name__ == "__main__":
    sys.exit(main())
