"""Open a store by its address."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from kondense.errors import InputError, extras_named
from kondense.json_text import SHOWN
from kondense.store.local import LocalStore
from kondense.store.store import Store

BUCKET_SCHEMES = ("minio", "s3")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
ONE_SLASH = re.compile(r"(file|minio|s3|https?):", re.IGNORECASE)


def open_store(uri: str) -> Store:
    """Open the store at ``uri``: a plain path, ``file://``, ``minio://bucket/prefix`` or ``s3://bucket/prefix``.

    All that follows the scheme is taken as it is written: ``#``, ``?`` and ``%`` are part of the path or the prefix.

    The environment gives the endpoint of buckets: MINIO_ENDPOINT (host:port), MINIO_ACCESS_KEY, MINIO_SECRET_KEY,
    MINIO_SECURE (true or false; default: false for this machine, else true).

    Raises:
        InputError: an unknown scheme, no bucket, or a prefix that is no plain path.
        StoreError: a variable of the environment is missing or malformed.
    """
    if (path := local_path(uri)) is not None:
        return LocalStore(path)
    scheme, _, rest = uri.partition("://")
    scheme, rest = scheme.lower(), rest.rstrip("\r\n")  # of a Secret made with echo
    if scheme not in BUCKET_SCHEMES:
        # Not the whole address: it may hold credentials or a signature.
        shown = scheme if SCHEME.fullmatch(scheme) else "another text"
        raise InputError(f"a store must be a path, file://, minio:// or s3://, but got {shown}://...")
    bucket, prefix = _bucket(scheme, rest)
    with extras_named():
        from kondense.store.bucket import ObjectStore
        from kondense.store.connection import connection_from_environment

    connection = connection_from_environment(os.environ)
    address = f"{scheme}://{bucket}/{prefix}"
    return ObjectStore(address, bucket=bucket, prefix=prefix, connection=connection)


def local_path(uri: str) -> Path | None:
    """Return the place on this machine that ``uri`` names, a plain path or ``file://``; None if it names a bucket.

    Raises:
        InputError: it is empty, or no path follows ``file://``.
    """
    scheme, separator, rest = uri.partition("://")
    if separator:
        return _file(rest.rstrip("\r\n")) if scheme.lower() == "file" else None
    if not uri:
        raise InputError("a store must be a path or a URI, but got ''.")
    if ONE_SLASH.match(uri):
        raise InputError(f"a store must be a path or a URI with '://', but got {uri.partition(':')[0]}:...")
    return Path(uri).expanduser()


def _file(rest: str) -> Path:
    if not rest.removeprefix("localhost").startswith("/"):
        raise InputError(f"a store must be file:///path, but got {ascii(f'file://{rest}')[:SHOWN]}.")
    path = Path(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)
    if not path.exists() and unquote(str(path)) != str(path) and Path(unquote(str(path))).exists():
        raise InputError(f"a store at file:// must be written without %-codes: file://{unquote(str(path))}.")
    return path


def _bucket(scheme: str, rest: str) -> tuple[str, str]:
    """Return bucket and prefix of the part of an address behind ``scheme://``."""
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise InputError(f"a store must be {scheme}://bucket/prefix, but got {ascii(f'{scheme}://{rest}')[:SHOWN]}.")
    if "@" in bucket:
        raise InputError(
            f"a store must be {scheme}://bucket/prefix without credentials; MINIO_ACCESS_KEY and MINIO_SECRET_KEY hold"
            " them."
        )
    prefix = prefix.strip("/")
    parts = prefix.split("/") if prefix else []
    if any(part in ("", ".", "..") for part in parts) or not prefix.replace("\N{NO-BREAK SPACE}", " ").isprintable():
        raise InputError(f"a store's prefix must be a path without '//', '.', '..' and line feeds, but got {prefix!r}.")
    return bucket, prefix
