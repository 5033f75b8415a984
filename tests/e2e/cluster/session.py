"""What the scenarios of one call of the harness share: kubectl, Kubeflow Pipelines, the object store, what was made."""

import base64
import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kondense.store.open import open_store
from kondense.store.store import Store, StoreError
from kondense_pipelines.cluster.client import Access, AccessError, Connected, connect
from urllib3.exceptions import HTTPError

from tests.e2e.cluster.failure import AwayError, CheckError, T, wait_for
from tests.e2e.cluster.kubectl import Forward, Kubectl, stopped_at_end
from tests.e2e.cluster.options import STAGE, Options, manifest_image

SECRET = "mlpipeline-minio-artifact"
BUCKET = "mlpipeline"
VARIABLES = ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SECURE")


class Session:
    """One call of the harness.

    Attributes:
        stamp: is in the name of all that is made.
        seed: of the runs.
        objects: names, by kind, of objects that are deleted before anything else is taken away.
        made: what takes away what was made, with a line each; the last is done first.
        seen: what the scenario that runs has seen, for the table.
        overlay_made: the overlay was applied by this session, where none was.
    """

    def __init__(self, options: Options, scratch: Path) -> None:
        """Take the options, and a directory that goes away at the end."""
        self.options = options
        self.scratch = scratch
        self.stamp = time.strftime("%H%M%S") + secrets.token_hex(2)
        self.seed = secrets.randbelow(2**31 - 1)
        self.kubectl = Kubectl(options.namespace, scratch / "kubectl")
        self.made: list[tuple[str, Callable[[], object]]] = []
        self.objects: dict[str, list[str]] = {}
        self.seen: list[str] = []
        self.overlay_made = False
        self.overlay_applied = False
        self.keys: dict[str, str] = {}
        self.connected: tuple[str, Connected] | None = None
        self.forwards = {
            "kfp": Forward(self.kubectl, "service/ml-pipeline", 8888),
            "s3": Forward(self.kubectl, "service/minio", 9000),
        }

    @property
    def stage_image(self) -> str:
        """The image of steps and trials."""
        return self.options.stage_image or manifest_image(STAGE)

    def say(self, line: str) -> None:
        """Print a line with the time."""
        print(time.strftime("%H:%M:%S ") + line, flush=True)

    def note(self, text: str) -> None:
        """Keep what was seen for the table."""
        self.seen.append(text)

    def undo(self, text: str, action: Callable[[], object]) -> None:
        """Have something done at the end, unless the user keeps what was made; what has a text already is done once."""
        if all(text != known for known, _ in self.made):
            self.made.append((text, action))

    def wait(self, what: str, look: Callable[[], T | None], *commands: str, timeout_s: float = 0, pods: Any = ()) -> T:
        """Wait as long as a run may take; a service that is away for a while is asked again. See ``wait_for``."""
        away = ""

        def look_again() -> T | None:
            nonlocal away
            try:
                return look()
            except (AccessError, AwayError, StoreError, HTTPError) as error:
                if str(error) != away:
                    self.say(f"away: {error}")
                away = str(error)
                return None

        timeout_s = timeout_s or self.options.run_timeout_s
        given: dict[str, Any] = {"timeout_s": timeout_s, "poll_s": self.options.poll_s, "say": self.say}
        return wait_for(what, look_again, **given, commands=commands, pods=pods)

    def access(self) -> Access:
        """Return how Kubeflow Pipelines is reached."""
        return Access(self.options.kfp_endpoint or f"http://{self.forwards['kfp'].address()}")

    def kfp(self) -> Connected:
        """Return a client of Kubeflow Pipelines; a new one when the port-forward is a new one."""
        access = self.access()
        if self.connected is None or self.connected[0] != access.endpoint:
            self.connected = (access.endpoint, connect(access))
        return self.connected[1]

    def store(self, uri: str) -> Store:
        """Return the object store at a URI, reached with the keys of the Secret."""
        if not self.keys:
            found = self.kubectl.get("secret", SECRET)
            if not found:
                raise CheckError(f"the Secret {SECRET} must be there, but is not", self.kubectl.typed("get", "secrets"))
            self.keys = {key: base64.b64decode(found["data"][key]).decode() for key in ("accesskey", "secretkey")}
        os.environ["MINIO_ENDPOINT"] = self.options.s3_endpoint or self.forwards["s3"].address()
        os.environ["MINIO_ACCESS_KEY"], os.environ["MINIO_SECRET_KEY"] = self.keys["accesskey"], self.keys["secretkey"]
        os.environ["MINIO_SECURE"] = "false"
        return open_store(uri)

    def place(self, name: str) -> str:
        """Return a URI of this session's own in the pipelines' bucket."""
        return f"minio://{BUCKET}/kondense-e2e/{self.stamp}/{name}"

    def clear(self, uri: str) -> None:
        """Delete everything at a URI."""
        store = self.store(uri)
        for key in store.list():
            store.delete(key)

    def delete_at_end(self, kind: str, name: str) -> None:
        """Have an object deleted at the end, all of a kind by one command."""
        self.objects.setdefault(kind, []).append(name)

    def clean_up(self) -> list[str]:
        """Take away what was made; return what did not go, a line each."""
        left = []
        for kind, names in self.objects.items():
            self.undo(f"{kind}: {', '.join(names)}", lambda kind=kind, names=names: self.kubectl.delete(kind, *names))
        self.objects = {}
        while self.made:
            text, action = self.made.pop()
            self.say(f"cleaning up: {text}")
            try:
                action()
            except Exception as error:  # whatever it is, the rest must go
                left.append(f"{text}: {type(error).__name__}: {error}")
        return left


@contextlib.contextmanager
def open_session(options: Options) -> Iterator[Session]:
    """Yield a session; what it set in the environment and started goes at the end."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    with tempfile.TemporaryDirectory(prefix="kondense-e2e-") as scratch:
        session = Session(options, Path(scratch))
        try:
            with stopped_at_end(list(session.forwards.values())):
                yield session
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
