"""Modules that run as ``python -m`` does in a process forked from a warm one, for tests of what they do.

A process that imports torch, torchvision and onnx anew takes some five seconds of a processor.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from kondense_pipelines.local.warm import READ_AT_IMPORT, WarmServer


class Warm:
    """Runs modules; what they print, errors too, is the result's ``stdout``."""

    def __init__(self, server: WarmServer) -> None:
        self.server = server

    def run(self, argv: Sequence[str], environment: Mapping[str, str]) -> CompletedProcess[str]:
        """Run the module ``argv[0]`` in the current directory with its arguments and variables."""
        # What libraries read at import is the server's, which is the tests'.
        kept = {name: value for name, value in self.server.environment.items() if name.startswith(READ_AT_IMPORT)}
        with tempfile.TemporaryFile() as output:
            stage = self.server.start(argv, {**kept, **environment}, output.fileno())
            code = stage.wait()
            output.seek(0)
            return CompletedProcess(list(argv), code, output.read().decode())


@contextmanager
def warm(directory: Path) -> Iterator[Warm]:
    """Provide ``Warm`` with a server whose log lies in ``directory``."""
    repository = Path(__file__).parents[2]
    places = os.pathsep.join(str(repository / name) for name in ("components", "pipelines"))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{places}{os.pathsep}{before}" if before else places
    try:
        with (directory / "server.log").open("w") as log, WarmServer(log) as server:
            yield Warm(server)
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
