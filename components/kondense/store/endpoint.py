"""The endpoint of an object store, as people write it."""

import re

from kondense.errors import InputError

LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
ENDPOINT = re.compile(rf"({LABEL}(\.{LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{{1,5}}))?")


def read_endpoint(name: str, text: str) -> tuple[str, str]:
    """Return scheme and ``host:port`` of an endpoint; the scheme is "" if it has none.

    Args:
        name: of the variable or parameter, for the error.
        text: without blanks around it.

    Raises:
        InputError: it is no address of a server, or holds more than that.
    """
    scheme, separator, rest = text.rpartition("://")
    scheme, host = scheme.lower(), rest.rstrip("/")
    rule = f"{name} must be host:port, http://host:port or https://host:port"
    if separator and scheme not in ("http", "https"):
        raise InputError(f"{rule}, but its scheme is {scheme[:20]!r}.")
    if "@" in host:
        raise InputError(f"{rule}, but holds credentials; MINIO_ACCESS_KEY and MINIO_SECRET_KEY hold them.")
    for character, part in (("/", "a path"), ("?", "a query"), ("#", "a fragment")):
        if character in host:
            raise InputError(f"{rule}, but holds {part} (a bucket and its folder belong to the store's address).")
    match = ENDPOINT.fullmatch(host)
    if not match or int(match["port"] or 1) not in range(1, 65536):
        raise InputError(f"{rule}, but got {host[:80]!r}.")
    return scheme, host
