"""Transfers that do not keep their pace end; slow ones that keep it do not. The other side is a plain socket."""

import contextlib
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import urllib3
from kondense.kubernetes_api import limit_size
from kondense.pace import PIECE_BYTES, Pace, SlowError, handlers, keep
from kondense.suggestion.trial_objects import ApiError, TrialObjects
from kubernetes import client

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = Pace(longest_s=0.3, silent_s=5.0)
DRIPS_S = 0.05


class Peer:
    """A server of one socket that calls ``talk`` with each connection."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.talk: Callable[[socket.socket], None] = lambda connection: None
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client has gone
            self.talk(connection)


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.socket.close()


def dripping(start: bytes) -> Callable[[socket.socket], None]:
    """Answer with ``start`` and then a letter at a time, without end: each comes well within a socket's time-out."""

    def talk(connection: socket.socket) -> None:
        connection.recv(2**16)
        connection.sendall(start)
        while True:
            connection.sendall(b"x")
            time.sleep(DRIPS_S)

    return talk


def pool(pace: Pace, **options: object) -> urllib3.PoolManager:
    made = urllib3.PoolManager(retries=False, **options)
    keep(made, pace)
    return made


@pytest.mark.parametrize(
    "start", [OK + b"Name: ", OK + b"Content-Length: 1000\r\n\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n1"]
)
def test_an_answer_that_drips_ends(peer: Peer, start: bytes) -> None:
    peer.talk = dripping(start)
    with pytest.raises(urllib3.exceptions.HTTPError, match="must take at most 0.3 s, but .* bytes took longer"):
        pool(SHORT, timeout=5.0).request("GET", peer.url)
    opener = urllib.request.build_opener(*handlers(SHORT))
    with pytest.raises(SlowError, match="must take at most 0.3 s"), opener.open(peer.url, timeout=5.0) as answer:
        answer.read()


def test_the_silence_of_a_socket_is_limited_as_before(peer: Peer) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(2**16)
        connection.recv(1)  # until the client goes

    peer.talk = talk
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        pool(Pace(longest_s=60.0), timeout=0.1).request("GET", peer.url)


def test_an_answer_that_keeps_the_pace_takes_as_long_as_it_needs(peer: Peer) -> None:
    pieces = 12

    def talk(connection: socket.socket) -> None:
        connection.recv(2**16)
        connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % (1000 * pieces))
        for _ in range(pieces):
            connection.sendall(b"x" * 1000)
            time.sleep(DRIPS_S)

    peer.talk = talk
    answer = pool(Pace(longest_s=0.3, bytes_per_s=100.0), timeout=5.0).request("GET", peer.url)
    assert answer.data == b"x" * 1000 * pieces


def slow_reader(pause_s: float) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        while content := connection.recv(2**16):
            head, _, rest = content.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            got = len(rest)
            while got < length and (piece := connection.recv(2**18)):
                got += len(piece)
                time.sleep(pause_s)
            if got == length:
                connection.sendall(OK + b"Content-Length: 2\r\n\r\nok")

    return talk


BODY = bytes(2**24)  # more than the sockets' buffers hold


def test_a_slow_line_has_time_to_send_beyond_the_limit_to_connect(peer: Peer) -> None:
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    peer.talk = slow_reader(0.005)
    timeout = urllib3.Timeout(connect=0.2, read=5.0)
    shared = pool(Pace(longest_s=60.0), timeout=timeout)
    for _ in range(2):  # on a new connection, and on one that was used before
        assert shared.request("PUT", peer.url, body=BODY).data == b"ok"
    # Without a pace the whole body must be through within the limit to connect.
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.PoolManager(retries=False, timeout=timeout).request("PUT", peer.url, body=BODY)


def test_what_is_sent_must_keep_the_pace(peer: Peer) -> None:
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    peer.talk = slow_reader(0.1)
    with pytest.raises(urllib3.exceptions.HTTPError, match="1 s for each 1,000,000,000 bytes"):
        pool(Pace(longest_s=0.3, bytes_per_s=1e9), timeout=5.0).request("PUT", peer.url, body=BODY)
    assert len(BODY) > PIECE_BYTES


def test_a_connection_is_used_again(peer: Peer) -> None:
    def talk(connection: socket.socket) -> None:
        for number in range(3):
            connection.recv(2**16)
            connection.sendall(OK + b"Content-Length: 1\r\n\r\n%d" % number)

    peer.talk = talk
    shared = pool(SHORT, timeout=5.0)
    assert [shared.request("GET", peer.url).data for _ in range(3)] == [b"0", b"1", b"2"]


def test_the_kubernetes_api_and_early_stopping_keep_a_pace(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.talk = dripping(OK + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    api = limit_size(client.ApiClient(client.Configuration(host=peer.url)), pace=SHORT)
    api.configuration.retries = False
    with pytest.raises(urllib3.exceptions.HTTPError, match="must take at most 0.3 s"):
        client.CoreV1Api(api).list_namespaced_event("team")
    monkeypatch.setattr("kondense.suggestion.trial_objects.TIMEOUT_S", 0.3)
    with pytest.raises(ApiError, match="must take at most 0.3 s") as caught:
        TrialObjects(peer.url, "team").read("a-trial")
    assert caught.value.status == 0 and json.dumps(str(caught.value)).count("\\n") == 0
