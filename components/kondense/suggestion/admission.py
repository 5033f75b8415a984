"""Few calls at a time, before their messages are read: requests in memory are what a small container has no room for.

gRPC reads a message before its method is called, in each of the server's threads. A method that takes a stream reads
when it asks for the next message, and on the wire a stream of one message is a plain call: so every method is served
as one, and takes its turn first.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from kondense.suggestion.rejection import reject

AT_ONCE = 2  # calls whose messages are in memory
WAITING = 8  # calls that wait for their turn; the server's other threads answer probes
PATIENCE_S = 1.0
READING_S = 20.0  # for the message of a call that has its turn; Katib sends it at once
PROBES = "/grpc.health."


class Admission(grpc.ServerInterceptor):
    """Let calls take turns; probes do not wait.

    A call that waits in vain is answered with RESOURCE_EXHAUSTED, after which Katib asks again.

    Args:
        at_once: calls that are answered at a time.
        waiting: calls that may wait.
        patience_s: the longest that a call waits.
        reading_s: the longest that a call's message may take; a client that sends none would keep the turn.
    """

    def __init__(
        self,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        patience_s: float = PATIENCE_S,
        reading_s: float = READING_S,
    ) -> None:
        self._at_once, self._patience_s, self._reading_s = at_once, patience_s, reading_s
        self._turns, self._places = threading.Semaphore(at_once), threading.Semaphore(waiting)

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Return the handler of a call."""
        handler = continuation(details)
        if handler is None or handler.unary_unary is None or details.method.startswith(PROBES):
            return handler

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with self._turn(details.method, context):
                return handler.unary_unary(self._read(requests, handler, details.method, context), context)

        return grpc.stream_unary_rpc_method_handler(answer, response_serializer=handler.response_serializer)

    @contextlib.contextmanager
    def _turn(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        if not self._turns.acquire(blocking=False):
            admitted = False
            if self._places.acquire(blocking=False):
                try:
                    admitted = self._turns.acquire(timeout=self._patience_s)
                finally:
                    self._places.release()
            if not admitted:
                rule = f"at most {self._at_once} calls are answered at a time: ask again later."
                reject(context, method, "", rule, grpc.StatusCode.RESOURCE_EXHAUSTED)
        try:
            yield
        finally:
            self._turns.release()

    def _read(self, requests: Iterator[bytes], handler: Any, method: str, context: grpc.ServicerContext) -> Any:
        late = threading.Timer(self._reading_s, context.cancel)
        late.start()
        try:
            content = next(requests, None)
        finally:
            late.cancel()
        if content is None:
            reject(context, method, "", "a call must have a message, but has none.")
        try:
            return handler.request_deserializer(content)
        except Exception as error:  # protobuf's DecodeError, by which library it may be
            reject(context, method, "", f"a call must have a message of its method, but: {error}")
