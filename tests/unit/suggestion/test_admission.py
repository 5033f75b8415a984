"""Calls take turns before their messages are read, over real gRPC."""

import socket
import threading
import time
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from kondense.katib.api import messages, services
from kondense.suggestion.admission import Admission, Hosts, Senders, Turns
from kondense.suggestion.rejection import LONGEST
from kondense.suggestion.server import LIMIT_BYTES
from kondense.suggestion.service import SuggestionService

from tests.unit.suggestion.test_service import experiment

METHOD = "/api.v1.beta1.Suggestion/ValidateAlgorithmSettings"


class Held(services.SuggestionServicer):
    """A service whose calls last until they are let go."""

    def __init__(self):
        self.entered, self.gate = threading.Semaphore(0), threading.Event()

    def ValidateAlgorithmSettings(self, request, context):  # noqa: N802
        self.entered.release()
        assert self.gate.wait(60)
        return messages.ValidateAlgorithmSettingsReply()


@pytest.fixture
def serve():
    running = []

    def start(servicer, **admission):
        return start_behind(Admission(**admission), servicer, 1)[0]

    def start_behind(admission, servicer, clients):
        options = [("grpc.max_receive_message_length", LIMIT_BYTES)]
        server = grpc.server(futures.ThreadPoolExecutor(6), interceptors=[admission], options=options)
        services.add_SuggestionServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each client
        channels = [grpc.insecure_channel(address, options=own) for _ in range(clients)]
        server.start()
        running.extend((*(channel.close for channel in channels), lambda: server.stop(0)))
        return channels

    start.behind = start_behind

    yield start
    for end in running:
        end()


def test_calls_beyond_those_at_a_time_and_those_that_wait_are_told_and_probes_are_answered(serve):
    held = Held()
    channel = serve(held, at_once=1, waiting=1, patience_s=60.0)
    call = services.SuggestionStub(channel).ValidateAlgorithmSettings
    request = messages.ValidateAlgorithmSettingsRequest()
    first = call.future(request)
    assert held.entered.acquire(timeout=60)
    others, ended = [call.future(request) for _ in range(3)], threading.Semaphore(0)
    for each in others:
        each.add_done_callback(lambda _: ended.release())
    assert ended.acquire(timeout=60) and ended.acquire(timeout=60)  # one of the three waits, whichever came first
    refused = [each.exception() for each in others if each.done()]
    assert [error.code() for error in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert refused[0].details() == "at most 1 calls are answered at a time: ask again later."
    probe = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert probe.status == health_pb2.HealthCheckResponse.SERVING
    held.gate.set()
    assert first.result(timeout=60) == messages.ValidateAlgorithmSettingsReply()
    assert sum(each.exception(timeout=60) is None for each in others) == 1  # the one that waited


def test_a_call_waits_no_longer_than_its_patience(serve):
    held = Held()
    call = services.SuggestionStub(serve(held, at_once=1, patience_s=0.01)).ValidateAlgorithmSettings
    first = call.future(messages.ValidateAlgorithmSettingsRequest())
    assert held.entered.acquire(timeout=60)
    error = call.future(messages.ValidateAlgorithmSettingsRequest()).exception(timeout=60)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    held.gate.set()
    assert first.exception(timeout=60) is None
    assert call(messages.ValidateAlgorithmSettingsRequest(), timeout=60)  # its turn came back


def queued(turns, count):
    while turns.queued < count:
        time.sleep(0.001)


def test_turns_go_to_whoever_has_waited_longest():
    turns, order = Turns(1, 2), []
    assert turns.take(0.0)
    waiting = [threading.Thread(target=lambda name=name: order.append((name, turns.take(60.0)))) for name in "ab"]
    for number, thread in enumerate(waiting, 1):
        thread.start()
        queued(turns, number)
    assert not turns.take(60.0)  # nobody else may wait
    turns.give()
    assert not turns.take(0.0)  # it is the first one's already, whether or not that has gone on
    waiting[0].join(60)
    assert order == [("a", True)]
    turns.give()
    waiting[1].join(60)
    assert order == [("a", True), ("b", True)]
    assert not turns.take(0.001) and turns.queued == 0  # who gives up does not stay in the queue
    turns.give()
    assert turns.take(0.0) and not turns.take(0.0)


def sized(count):
    return messages.ValidateAlgorithmSettingsRequest(experiment=messages.Experiment(name="x" * count))


def test_large_messages_are_refused_beside_another_one_and_small_ones_are_answered(serve):
    held = Held()
    call = services.SuggestionStub(serve(held, at_once=3, large_bytes=1_000)).ValidateAlgorithmSettings
    first = call.future(sized(2_000))
    assert held.entered.acquire(timeout=60)
    with pytest.raises(grpc.RpcError) as caught:
        call(sized(2_000), timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    rule = "at most 1 requests of 1,000 bytes or more are answered at a time: ask again later."
    assert caught.value.details() == rule
    second = call.future(sized(500))
    assert held.entered.acquire(timeout=60)
    held.gate.set()
    assert first.exception(timeout=60) is None and second.exception(timeout=60) is None
    assert call(sized(2_000), timeout=60) is not None  # its room came back


def test_a_turn_is_kept_for_clients_whose_last_message_was_not_large(serve):
    admission, silent = Admission(at_once=3, patience_s=60.0, large_bytes=1_000), threading.Event()
    greedy, other = serve.behind(admission, SuggestionService(), 2)
    with pytest.raises(grpc.RpcError):
        services.SuggestionStub(greedy).ValidateAlgorithmSettings(sized(2_000), timeout=60)
    slow = [greedy.stream_unary(METHOD).future(b"" for _ in iter(silent.wait, False)) for _ in range(2)]
    while admission.waiting < 1:  # one has its turn, and keeps it, since its message does not come
        time.sleep(0.001)
    call = services.SuggestionStub(other).ValidateAlgorithmSettings
    request = messages.ValidateAlgorithmSettingsRequest(experiment=experiment())
    assert call(request, timeout=60) is not None
    assert not any(each.done() for each in slow)
    for each in slow:
        each.cancel()
    silent.set()
    assert services.SuggestionStub(greedy).ValidateAlgorithmSettings(request, timeout=60) is not None


def test_senders_are_those_whose_last_message_was_large_and_the_first_of_too_many_are_forgotten():
    senders = Senders(most=2)
    for peer in "abac":
        senders.note(peer, True)
    assert [peer in senders for peer in "abc"] == [True, False, True]
    senders.note("a", False)
    assert [peer in senders for peer in "abc"] == [False, False, True]


def test_a_message_beyond_the_limit_is_refused_by_its_length(serve):
    held = Held()
    call = services.SuggestionStub(serve(held)).ValidateAlgorithmSettings
    with pytest.raises(grpc.RpcError, match=f"larger than max.*{LIMIT_BYTES}") as caught:
        call(sized(LIMIT_BYTES), timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not held.entered.acquire(blocking=False)


def test_a_client_that_sends_no_message_loses_its_turn(serve):
    channel = serve(SuggestionService(), at_once=1, patience_s=60.0, reading_s=0.05)
    silent = threading.Event()
    idle = channel.stream_unary(METHOD).future(b"" for _ in iter(silent.wait, False))
    call = services.SuggestionStub(channel).ValidateAlgorithmSettings
    assert call(messages.ValidateAlgorithmSettingsRequest(experiment=experiment()), timeout=60) is not None
    assert idle.exception(timeout=60).code() is grpc.StatusCode.CANCELLED
    silent.set()


def test_what_is_no_message_is_told(serve):
    channel = serve(SuggestionService(), at_once=1)
    for content, rule in ((b"\xff\xff", "a call must have a message of its method"), (None, "but has none")):
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(METHOD)(iter([content] if content else []), timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and rule in caught.value.details()


def test_the_text_of_a_refusal_is_bounded(serve):
    stub = services.SuggestionStub(serve(SuggestionService()))
    for sent in (experiment("x" * 10**6), experiment(settings={"conditions": "x" * 10**6})):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ValidateAlgorithmSettings(messages.ValidateAlgorithmSettingsRequest(experiment=sent), timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(caught.value.details()) == LONGEST + len("...")
    sent = experiment(settings={"conditions": "x" * (2**20 + 1)})
    with pytest.raises(grpc.RpcError, match="setting conditions must have at most 1,048,576 characters"):
        stub.ValidateAlgorithmSettings(messages.ValidateAlgorithmSettingsRequest(experiment=sent), timeout=60)


def raw_call(port: int, source: str) -> socket.socket:
    """Return the connection of a call, from an address of this machine, that brings headers and never a message."""
    fields = {":method": "POST", ":scheme": "http", ":path": METHOD, ":authority": "x", "te": "trailers"}
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()  # HPACK's literal fields
        for name, value in {**fields, "content-type": "application/grpc"}.items()
    )
    frames = [(4, 0, 0, b""), (1, 4, 1, block)]  # SETTINGS, and HEADERS that are complete: type, flags, stream, payload
    content = b"".join(
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
        for kind, flags, stream, payload in frames
    )
    connection = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + content)
    return connection


def test_one_host_whose_calls_bring_no_message_leaves_a_turn_to_others(serve):
    admission = Admission(at_once=3, patience_s=60.0, reading_s=3_600.0)
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[admission])
    services.add_SuggestionServicer_to_server(SuggestionService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    silent = [raw_call(port, "127.0.0.2") for _ in range(5)]
    try:
        while admission.waiting < 3:  # the other two wait for their message
            time.sleep(0.01)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = services.SuggestionStub(channel).ValidateAlgorithmSettings
            assert call(messages.ValidateAlgorithmSettingsRequest(experiment=experiment()), timeout=60) is not None
        assert admission.waiting == 3
    finally:
        for connection in silent:
            connection.close()
        server.stop(0)


def test_hosts_are_remembered_as_long_as_they_have_calls():
    hosts = Hosts(1, 0)
    with hosts.turn("ipv4:10.0.0.1:5", 0.0) as first, hosts.turn("ipv4:10.0.0.1:6", 0.0) as second:
        assert first and not second and len(hosts) == 1
        with hosts.turn("ipv6:[::1]:5", 0.0) as other:
            assert other and len(hosts) == 2
    with hosts.turn("ipv4:10.0.0.1:7", 0.0) as again:
        assert again
    assert len(hosts) == 0
