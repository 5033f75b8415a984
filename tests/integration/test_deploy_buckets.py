"""The Job that makes buckets and the artifacts' account, against MinIO's own S3 and admin API."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from kondense_pipelines.deploy import buckets, job
from kondense_pipelines.local.store import local_store
from minio import Minio
from minio.error import S3Error

ACCOUNT = {"MINIO_ACCESS_KEY": "pipelines", "MINIO_SECRET_KEY": "made for this test"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An empty store of this module's own, and its first account."""
    with local_store(tmp_path_factory.mktemp("store"), {}) as variables:
        yield {
            "MINIO_ENDPOINT": variables["MINIO_ENDPOINT"],
            "MINIO_SECURE": "false",
            "MINIO_ROOT_USER": variables["MINIO_ACCESS_KEY"],
            "MINIO_ROOT_PASSWORD": variables["MINIO_SECRET_KEY"],
        }


def ensure(*names: str, **environment: str) -> list[str]:
    return list(buckets.ensure(names, environment))


def client(environment: dict[str, str]) -> Any:
    account = environment["MINIO_ACCESS_KEY"], environment["MINIO_SECRET_KEY"]
    return Minio(environment["MINIO_ENDPOINT"], *account, secure=False)


def put(store: Any, bucket: str) -> None:
    store.put_object(bucket, "a/b", io.BytesIO(b"content"), 7)


def test_the_account_may_use_these_buckets_and_nothing_else(root: dict[str, str]) -> None:
    environment = {**root, **ACCOUNT}
    lines = ensure("mlpipeline", "kondense", **environment)
    assert lines[:2] == ["bucket mlpipeline: created", "bucket kondense: created"]
    owner = client(
        environment | {"MINIO_ACCESS_KEY": root["MINIO_ROOT_USER"], "MINIO_SECRET_KEY": root["MINIO_ROOT_PASSWORD"]}
    )
    owner.make_bucket("private")
    put(owner, "private")
    store = client(environment)
    for bucket in ("mlpipeline", "kondense"):
        put(store, bucket)
        assert store.bucket_exists(bucket)
        assert [each.object_name for each in store.list_objects(bucket, recursive=True)] == ["a/b"]
        assert store.get_object(bucket, "a/b").read() == b"content"
        store.remove_object(bucket, "a/b")
    for refused in (
        lambda: put(store, "private"),
        lambda: store.get_object("private", "a/b"),
        lambda: list(store.list_objects("private")),
        lambda: store.make_bucket("another"),
        lambda: store.remove_bucket("kondense"),
    ):
        with pytest.raises(S3Error, match="AccessDenied"):
            refused()


def test_a_second_run_and_a_new_password_are_fine(root: dict[str, str]) -> None:
    environment = {**root, **ACCOUNT, "MINIO_ACCESS_KEY": "second"}
    ensure("one-more", **environment)
    assert ensure("one-more", **environment)[0] == "bucket one-more: exists"
    changed = {**environment, "MINIO_SECRET_KEY": "another for this test"}
    ensure("one-more", **changed)
    put(client(changed), "one-more")
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        put(client(environment), "one-more")


def test_without_root_the_account_makes_the_buckets_itself(root: dict[str, str]) -> None:
    """In the store that Kubeflow Pipelines brings."""
    environment = {"MINIO_ENDPOINT": root["MINIO_ENDPOINT"], "MINIO_SECURE": "false"}
    account = {"MINIO_ACCESS_KEY": root["MINIO_ROOT_USER"], "MINIO_SECRET_KEY": root["MINIO_ROOT_PASSWORD"]}
    assert ensure("by-itself", **environment, **account) == ["bucket by-itself: created"]


@pytest.mark.parametrize(
    ("names", "changes", "message", "code"),
    [
        ((), {}, "buckets must be names", 2),
        (("No",), {}, "buckets must be names", 2),
        (("mlpipeline",), {"MINIO_ROOT_PASSWORD": "wrong password"}, "refused: SignatureDoesNotMatch", 1),
        (("mlpipeline",), {"MINIO_ACCESS_KEY": ""}, "MINIO_ACCESS_KEY is not set", 1),
    ],
)
def test_what_is_wrong_is_told_in_one_line(  # noqa: PLR0917
    root: dict[str, str],
    names: tuple[str, ...],
    changes: dict[str, str],
    message: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment = {**root, **ACCOUNT, **changes}
    assert job.run(lambda: buckets.ensure(names, environment)) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not any(value in error for value in (ACCOUNT["MINIO_SECRET_KEY"], root["MINIO_ROOT_PASSWORD"]))


def test_an_endpoint_that_is_away_is_told(root: dict[str, str]) -> None:
    with pytest.raises(OSError, match=r"the object store at http://127\.0\.0\.1:1 refused"):
        ensure("mlpipeline", **{**root, **ACCOUNT, "MINIO_ENDPOINT": "127.0.0.1:1"})
