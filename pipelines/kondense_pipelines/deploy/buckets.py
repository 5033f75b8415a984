"""Create the buckets, and in Kondense's MinIO the account that uses them: a Job of manifests/buckets.

MINIO_ENDPOINT, MINIO_ACCESS_KEY, MINIO_SECRET_KEY and MINIO_SECURE give endpoint and account. If MINIO_ROOT_USER and
MINIO_ROOT_PASSWORD are set, they create the buckets and the account, which may then read and write objects in these
buckets and nothing else. Without them the account creates the buckets itself.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kondense.errors import InputError
from kondense.store.connection import Connection, PatientPool, connection_from_environment
from kondense.store.store import StoreError

from kondense_pipelines.deploy import job

POLICY = "kondense"
DELAYS_S = (1.0, 2.0)  # within one attempt of the Job, which has several
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ON_BUCKETS = ("s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads")
ON_OBJECTS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


def ensure(buckets: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Create missing buckets, and the account; yield a line for each.

    Args:
        buckets: names of the buckets.
        environment: see the module.

    Raises:
        InputError: no bucket, or a name that S3 does not allow.
        StoreError: a variable is missing, or the store refused or cannot be reached.
    """
    if not buckets or not all(NAME.fullmatch(bucket) for bucket in buckets):
        raise InputError(f"buckets must be names of 3 to 63 of a-z, 0-9, dash and dot, but got {list(buckets)}.")
    connection = connection_from_environment(environment)
    root = environment.get("MINIO_ROOT_USER", ""), environment.get("MINIO_ROOT_PASSWORD", "")
    store = _client(connection, *root) if all(root) else _client(connection)
    try:
        yield from _create_buckets(store, buckets)
        if all(root):
            yield from _create_account(connection, *root, buckets=buckets)
    except _failures() as error:
        raise StoreError(f"the object store at {connection.url} refused: {_text(error)}") from None


def access_policy(buckets: Sequence[str]) -> dict[str, Any]:
    """Return the policy of an account that may only read and write objects of these buckets."""
    arns = [f"arn:aws:s3:::{bucket}" for bucket in buckets]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(ON_BUCKETS), "Resource": arns},
            {"Effect": "Allow", "Action": list(ON_OBJECTS), "Resource": [f"{arn}/*" for arn in arns]},
        ],
    }


def _create_buckets(store: Any, buckets: Sequence[str]) -> Iterator[str]:
    for bucket in buckets:
        if store.bucket_exists(bucket):
            yield f"bucket {bucket}: exists"
        else:
            store.make_bucket(bucket)
            yield f"bucket {bucket}: created"


def _create_account(connection: Connection, user: str, password: str, *, buckets: Sequence[str]) -> Iterator[str]:
    from minio import MinioAdmin
    from minio.credentials.providers import StaticProvider

    admin = MinioAdmin(
        endpoint=connection.endpoint,
        credentials=StaticProvider(user, password),
        secure=connection.secure,
        http_client=PatientPool(DELAYS_S),
    )
    admin.policy_add(POLICY, policy=access_policy(buckets))
    admin.user_add(connection.access_key, connection.secret_key)
    admin.policy_set(POLICY, user=connection.access_key)
    yield f"account of the artifacts: may read and write objects in {', '.join(buckets)}"


def _client(connection: Connection, user: str = "", password: str = "") -> Any:
    from minio import Minio

    return Minio(
        connection.endpoint,
        user or connection.access_key,
        password or connection.secret_key,
        secure=connection.secure,
        region=connection.region,
        http_client=PatientPool(DELAYS_S),
    )


def _failures() -> tuple[type[Exception], ...]:
    import urllib3
    from minio.error import MinioException

    return (MinioException, urllib3.exceptions.HTTPError)


def _text(error: Exception) -> str:
    """Return the store's message without the ids of the request."""
    code, message = getattr(error, "code", ""), getattr(error, "message", "")
    return f"{code}: {message}" if code else str(error)


def main() -> int:
    """Run the Job."""
    return job.run(lambda: ensure(sys.argv[1:], os.environ))


if __name__ == "__main__":
    sys.exit(main())
