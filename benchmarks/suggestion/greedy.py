"""Clients that ask the suggestion service for too much: ``python -m benchmarks.suggestion.greedy``.

They send one large request again and again over gRPC on loopback, each by a connection of its own. Beside them another
process, which waits for no thread of the clients, asks for the service's health and for one trial of a small search.
Printed are the peak resident set of the service, how long both waited, and how the small search was answered.
"""

import argparse
import collections
import json
import multiprocessing
import statistics
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kondense.katib.api import messages, services

from benchmarks.suggestion.__main__ import _peak_mib, experiment

METHOD = "/api.v1.beta1.Suggestion/GetSuggestions"
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
PAUSE_S = 0.2  # between probes


def request(trials: int) -> bytes:
    """Return a request that reports this many trials of four parameters."""
    made = messages.GetSuggestionsRequest(experiment=experiment("random"), current_request_number=1)
    trial = messages.Trial(name="x" * 40)
    for name in "abcd":
        trial.spec.parameter_assignments.assignments.add(name=name * 8, value="0.123456789")
    trial.status.condition = messages.TrialStatus.SUCCEEDED
    trial.status.observation.metrics.add(name="accuracy", value="0.5")
    made.trials.extend([trial] * trials)
    return bytes(made.SerializeToString())


def ask(port: int, content: bytes, end: float, codes: collections.Counter[str]) -> None:
    """Send a request until the end, and count the answers."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        call = channel.unary_unary(METHOD)
        while time.monotonic() < end:
            try:
                call(content, timeout=60)
                codes["OK"] += 1
            except grpc.RpcError as error:
                codes[error.code().name] += 1


def watch(port: int, end: float, waits: Connection) -> None:
    """Send what a probe and an ordinary client have waited until the end, in seconds, and the codes of the latter."""
    health, small, codes = list[float](), list[float](), collections.Counter[str]()
    wanted = messages.GetSuggestionsRequest(experiment=experiment("random"), current_request_number=1)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check: Any = health_pb2_grpc.HealthStub(channel).Check
        suggest = services.SuggestionStub(channel).GetSuggestions
        while time.monotonic() < end:
            began = time.monotonic()
            check(health_pb2.HealthCheckRequest(service=""), timeout=60)
            health.append(time.monotonic() - began)
            began = time.monotonic()
            try:
                suggest(wanted, timeout=60)
                codes["OK"] += 1
            except grpc.RpcError as error:
                codes[error.code().name] += 1
            small.append(time.monotonic() - began)
            time.sleep(PAUSE_S)
    waits.send((health, small, codes))


def main() -> int:
    """Run the clients and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suggestion.greedy", description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--trials", type=int, default=50_000, help="reported in each request")
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    content, codes = request(options.trials), collections.Counter[str]()
    command = [sys.executable, "-m", "kondense.suggestion.server", "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        port, lines = json.loads(server.stderr.readline())["port"], server.stderr
        threading.Thread(target=lambda: collections.deque(lines, 0), daemon=True).start()
        end = time.monotonic() + options.seconds
        ours, theirs = context.Pipe(duplex=False)
        beside = context.Process(target=watch, args=(port, end, theirs))
        beside.start()
        clients = [threading.Thread(target=ask, args=(port, content, end, codes)) for _ in range(options.clients)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        health, small, answers = ours.recv()
        beside.join()
        peak = _peak_mib(server.pid)
        server.kill()
    print(
        f"{options.clients} clients, {options.trials:,} trials ({len(content) / 2**20:.1f} MiB): peak {peak:.0f} MiB,",
        end=" ",
    )
    print(f"{_times(health)} for a probe, {_times(small)} for a small search ({dict(answers)}); {dict(codes)}")
    return 0


def _times(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s (at most {max(seconds):.2f} s of {len(seconds)})"


if __name__ == "__main__":
    sys.exit(main())
