"""What must hold for both images."""

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SECRETS = ("/run/secrets", "/etc/ssl/certs/ca-certificates.crt", "/root/.cache", "/root/.config", "/source")


@contextmanager
def files(engine: Any, image: str) -> Iterator[Any]:
    """Yield the image's file tree as an open tar stream."""
    container = engine.containers.create(image, command=["true"])
    try:
        with tarfile.open(fileobj=Reader(container.export()), mode="r|") as archive:
            yield archive
    finally:
        container.remove(force=True)


class Reader:
    """A file over an iterator of bytes."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = iter(chunks)
        self.rest = b""

    def read(self, size: int) -> bytes:
        parts, have = [self.rest], len(self.rest)
        while have < size:
            chunk = next(self.chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        self.rest = data[size:]
        return data[:size]


def tree(engine: Any, image: str, prefix: str) -> dict[str, str]:
    """Return mode, time and digest of every file below ``prefix``; of a directory only the mode."""
    found = {}
    with files(engine, image) as archive:
        for member in archive:
            if member.name.startswith(prefix):
                content = archive.extractfile(member).read() if member.isreg() else member.linkname.encode()
                time = "" if member.isdir() else member.mtime
                found[member.name] = f"{member.mode:o} {time} {hashlib.sha256(content).hexdigest()}"
    return found


def names(engine: Any, image: str) -> list[str]:
    """Return the path of every file."""
    with files(engine, image) as archive:
        return [f"/{member.name}" for member in archive]


def check_metadata(engine: Any, image: str, base: str) -> None:
    """Check user, command, labels and that nothing of the build is left on top of the base."""
    config = engine.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert not config["Entrypoint"]
    assert config["Labels"]["org.opencontainers.image.revision"] == "0123456789ab"
    added = set(names(engine, image)) - set(names(engine, base))
    left = {path for path in added if any(path == each or path.startswith(f"{each}/") for each in SECRETS)}
    assert left <= {"/run/secrets"}  # BuildKit leaves an empty directory where a secret was mounted
    assert not [path for path in added if path.endswith("/.git") or "/tests/docker/" in path]
