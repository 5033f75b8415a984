"""The service as a process: probes, a call, the end."""

import json
import signal
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kondense.katib.api import messages, services
from kondense.suggestion import server

from tests.unit.suggestion.test_admission import raw_call
from tests.unit.suggestion.test_service import GOOD

COMMAND = [sys.executable, "-m", "kondense.suggestion.server", "--port", "0", "--host", "127.0.0.1"]


def probe(channel, service):
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=120).status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_serves_and_stops(number):
    with subprocess.Popen(COMMAND, stderr=subprocess.PIPE, text=True) as process:
        lines = [json.loads(process.stderr.readline())]
        with grpc.insecure_channel(f"127.0.0.1:{lines[0]['port']}") as channel:
            assert probe(channel, "manager.v1beta1.Suggestion") == health_pb2.HealthCheckResponse.SERVING
            assert probe(channel, "") == health_pb2.HealthCheckResponse.SERVING
            request = messages.GetSuggestionsRequest(experiment=GOOD["bohb"], current_request_number=3)
            stub = services.SuggestionStub(channel)
            metadata = [("authorization", "Bearer hunter2")]
            reply = stub.GetSuggestions(request, timeout=120, metadata=metadata)
            assert len(reply.parameter_assignments) == 3
            process.send_signal(number)
            assert process.wait(timeout=120) == 0
        rest = process.stderr.read()
    lines += [json.loads(line) for line in rest.splitlines()]
    assert [line["event"] for line in lines] == ["serving", "suggested", "stopping", "stopped"]
    assert "hunter2" not in rest


def test_an_unknown_service_is_not_found():
    running = server.start(0, host="127.0.0.1")
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        with pytest.raises(grpc.RpcError) as error:
            probe(channel, "api.v1.beta1.Suggestion")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    running.stop(0)


def test_a_taken_port_is_an_error():
    running = server.start(0, host="127.0.0.1")
    with pytest.raises(RuntimeError):
        server.start(running.port, host="127.0.0.1")
    running.stop(0)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_message_is_refused_before_it_grows(compression):
    """A megabyte of gzip holds a gigabyte, and the limit of a message is compared after it has been inflated."""
    running = server.start(0, host="127.0.0.1")
    with grpc.insecure_channel(f"127.0.0.1:{running.port}", compression=compression) as channel:
        request = messages.ValidateAlgorithmSettingsRequest(experiment=GOOD["random"])
        with pytest.raises(grpc.RpcError) as error:
            services.SuggestionStub(channel).ValidateAlgorithmSettings(request, timeout=120)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    running.stop(0)


def test_calls_beyond_a_number_are_refused_before_they_wait(monkeypatch):
    """Each call has its own memory before the service's code sees it: 50,000 of one connection took 665 MiB."""
    monkeypatch.setattr(server, "CALLS", 2)
    running = server.start(0, host="127.0.0.1")
    silent = []
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        code = None
        while code is None:
            silent.append(raw_call(running.port, "127.0.0.1"))  # may itself be refused, while a probe is answered
            try:
                probe(channel, "")
            except grpc.RpcError as error:
                code = error.code()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    for connection in silent:
        connection.close()
    running.stop(0)


def test_a_request_larger_than_grpcs_default_limit_is_taken():
    running = server.start(0, host="127.0.0.1")
    request = messages.GetSuggestionsRequest(experiment=GOOD["random"], current_request_number=1)
    for index in range(40_000):
        trial = request.trials.add(name=f"another-experiment-with-a-long-name-{index}")
        trial.spec.parameter_assignments.assignments.add(name="a-parameter", value="0.1234567890123456789" * 3)
    assert request.ByteSize() > 4 * 2**20
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        assert len(services.SuggestionStub(channel).GetSuggestions(request).parameter_assignments) == 1
    running.stop(0)
