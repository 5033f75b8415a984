"""The services of Katib as a process: ``python -m kondense.suggestion.server``.

``--service early-stopping`` is the second one, for the container that Katib starts beside the suggestion service of an
Experiment with `earlyStopping`.
"""

import argparse
import contextlib
import ctypes
import logging
import signal
import sys
from concurrent import futures
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kondense.errors import EXPECTED, exit_code_of
from kondense.katib.api import NO_COMPRESSION, services
from kondense.suggestion import logs
from kondense.suggestion.admission import Admission
from kondense.suggestion.early_stopping import EarlyStoppingService
from kondense.suggestion.service import SuggestionService
from kondense.suggestion.trial_objects import TrialObjects

# Katib's controller expects and probes the suggestion service's port; metrics collectors call the other one, too.
PORT, STOPPING_PORT = 6789, 6788
PORTS = {"suggestion": PORT, "early-stopping": STOPPING_PORT}
HEALTH_SERVICE = "manager.v1beta1.Suggestion"  # the name in Katib's probes, unlike the protobuf package
# A request with 10,000 trials, more than etcd lets Katib keep, has about 5 MiB; gRPC's default limit is 4. A larger one
# than this is refused by the length that stands before it.
LIMIT_BYTES = 12 * 2**20
WINDOW_BYTES = 2**16
ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
STREAMS = 64  # calls of one connection; Katib has few
CALLS = 2_048  # of all connections; one that waits has some 13 KiB
WORKERS = 48  # threads; they share one processor, and most may wait for their turn, so that some are left for probes
ENDS = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 10.0  # for running calls when the process is stopped
LOG = logging.getLogger("suggestion")


@dataclass
class SuggestionServer:
    """A running server and its port."""

    server: grpc.Server
    health: health.HealthServicer
    port: int

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Reject new calls, report NOT_SERVING, and wait for the running calls."""
        self.health.enter_graceful_shutdown()
        self.server.stop(grace_s).wait()


def start(
    port: int = PORT, *, host: str = "[::]", workers: int = WORKERS, stopping: EarlyStoppingService | None = None
) -> SuggestionServer:
    """Start serving.

    Args:
        port: 0 chooses a free one.
        host: the address to listen on.
        workers: threads.
        stopping: serves early stopping in the place of suggestions.

    Raises:
        RuntimeError: the port is taken.
    """
    options = [
        ("grpc.max_receive_message_length", LIMIT_BYTES),
        # Katib compresses nothing, and gRPC inflates a message in memory before it compares its size with the limit.
        ("grpc.compression_enabled_algorithms_bitset", NO_COMPRESSION),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.so_reuseport", 0),
        # Of a call that waits no more is read than this; by default the window grows to the whole message.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ]
    pool = futures.ThreadPoolExecutor(max_workers=workers)
    server = grpc.server(pool, interceptors=[Admission()], options=options, maximum_concurrent_rpcs=CALLS)
    if stopping is None:
        services.add_SuggestionServicer_to_server(SuggestionService(), server)
    else:
        services.add_EarlyStoppingServicer_to_server(stopping, server)
    probes = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(probes, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    server.start()
    for name in ("", HEALTH_SERVICE) if stopping is None else ("",):
        probes.set(name, health_pb2.HealthCheckResponse.SERVING)
    return SuggestionServer(server, probes, bound)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then finish the running calls and return 0."""
    parser = argparse.ArgumentParser(prog="python -m kondense.suggestion.server", description=__doc__)
    parser.add_argument("--service", default="suggestion", choices=[*PORTS], help="what to serve (default suggestion)")
    ports = ", ".join(f"{port} for {name}" for name, port in PORTS.items())
    parser.add_argument("--port", type=int, help=f"port to listen on; 0 chooses a free one (default {ports})")
    parser.add_argument("--host", default="[::]", help="address to listen on (default [::], every address)")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(arguments)
    logs.start(options.log_level)
    with contextlib.suppress(OSError, AttributeError):  # of glibc: each thread's own heap would keep what it has freed
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)
    try:
        service = EarlyStoppingService(TrialObjects.of_pod()) if options.service == "early-stopping" else None
    except EXPECTED as error:
        LOG.error("not serving", extra={"rule": str(error)})
        return exit_code_of(error)
    port = PORTS[options.service] if options.port is None else options.port
    # Blocked before there are threads, which inherit it. A handler would run within whatever the main thread does: one
    # that sets an event for which the thread is about to wait can find the event's lock taken, and waits for ever.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    running = start(port, host=options.host, stopping=service)
    LOG.info("serving", extra={"service": options.service, "port": running.port})
    signal.sigwait(ENDS)
    LOG.info("stopping", extra={"grace_s": GRACE_S})
    running.stop()
    LOG.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
