"""Open a store by its address."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from kondense.errors import InputError, extras_named
from kondense.store.local import LocalStore
from kondense.store.store import Store

BUCKET_SCHEMES = ("minio", "s3")


def open_store(uri: str) -> Store:
    """Open the store at ``uri``: a plain path, ``file://``, ``minio://bucket/prefix`` or ``s3://bucket/prefix``.

    The environment gives the endpoint of buckets: MINIO_ENDPOINT (host:port), MINIO_ACCESS_KEY, MINIO_SECRET_KEY,
    MINIO_SECURE (true or false; default: false for this machine, else true).

    Raises:
        InputError: an unknown scheme, or no bucket.
        StoreError: a variable of the environment is missing.
    """
    if "://" not in uri:
        if not uri:
            raise InputError("a store must be a path or a URI, but got ''.")
        return LocalStore(Path(uri))
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return LocalStore(Path(parts.netloc + parts.path))
    if parts.scheme not in BUCKET_SCHEMES:
        raise InputError(f"a store must be a path, file://, minio:// or s3://, but got {uri!r}.")
    if not parts.netloc:
        raise InputError(f"a store must be {parts.scheme}://bucket/prefix, but got {uri!r}.")
    with extras_named():
        from kondense.store.bucket import ObjectStore
        from kondense.store.connection import connection_from_environment

    connection = connection_from_environment(os.environ)
    return ObjectStore(uri, bucket=parts.netloc, prefix=parts.path.strip("/"), connection=connection)
