"""Limits of time for whole transfers over HTTP, which http.client, urllib.request and urllib3 do not have. Stdlib only.

Their time-outs are those of one call of a socket: an answer that comes byte by byte has no end. And urllib3 sends the
whole body of a request within the time-out *to connect*, which a slow line cannot do.
"""

import contextlib
import http.client
import io
import math
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PIECE_BYTES = 2**16  # that one call sends


class SlowError(OSError):
    """A transfer did not keep its pace."""


@dataclass(frozen=True)
class Pace:
    """The longest that a request may take to be sent, and its answer to come; each on its own.

    Attributes:
        longest_s: seconds, and a further one
        bytes_per_s: for each of so many bytes that have gone through.
        silent_s: seconds in which the other side takes nothing of what is sent.
    """

    longest_s: float
    bytes_per_s: float = math.inf
    silent_s: float = 60.0


class _Transfer:
    """What has gone through in one direction, and since when."""

    def __init__(self, pace: Pace) -> None:
        self.pace, self.began_s, self.bytes = pace, time.monotonic(), 0

    @contextlib.contextmanager
    def step(self, sock: socket.socket, silent_s: float | None) -> Iterator[None]:
        """Limit a call of the socket to ``silent_s``, and to the time that is left."""
        before_s = sock.gettimeout()
        ends_s = self.began_s + self.pace.longest_s + self.bytes / self.pace.bytes_per_s
        left_s = ends_s - time.monotonic()
        if left_s <= 0:
            raise self._error()
        sock.settimeout(left_s if silent_s is None else min(silent_s, left_s))
        try:
            yield
        except TimeoutError:
            if time.monotonic() >= ends_s:
                raise self._error() from None
            raise
        finally:
            sock.settimeout(before_s)

    def _error(self) -> SlowError:
        more = f" and 1 s for each {self.pace.bytes_per_s:,.0f} bytes" if math.isfinite(self.pace.bytes_per_s) else ""
        return SlowError(f"must take at most {self.pace.longest_s:g} s{more}, but {self.bytes:,} bytes took longer")


class _Received(io.RawIOBase):
    """What a socket receives, at a pace."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, transfer: _Transfer) -> None:
        self._raw, self._sock, self._transfer = raw, sock, transfer

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Receive into ``buffer``; SlowError if the time is over."""
        with self._transfer.step(self._sock, self._sock.gettimeout()):
            count = self._raw.readinto(buffer)
        self._transfer.bytes += count or 0
        return count

    def close(self) -> None:
        """Close the socket's file."""
        self._raw.close()
        super().close()


def paced(kind: type[Any], pace: Pace) -> type[Any]:
    """Return a class of connections that keep a pace.

    Args:
        kind: a connection of http.client, or urllib3's, which is derived of it.
        pace: a transfer that does not keep it raises SlowError.
    """

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self.fp = io.BufferedReader(_Received(self.fp.detach(), sock, _Transfer(pace)))

    class Connection(kind):
        response_class = Response
        _sent: _Transfer

        def putrequest(self, *arguments: Any, **options: Any) -> None:
            self._sent = _Transfer(pace)
            super().putrequest(*arguments, **options)

        def send(self, data: Any) -> None:
            if self.sock is None or not isinstance(data, bytes | bytearray | memoryview):
                super().send(data)  # the first one, the request's headers, connects
                return
            view = memoryview(data)
            for start in range(0, len(view), PIECE_BYTES):
                with self._sent.step(self.sock, pace.silent_s):
                    super().send(view[start : start + PIECE_BYTES])
                self._sent.bytes += PIECE_BYTES

    return Connection


def handlers(pace: Pace, certificates: ssl.SSLContext | None = None) -> list[urllib.request.BaseHandler]:
    """Return what makes an opener of urllib.request keep a pace."""
    plain: Any = paced(http.client.HTTPConnection, pace)
    secure: Any = paced(http.client.HTTPSConnection, pace)

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(plain, request)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(secure, request, context=certificates)

    return [Plain(), Secure(context=certificates)]


def keep(pool: Any, pace: Pace) -> None:
    """Make an ``urllib3.PoolManager`` that has no connections yet keep a pace."""
    from urllib3 import connectionpool

    class Plain(connectionpool.HTTPConnectionPool):
        ConnectionCls = paced(connectionpool.HTTPConnectionPool.ConnectionCls, pace)

    class Secure(connectionpool.HTTPSConnectionPool):
        ConnectionCls = paced(connectionpool.HTTPSConnectionPool.ConnectionCls, pace)

    pool.pool_classes_by_scheme = {"http": Plain, "https": Secure}
