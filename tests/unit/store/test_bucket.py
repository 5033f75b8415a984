"""What the object store does when the server misbehaves; the real gateway is in tests/integration/test_store.py."""

import contextlib
import gzip
import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kondense.pace import Pace
from kondense.store.bucket import ObjectStore
from kondense.store.connection import Connection, connection_from_environment
from kondense.store.open import open_store
from kondense.store.store import DamagedError, StoreError, TooLargeError

KEYS = {"MINIO_ACCESS_KEY": "access-0", "MINIO_SECRET_KEY": "secret-0"}
FAST = (0.01, 0.01, 0.01)
Reply = tuple[int, dict[str, str], bytes]


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of ``replies``, the last one for ever."""

    replies: list[Reply]
    requests: list[str]

    def next_reply(self, request: str) -> Reply:
        self.requests.append(request)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class Handler(http.server.BaseHTTPRequestHandler):
    pause_s = 0.0  # after each byte

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = self.server.next_reply(f"{self.command} {self.path}")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # of a client that does not wait
            for start in range(len(body)) if self.pause_s else ():
                self.wfile.write(body[start : start + 1])
                time.sleep(self.pause_s)
            self.wfile.write(b"" if self.pause_s else body)
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def store_at(server: Server) -> ObjectStore:
    connection = Connection(f"127.0.0.1:{server.server_port}", "access-0", "secret-0", secure=False, region="us-east-1")
    return ObjectStore("minio://bucket", bucket="bucket", connection=connection, delays_s=FAST)


def content(body: bytes, **headers: str) -> Reply:
    return 200, {"x-amz-meta-sha256": hashlib.sha256(body).hexdigest(), **headers}, body


def failure(status: int, code: str = "InternalError") -> Reply:
    body = f"<Error><Code>{code}</Code><Message>text of {code}\nsecond line</Message></Error>"
    return status, {"Content-Type": "application/xml"}, body.encode()


def test_repeats_while_the_server_fails(server: Server) -> None:
    server.replies = [failure(503), failure(500), content(b"hello")]
    assert store_at(server).read("k") == b"hello"
    assert len(server.requests) == 3


def test_gives_up_in_the_end_with_one_line(server: Server) -> None:
    server.replies = [failure(503)]
    with pytest.raises(StoreError) as caught:
        store_at(server).read("k")
    assert len(server.requests) == len(FAST) + 1
    text = str(caught.value)
    assert "minio://bucket/k" in text and f"127.0.0.1:{server.server_port}" in text and "log" in text
    assert "\n" not in text and "secret-0" not in text and "access-0" not in text


def test_does_not_repeat_a_refusal(server: Server) -> None:
    server.replies = [failure(403, "AccessDenied")]
    with pytest.raises(StoreError, match="refused .AccessDenied.; check MINIO_ACCESS_KEY"):
        store_at(server).write("k", b"1")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (404, "XAdminUserNotFound", "check MINIO_ACCESS_KEY"),  # versitygw, an access key that it does not know
        (401, "Unauthorized", "check MINIO_ACCESS_KEY"),
        (403, "QuotaExceeded", "is full"),
        (400, "AuthorizationHeaderMalformed", "set MINIO_REGION"),
        (403, "RequestTimeTooSkewed", "set the clock"),
    ],
)
def test_the_text_names_what_to_check(server: Server, status: int, code: str, hint: str) -> None:
    server.replies = [failure(status, code)]
    with pytest.raises(StoreError, match=rf"{code}.*{hint}|{hint}.*{code}"):
        store_at(server).write("k", b"1")


def test_reads_again_what_broke_off(server: Server) -> None:
    server.replies = [content(b"hello", **{"Content-Length": "500"}), content(b"hello")]
    assert store_at(server).read("k") == b"hello"


def test_an_object_that_always_breaks_off(server: Server, tmp_path: Path) -> None:
    server.replies = [content(b"hello", **{"Content-Length": "500"})]
    with pytest.raises(StoreError, match="minio://bucket/k broke off while it was read"):
        store_at(server).download_file("k", tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_an_object_that_is_not_what_was_stored(server: Server, tmp_path: Path) -> None:
    server.replies = [(200, {"x-amz-meta-sha256": "00" * 32}, b"hello")]
    with pytest.raises(DamagedError, match="minio://bucket/k must have sha256 0000"):
        store_at(server).download_file("k", tmp_path / "file")
    assert not list(tmp_path.iterdir())


def xml(name: str, body: str) -> Reply:
    return 200, {"Content-Type": "application/xml", "ETag": '"tag"'}, f"<{name}>{body}</{name}>".encode()


@pytest.mark.parametrize("lost", ["NoSuchUpload", "InvalidPart"])
def test_begins_a_large_object_anew_when_the_server_lost_its_parts(server: Server, tmp_path: Path, lost: str) -> None:
    (tmp_path / "large").write_bytes(bytes(17 * 2**20))
    begin = xml("InitiateMultipartUploadResult", "<UploadId>1</UploadId>")
    part = (200, {"ETag": '"tag"'}, b"")
    done = xml("CompleteMultipartUploadResult", "<Bucket>bucket</Bucket><Key>k</Key><ETag>tag</ETag>")
    abort = (204, {}, b"")
    server.replies = [begin, part, part, failure(404, lost), abort, begin, part, part, done]
    store_at(server).upload_file("k", tmp_path / "large")
    methods = [request.split()[0] for request in server.requests]
    assert methods == ["POST", "PUT", "PUT", "POST", "DELETE", "POST", "PUT", "PUT", "POST"]


def test_an_encrypted_connection_to_a_server_that_has_none(server: Server) -> None:
    server.replies = [content(b"1")]
    connection = Connection(f"127.0.0.1:{server.server_port}", "access-0", "secret-0", secure=True)
    store = ObjectStore("minio://bucket", bucket="bucket", connection=connection, delays_s=(60.0,))
    with pytest.raises(
        StoreError, match=r"https://127.0.0.1:\d+ cannot be reached .*check MINIO_ENDPOINT, MINIO_SECURE"
    ):
        store.read("k")


def test_something_else_than_an_object_store(server: Server) -> None:
    server.replies = [(404, {"Content-Type": "text/html"}, b"<html>not found</html>")]
    with pytest.raises(StoreError, match="check MINIO_ENDPOINT"):
        store_at(server).read("k")


def test_an_endpoint_that_cannot_be_reached() -> None:
    connection = Connection("127.0.0.1:1", "access-0", "secret-0", secure=False)
    store = ObjectStore("minio://bucket", bucket="bucket", connection=connection, delays_s=FAST)
    with pytest.raises(StoreError) as caught:
        store.write("k", b"1")
    text = str(caught.value)
    assert "http://127.0.0.1:1 cannot be reached for minio://bucket/k" in text and "check MINIO_ENDPOINT" in text
    assert "secret-0" not in text + repr(connection) and "access-0" not in text + repr(connection)


def test_the_environment_must_say_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIO_ENDPOINT", raising=False)
    monkeypatch.setenv("MINIO_ACCESS_KEY", "a")
    monkeypatch.delenv("MINIO_SECRET_KEY", raising=False)
    with pytest.raises(StoreError, match="but MINIO_ENDPOINT, MINIO_SECRET_KEY is not set"):
        open_store("minio://bucket")


@pytest.mark.parametrize(
    ("endpoint", "secure", "url"),
    [
        ("127.0.0.1:9000", "", "http://127.0.0.1:9000"),
        ("localhost:9000", "", "http://localhost:9000"),
        ("play.example.org", "", "https://play.example.org"),
        ("seaweedfs.kubeflow:9000", "false", "http://seaweedfs.kubeflow:9000"),
        ("localhost:9000", "TRUE", "https://localhost:9000"),
        ("http://minio:9000/", "", "http://minio:9000"),
        ("https://localhost:9000", "", "https://localhost:9000"),
    ],
)
def test_when_the_connection_is_encrypted(endpoint: str, secure: str, url: str) -> None:
    environment = KEYS | {"MINIO_ENDPOINT": endpoint, "MINIO_SECURE": secure}
    assert connection_from_environment(environment).url == url


def test_a_wrong_flag() -> None:
    with pytest.raises(StoreError, match="MINIO_SECURE must be true or false, but got 'yes'"):
        connection_from_environment(KEYS | {"MINIO_ENDPOINT": "localhost:1", "MINIO_SECURE": "yes"})


@pytest.mark.parametrize("bucket", ["b", "Bucket", "under_score", "-dash", "a" * 64])
def test_a_bucket_that_cannot_be(bucket: str) -> None:
    with pytest.raises(ValueError, match="bucket's name must be 3 to 63"):
        ObjectStore(f"minio://{bucket}", bucket=bucket, connection=Connection("localhost:1", "a", "s", secure=False))


LISTING = (
    b"<ListBucketResult><Name>bucket</Name><Prefix></Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>"
    b"<IsTruncated>false</IsTruncated><Contents><Key>a/b.png</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    b"<ETag>abc</ETag><Size>12</Size></Contents></ListBucketResult>"
)


@pytest.mark.parametrize(
    "body",
    [
        LISTING.replace(b"<Name>", b"<Nbme>"), LISTING[:120], b"", b"<html>login</html>", b"<!DOCTYPE html><p>log in",
        b"\xff\xfe", LISTING.replace(b">12<", b">twelve<"), LISTING.replace(b"2026-01", b"2026-99"),
        b"<Error><Code>Odd</Code></Error>",
    ],
)  # fmt: skip
def test_a_damaged_listing_is_asked_for_again_and_then_one_line(server: Server, body: bytes) -> None:
    server.replies = [(200, {}, body), (200, {}, LISTING)]
    assert store_at(server).list() == ["a/b.png"]
    server.replies = [(200, {}, body)]
    with pytest.raises(StoreError, match=f"http://127.0.0.1:{server.server_port} gave a damaged answer") as caught:
        store_at(server).list()
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 2 + len(FAST) + 1


def test_a_listing_without_end_is_damage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same page for ever, or always another one."""
    page = LISTING.replace(b"<IsTruncated>false", b"<NextContinuationToken>t</NextContinuationToken><IsTruncated>true")
    server.replies = [(200, {}, page)]
    with pytest.raises(StoreError, match="gave a damaged answer .*a listing without end"):
        store_at(server).list()
    assert len(server.requests) == 2 * (len(FAST) + 1)
    monkeypatch.setattr("kondense.store.bucket.MOST_ENTRIES", 1)
    server.replies = [(200, {}, page), (200, {}, page.replace(b"b.png", b"c.png"))] * (len(FAST) + 1)
    with pytest.raises(StoreError, match="a listing without end"):
        store_at(server).list()


def test_empty_pages_without_end_are_damage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asks for one page after another by itself as long as the answer says that more follow."""
    monkeypatch.setattr("kondense.store.bucket.MOST_EMPTY", 10)
    more = b"<NextContinuationToken>t</NextContinuationToken><IsTruncated>true</IsTruncated>"
    empty = (200, {}, b"<ListBucketResult><Name>bucket</Name>" + more + b"</ListBucketResult>")
    server.replies = [empty]
    with pytest.raises(StoreError, match="gave a damaged answer .*a listing without end"):
        store_at(server).list()
    assert len(server.requests) == 10 * (len(FAST) + 1)
    page = LISTING.replace(b"<IsTruncated>false</IsTruncated>", more)
    pages = [(200, {}, page.replace(b"b.png", b"%d.png" % at)) for at in range(9)]
    server.replies = [*[each for page in pages for each in (*[empty] * 9, page)], (200, {}, LISTING)]
    assert len(store_at(server).list()) == 10  # each key after a few empty pages, of which the count begins again


def test_an_object_that_comes_too_slowly_is_not_read_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kondense.store.connection.PACE", Pace(longest_s=0.5, bytes_per_s=1e9))
    monkeypatch.setattr(Handler, "pause_s", 0.05)
    server.replies = [content(b"hello" * 20)]
    with pytest.raises(StoreError, match="reading minio://bucket/k must take at most 0.5 s and 1 s") as caught:
        store_at(server).read("k")
    assert len(server.requests) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 403])
def test_an_answer_that_is_no_object_is_bounded_compressed_or_not(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("kondense.store.connection.MOST_BYTES", 1_000)
    body = LISTING + b" " * 2_000
    for headers, sent in (({}, body), ({"Content-Encoding": "gzip"}, gzip.compress(body))):
        server.replies = [(status, {"Content-Type": "application/xml", **headers}, sent)]
        with pytest.raises(StoreError, match="an answer must have at most 1,000 bytes, but has more"):
            store_at(server).list()
    server.replies = [(200, {"Content-Encoding": "gzip"}, gzip.compress(LISTING))]
    assert store_at(server).list() == ["a/b.png"]


def login(status: int = 200, **headers: str) -> Reply:
    return status, {"Content-Type": "text/html", **headers}, b"<html>please log in</html>"


def in_gzip(body: bytes) -> Reply:
    return content(body, **{"Content-Encoding": "gzip"})[:2] + (gzip.compress(body),)


OPERATIONS: dict[str, Callable[[ObjectStore, Path], object]] = {
    "read": lambda store, path: store.read("k"),
    "download": lambda store, path: store.download_file("k", path / "file"),
    "exists": lambda store, path: store.exists("k"),
    "write": lambda store, path: store.write("k", b"hello"),
    "list": lambda store, path: store.list(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_login_page_is_no_answer_of_a_store(server: Server, tmp_path: Path, operation: str) -> None:
    server.replies = [login()]
    with pytest.raises(StoreError, match="gave a damaged answer .* no proxy's login page") as caught:
        OPERATIONS[operation](store_at(server), tmp_path)
    assert len(server.requests) == len(FAST) + 1 and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    server.replies = [login(302, Location="http://127.0.0.1:1/login")]
    with pytest.raises(StoreError) as caught:
        OPERATIONS[operation](store_at(server), tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_a_login_page_took_is_written_again(server: Server) -> None:
    server.replies = [login(), (200, {"ETag": '"tag"'}, b"")]
    store_at(server).write("k", b"hello")
    assert [request.split()[0] for request in server.requests] == ["PUT", "PUT"]


@pytest.mark.parametrize(
    "answer", [(200, {"x-amz-request-id": "1"}, b"<Error><Code>InternalError</Code></Error>"), login()]
)
def test_parts_that_were_not_joined_are_sent_again(server: Server, tmp_path: Path, answer: Reply) -> None:
    """S3 may answer 200 and tell only in the body that it failed."""
    (tmp_path / "large").write_bytes(bytes(17 * 2**20))
    begin, part = xml("InitiateMultipartUploadResult", "<UploadId>1</UploadId>"), (200, {"ETag": '"tag"'}, b"")
    done = xml("CompleteMultipartUploadResult", "<Bucket>bucket</Bucket><Key>k</Key><ETag>tag</ETag>")
    server.replies = [begin, part, part, answer, begin, part, part, done]
    store_at(server).upload_file("k", tmp_path / "large")
    assert [request.split()[0] for request in server.requests] == ["POST", "PUT", "PUT", "POST"] * 2
    server.requests.clear()
    torn = (200, {"x-amz-request-id": "1", "Content-Length": "500"}, b"<CompleteMultipartUploadResult>")
    server.replies = [begin, part, part, torn, done]  # the parts are there: only joining them is asked for again
    store_at(server).upload_file("k", tmp_path / "large")
    assert [request.split()[0] for request in server.requests] == ["POST", "PUT", "PUT", "POST", "POST"]


def test_an_answer_in_gzip(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.replies = [in_gzip(b"hello")]  # by a proxy
    assert store_at(server).read("k") == b"hello"
    torn = content(b"hello", **{"Content-Encoding": "gzip"})
    server.replies = [torn, in_gzip(b"hello")]
    assert store_at(server).read("k") == b"hello"
    server.replies = [torn]
    with pytest.raises(StoreError, match="minio://bucket/k broke off while it was read"):
        store_at(server).read("k")
    bomb = content(b"", **{"Content-Encoding": "gzip"})[:2] + (gzip.compress(bytes(2**26)),)
    server.replies = [bomb]
    with pytest.raises(TooLargeError):
        store_at(server).read("k", limit_bytes=2**20)
    monkeypatch.setattr("kondense.store.bucket.machine_memory", lambda: 2**20)
    server.replies = [bomb]
    with pytest.raises(TooLargeError, match="at most 1,048,576 bytes"):  # what no memory holds
        store_at(server).read("k")


def test_a_length_that_is_too_short_is_damage_and_one_that_is_none_does_not_count(server: Server) -> None:
    server.replies = [content(b"hello", **{"Content-Length": "3"})]
    with pytest.raises(DamagedError, match="minio://bucket/k must have sha256"):
        store_at(server).read("k")
    for length in ("-5", "many"):
        server.replies = [content(b"hello", **{"Content-Length": length})]
        assert store_at(server).read("k") == b"hello"


def test_a_not_found_that_breaks_off_is_asked_for_again(server: Server) -> None:
    torn = (404, {"Content-Type": "application/xml", "Content-Length": "500"}, b"<Error><Code>NoSuchKey</Code>")
    server.replies = [torn, content(b"hello")]
    assert store_at(server).read("k") == b"hello"
    server.replies = [torn]
    with pytest.raises(StoreError, match="broke off its answer for minio://bucket/k"):
        store_at(server).read("k")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "NoSuchBucket"), (404, "NoSuchKey"), (403, "AccessDenied"), (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"), (403, "RequestTimeTooSkewed"), (400, "InvalidRequest"),
        (400, "KeyTooLongError"), (409, "OperationAborted"), (501, "NotImplemented"), (507, "XMinioStorageFull"),
    ],
)  # fmt: skip
def test_an_answer_that_waiting_does_not_change_is_not_asked_for_again(server: Server, status: int, code: str) -> None:
    server.replies = [failure(status, code)]
    with pytest.raises(StoreError, match=code):
        store_at(server).read("k")
    assert len(server.requests) == 1


def test_no_text_shows_a_key_or_a_signature(server: Server) -> None:
    told = "secret-0 and access-0 gave AWS4-HMAC-SHA256 Credential=access-0/x, Signature=0123abcd &X-Amz-Signature=4567"
    for reply in (
        (403, {"Content-Type": "application/xml"}, f"<Error><Code>X</Code><Message>{told}</Message></Error>".encode()),
        (400, {"Content-Type": "text/plain"}, told.encode()),
    ):
        server.replies = [reply]
        with pytest.raises(StoreError) as caught:
            store_at(server).read("k")
        text = str(caught.value)
        assert not [word for word in ("secret-0", "access-0", "0123abcd", "4567") if word in text], text


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{}", b"[]", b'{"format_version": 1, "files": {"a": 1}}', b"\xff"])
def test_a_damaged_manifest_is_one_line(server: Server, body: bytes) -> None:
    server.replies = [content(body)]
    with pytest.raises(DamagedError, match="minio://bucket/m/manifest.json must") as caught:
        store_at(server).manifest("m")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
