"""Katib's database manager, which keeps reports by trial, over real gRPC."""

import contextlib
from collections.abc import Iterator
from concurrent import futures

import grpc
from kondense.katib.api import messages, services

Reports = dict[str, list[tuple[str, str]]]


class FakeDatabase(services.DBManagerServicer):
    """Names and values of each trial's reports, in order; `calls` has the trial of each call, `down` refuses it."""

    def __init__(self, reports: Reports) -> None:
        self.reports = reports
        self.calls: list[str] = []
        self.down = False

    def GetObservationLog(self, request, context):  # noqa: N802
        self.calls.append(request.trial_name)
        if self.down:
            context.abort(grpc.StatusCode.INTERNAL, "no MySQL")
        reply = messages.GetObservationLogReply()
        for name, value in self.reports.get(request.trial_name, []):
            if request.metric_name in ("", name):
                entry = reply.observation_log.metric_logs.add(time_stamp="0001-01-01T00:00:00Z")
                entry.metric.name, entry.metric.value = name, value
        return reply


@contextlib.contextmanager
def serve_database(fake: FakeDatabase) -> Iterator[str]:
    """Serve on a free port and yield the address."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services.add_DBManagerServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
