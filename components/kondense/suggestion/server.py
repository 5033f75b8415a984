"""The suggestion service as a process: ``python -m kondense.suggestion.server --port 6789``."""

import argparse
import logging
import signal
import sys
import threading
from concurrent import futures
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kondense.katib.api import services
from kondense.suggestion import logs
from kondense.suggestion.service import SuggestionService

PORT = 6789  # Katib's controller expects and probes it
HEALTH_SERVICE = "manager.v1beta1.Suggestion"  # the name in Katib's probes, unlike the protobuf package
LIMIT_BYTES = 32 * 2**20  # a request with 10,000 trials has about 5 MiB; gRPC's default limit is 4
WORKERS = 16  # threads; they share one processor, and large calls take turns, so that some are left for probes
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


def start(port: int = PORT, *, host: str = "[::]", workers: int = WORKERS) -> SuggestionServer:
    """Start serving.

    Args:
        port: 0 chooses a free one.
        host: the address to listen on.
        workers: threads.

    Raises:
        RuntimeError: the port is taken.
    """
    options = [("grpc.max_receive_message_length", LIMIT_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=workers), options=options)
    services.add_SuggestionServicer_to_server(SuggestionService(), server)
    probes = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(probes, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    server.start()
    for name in ("", HEALTH_SERVICE):
        probes.set(name, health_pb2.HealthCheckResponse.SERVING)
    return SuggestionServer(server, probes, bound)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then finish the running calls and return 0."""
    parser = argparse.ArgumentParser(prog="python -m kondense.suggestion.server", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on; 0 chooses a free one (default 6789)")
    parser.add_argument("--host", default="[::]", help="address to listen on (default [::], every address)")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(arguments)
    logs.start(options.log_level)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    running = start(options.port, host=options.host)
    LOG.info("serving", extra={"port": running.port})
    stopping.wait()
    LOG.info("stopping", extra={"grace_s": GRACE_S})
    running.stop()
    LOG.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
