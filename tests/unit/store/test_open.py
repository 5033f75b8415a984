"""Addresses of stores and endpoints as people write them."""

from pathlib import Path

import pytest
from kondense.store.bucket import ObjectStore
from kondense.store.connection import connection_from_environment
from kondense.store.local import LocalStore
from kondense.store.open import open_store
from kondense.store.store import StoreError

KEYS = {"MINIO_ACCESS_KEY": "access-0", "MINIO_SECRET_KEY": "secret-0"}


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (KEYS | {"MINIO_ENDPOINT": "127.0.0.1:9"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MINIO_SECURE", raising=False)


@pytest.mark.parametrize(
    "prefix",
    [
        "run#1", "why?/data", "a#b?c=d&e", "100%", "100%25", "%23", "my run/of today", "ü/日本", "a+b", "x:y@z",
        ".hidden/a", "~a",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["minio", "s3", "S3"])
def test_a_prefix_is_taken_as_it_is_written(scheme: str, prefix: str) -> None:
    store = open_store(f"{scheme}://bucket/{prefix}/")
    assert isinstance(store, ObjectStore)
    assert (store.bucket, store.prefix) == ("bucket", prefix)
    assert store.address("k") == f"{scheme.lower()}://bucket/{prefix}/k"
    assert store._name("k") == f"{prefix}/k"


@pytest.mark.parametrize("name", ["run#1", "why?", "100%", "100%25", "a b", "ü"])
@pytest.mark.parametrize("form", ["{}", "file://{}", "FILE://{}", "file://localhost{}"])
def test_a_path_is_taken_as_it_is_written(form: str, name: str, tmp_path: Path) -> None:
    store = open_store(form.format(tmp_path / name))
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / name


def test_a_path_with_codes_for_its_characters_is_refused_where_it_names_another(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    with pytest.raises(ValueError, match=f"without %-codes: file://{tmp_path}/a b"):
        open_store((tmp_path / "a b").as_uri())


def test_the_home_directory_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_store("~/store")
    assert isinstance(store, LocalStore) and store.root == tmp_path / "store"


@pytest.mark.parametrize("prefix", ["a//b", "a/./b", "a/../b", "..", "./a", "a\nb", "a\tb"])
def test_a_prefix_that_stores_would_read_otherwise_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="a store's prefix must be a path without '//', '.', '..' and line feeds"):
        open_store(f"s3://bucket/{prefix}")


def test_slashes_and_line_feeds_around_a_prefix_do_not_count() -> None:
    for written in ("s3://bucket//a/b//", "s3://bucket/a/b\n", "s3://bucket/a/b/\r\n"):
        store = open_store(written)
        assert isinstance(store, ObjectStore) and store.prefix == "a/b"


@pytest.mark.parametrize(
    "address",
    [
        "https://key-1:secret-1@host/bucket?X-Amz-Signature=secret-1", "s3://key-1:secret-1@bucket/x", "secret-1://x",
        "s3:/bucket/x", "minio:bucket", "https:/host", "file://", "s3:///x", "ftp://host/x", "s3://buck#et/x",
        "file://host/x", "file://x", "file://a\nb", "s3:///a\nb",
        "s3://buck?et", "s3://192.168.0.1/x", "s3://a..b/x",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_showing_keys(address: str) -> None:
    with pytest.raises(ValueError, match="a store|a bucket's name") as caught:
        open_store(address)
    if not address.startswith("secret"):
        assert "secret-1" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("HTTPS://minio.example", "https://minio.example"),
        ("Http://minio.example:9000", "http://minio.example:9000"),
        ("127.0.0.1:9000\n", "http://127.0.0.1:9000"),
        ("  https://minio.example/  ", "https://minio.example"),
        ("https://minio.example//", "https://minio.example"),
        ("LOCALHOST:9000", "http://LOCALHOST:9000"),
        ("my_minio:9000", "https://my_minio:9000"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("http://[fe80::1]:9000", "http://[fe80::1]:9000"),
    ],
)
def test_an_endpoint_is_cleaned(written: str, url: str) -> None:
    assert connection_from_environment(KEYS | {"MINIO_ENDPOINT": written}).url == url


@pytest.mark.parametrize(
    "written",
    [
        "ftp://minio", "s3://minio", "https:minio", "https:/minio", "//minio", "http://https://minio", "minio:abc",
        "minio:0", "minio:99999", "minio:", ":9000", "mi nio", "mi\nnio", '"minio:9000"', "::1", "minio/bucket",
        "minio?x", "https://minio/minio/", "minio#x", "https://u:secret-1@minio", "https://minio?X-Amz-Signature=secret-1",
        "https://", "minio..example", "-minio", "minio:\N{ARABIC-INDIC DIGIT NINE}",
    ],
)  # fmt: skip
def test_an_endpoint_that_cannot_be_is_refused_without_showing_keys(written: str) -> None:
    with pytest.raises(StoreError, match="MINIO_ENDPOINT must be host:port|needs MINIO_ENDPOINT") as caught:
        connection_from_environment(KEYS | {"MINIO_ENDPOINT": written})
    assert "secret-1" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_line_feed_of_a_secret_made_with_echo_is_taken_off() -> None:
    variables = {"MINIO_ACCESS_KEY": "access-0\n", "MINIO_SECRET_KEY": "secret 0 \r\n", "MINIO_ENDPOINT": "h:1\n"}
    found = connection_from_environment(variables | {"MINIO_SECURE": "false\n", "MINIO_REGION": " eu-west-1\n"})
    assert (found.access_key, found.secret_key, found.region) == ("access-0", "secret 0 ", "eu-west-1")
    assert found.url == "http://h:1"


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"MINIO_ACCESS_KEY": "acc ess"}, "MINIO_ACCESS_KEY must be printable ASCII"),
        ({"MINIO_ACCESS_KEY": "acc\ness"}, "MINIO_ACCESS_KEY must be printable ASCII"),
        ({"MINIO_ACCESS_KEY": "zugriffß"}, "MINIO_ACCESS_KEY must be printable ASCII"),
        ({"MINIO_ACCESS_KEY": " \n"}, "but MINIO_ACCESS_KEY is not set"),
        ({"MINIO_REGION": "eu west"}, "MINIO_REGION must be a name"),
        (
            {"MINIO_ENDPOINT": "https://h", "MINIO_SECURE": "false"},
            "must fit MINIO_ENDPOINT, but is false for https://h",
        ),
        ({"MINIO_ENDPOINT": "http://h", "MINIO_SECURE": "true"}, "must fit MINIO_ENDPOINT, but is true for http://h"),
    ],
)
def test_a_variable_that_cannot_be(variables: dict[str, str], text: str) -> None:
    with pytest.raises(StoreError, match=text):
        connection_from_environment(KEYS | {"MINIO_ENDPOINT": "h:1"} | variables)


def test_a_host_that_the_client_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_ENDPOINT", "https://ec2.amazonaws.com")
    with pytest.raises(StoreError, match="MINIO_ENDPOINT cannot be https://ec2.amazonaws.com"):
        open_store("s3://bucket")
