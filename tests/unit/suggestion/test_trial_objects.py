"""Answers of a Kubernetes API that is another server, or whose connection breaks, are errors of one line."""

import socketserver
import threading

import pytest
from kondense.suggestion.trial_objects import LARGEST_BYTES, ApiError, TrialObjects

DEEP = b"[" * 100_000


def http(status: bytes, body: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body) if length is None else length, body)


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (http(b"200 OK", DEEP), 0, "at most 100 levels"),
        (http(b"200 OK", b"[1]"), 0, "must be a JSON object"),
        (http(b"200 OK", b"<html>login</html>"), 0, "must be JSON"),
        (http(b"200 OK", b'{"a": 1}', 500), 0, "IncompleteRead"),
        (http(b"200 OK", b'{"a": "%s"}' % (b"x" * LARGEST_BYTES)), 0, f"at most {LARGEST_BYTES:,} bytes"),
        (b"something else\r\n\r\n", 0, "something else"),
        (b"", 0, "closed connection without response"),
        (http(b"500 Oops", DEEP), 500, "500 "),
        (http(b"403 Forbidden", b'{"message": "not'), 403, "403 "),
        (http(b"403 Forbidden", b'{"message"', 500), 403, "403 "),
        (http(b"403 Forbidden", b'{"message": "not you"}'), 403, "403 not you"),
        (http(b"302 Found\r\nLocation: http://127.0.0.1:1/elsewhere", b""), 302, "302 "),  # the token would go along
        (http(b"307 Temporary Redirect\r\nLocation: file:///etc/passwd", b""), 307, "307 "),
    ],
)
def test_another_answer_is_told(answer, status, text):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(2**16)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(ApiError, match=text) as caught:
            TrialObjects(f"http://127.0.0.1:{server.server_address[1]}", "team").read("a-trial")
        server.shutdown()
    assert caught.value.status == status
    assert "\n" not in str(caught.value)
