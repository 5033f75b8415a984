"""Few calls at a time, before their messages are read: requests in memory are what a small container has no room for.

gRPC reads a message before its method is called, in each of the server's threads. A method that takes a stream reads
when it asks for the next message, and on the wire a stream of one message is a plain call: so every method is served
as one, and takes its turn first. Turns are taken in the order of the calls, a large message is not even decoded while
another one is worked on, and one turn is kept for the clients whose last message was not large: so clients that ask for
too much do not delay an ordinary call by the time that their messages take to arrive.
"""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc

from kondense.suggestion.rejection import reject

AT_ONCE = 3  # calls whose messages are in memory
WAITING = 32  # calls that wait for their turn; the server's other threads answer probes
PATIENCE_S = 1.0
READING_S = 20.0  # for the message of a call that has its turn; Katib sends it at once
LARGE_BYTES = 2**20  # of a message; 2,000 trials of six parameters
LARGE_AT_ONCE = 1  # such messages that are decoded and computed
SENDERS = 1024  # clients that are remembered since their last message was large
PROBES = "/grpc.health."


class Turns:
    """A number of turns, given in the order in which they are asked for.

    A semaphore of ``threading`` gives a turn that comes free to whoever asks next: those that wait may never get one.

    Args:
        count: turns that are taken at a time.
        waiting: callers that may wait.
    """

    def __init__(self, count: int, waiting: int) -> None:
        self._free, self._longest = count, waiting
        self._lock, self._queue = threading.Lock(), collections.deque[threading.Event]()

    @property
    def queued(self) -> int:
        """The number of callers that wait."""
        return len(self._queue)

    def take(self, patience_s: float) -> bool:
        """Return whether the caller has a turn, after at most ``patience_s`` seconds."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if len(self._queue) >= self._longest:
                return False
            mine = threading.Event()
            self._queue.append(mine)
        mine.wait(patience_s)
        with self._lock:
            if not mine.is_set():
                self._queue.remove(mine)
            return mine.is_set()

    def give(self) -> None:
        """Give a turn back: to the caller that has waited longest."""
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1


class Senders:
    """The clients whose last message was large, by address; the first of more than ``most`` are forgotten."""

    def __init__(self, most: int = SENDERS) -> None:
        self._most = most
        self._lock, self._peers = threading.Lock(), dict[str, None]()

    def __contains__(self, peer: str) -> bool:
        """Tell whether the last message of a client was large."""
        with self._lock:
            return peer in self._peers

    def note(self, peer: str, large: bool) -> None:
        """Remember of which size the last message of a client was."""
        with self._lock:
            self._peers.pop(peer, None)
            if large:
                self._peers[peer] = None
                if len(self._peers) > self._most:
                    del self._peers[next(iter(self._peers))]


class Hosts:
    """Turns of each host that has any in use.

    Args:
        count: turns that a host's calls take at a time.
        waiting: its calls that may wait.
    """

    def __init__(self, count: int, waiting: int) -> None:
        self._count, self._waiting = count, waiting
        self._lock, self._turns = threading.Lock(), dict[str, tuple[Turns, int]]()

    def __len__(self) -> int:
        """Return the number of hosts that are remembered."""
        with self._lock:
            return len(self._turns)

    @property
    def queued(self) -> int:
        """The number of calls that wait."""
        with self._lock:
            return sum(turns.queued for turns, _ in self._turns.values())

    @contextlib.contextmanager
    def turn(self, peer: str, patience_s: float) -> Iterator[bool]:
        """Yield whether a client, ``ipv4:HOST:PORT``, has a turn of its host's, after ``patience_s`` at most."""
        host = peer.rpartition(":")[0]
        with self._lock:
            turns, users = self._turns.get(host, (Turns(self._count, self._waiting), 0))
            self._turns[host] = turns, users + 1
        try:
            taken = turns.take(patience_s)
            try:
                yield taken
            finally:
                if taken:
                    turns.give()
        finally:
            with self._lock:
                turns, users = self._turns.pop(host)
                if users > 1:
                    self._turns[host] = turns, users - 1


class Admission(grpc.ServerInterceptor):
    """Let calls take turns; probes do not wait.

    Of one host's calls one less than that are read at a time: what sends no message takes not all turns from others.
    A call that waits in vain, or that is large while another large one is worked on, is answered with
    RESOURCE_EXHAUSTED, after which Katib asks again.

    Args:
        at_once: calls that are answered at a time; of clients whose last message was large two less, but at least one.
        waiting: calls that may wait.
        patience_s: the longest that a call waits.
        reading_s: the longest that a call's message may take; a client that sends none would keep the turn.
        large_bytes: from this size on a message is large.
        large_at_once: large messages that are decoded and computed at a time.
    """

    def __init__(
        self,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        patience_s: float = PATIENCE_S,
        reading_s: float = READING_S,
        *,
        large_bytes: int = LARGE_BYTES,
        large_at_once: int = LARGE_AT_ONCE,
    ) -> None:
        self._at_once, self._patience_s, self._reading_s = at_once, patience_s, reading_s
        self._large_bytes, self._large_at_once = large_bytes, large_at_once
        self._turns, self._large = Turns(at_once, waiting), Turns(large_at_once, 0)
        readers = max(1, at_once - 1)
        self._senders, self._of_senders = Senders(), Turns(max(1, readers - 1), waiting)
        self._hosts = Hosts(readers, max(0, waiting - readers))  # of one host, so many of which wait for their turn

    @property
    def waiting(self) -> int:
        """The number of calls that wait for their turn."""
        return self._turns.queued + self._of_senders.queued + self._hosts.queued

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Return the handler of a call."""
        handler = continuation(details)
        if handler is None or handler.unary_unary is None or details.method.startswith(PROBES):
            return handler

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            peer = context.peer()
            with contextlib.ExitStack() as turn:
                if peer in self._senders:
                    turn.enter_context(self._turn(self._of_senders, details.method, context))
                with self._hosts.turn(peer, self._patience_s) as taken:
                    if not taken:
                        self._reject(details.method, context)
                    turn.enter_context(self._turn(self._turns, details.method, context))
                    content = self._read(requests, details.method, context)
                self._senders.note(peer, len(content) >= self._large_bytes)
                with self._room(len(content), details.method, context):
                    request = _decoded(content, handler, details.method, context)
                    del content  # what was sent and what was decoded need not be in memory together
                    return handler.unary_unary(request, context)

        return grpc.stream_unary_rpc_method_handler(answer, response_serializer=handler.response_serializer)

    @contextlib.contextmanager
    def _turn(self, turns: Turns, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        if not turns.take(self._patience_s):
            self._reject(method, context)
        try:
            yield
        finally:
            turns.give()

    def _reject(self, method: str, context: grpc.ServicerContext) -> NoReturn:
        rule = f"at most {self._at_once} calls are answered at a time: ask again later."
        reject(context, method, "", rule, grpc.StatusCode.RESOURCE_EXHAUSTED)

    @contextlib.contextmanager
    def _room(self, size: int, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        if size < self._large_bytes:
            yield
            return
        if not self._large.take(0.0):
            which = f"{self._large_at_once} requests of {self._large_bytes:,} bytes or more"
            rule = f"at most {which} are answered at a time: ask again later."
            reject(context, method, "", rule, grpc.StatusCode.RESOURCE_EXHAUSTED)
        try:
            yield
        finally:
            self._large.give()

    def _read(self, requests: Iterator[bytes], method: str, context: grpc.ServicerContext) -> bytes:
        late = threading.Timer(self._reading_s, context.cancel)
        late.start()
        try:
            content = next(requests, None)
        finally:
            late.cancel()
        if content is None:
            reject(context, method, "", "a call must have a message, but has none.")
        return content


def _decoded(content: bytes, handler: Any, method: str, context: grpc.ServicerContext) -> Any:
    try:
        return handler.request_deserializer(content)
    except Exception as error:  # protobuf's DecodeError, by which library it may be
        reject(context, method, "", f"a call must have a message of its method, but: {error}")
