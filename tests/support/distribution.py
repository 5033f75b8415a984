"""Another distribution with entry points, and a process that has it installed."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path


def make_distribution(directory: Path, files: Mapping[str, str], points: Mapping[str, Mapping[str, str]]) -> None:
    """Write the modules ``files`` and the entry points ``points``, by group and name, to ``directory``."""
    for name, text in files.items():
        (directory / name).write_text(textwrap.dedent(text))
    metadata = directory / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in one.items()) for group, one in points.items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(groups))


def run_python(program: str, *directories: Path) -> list[str]:
    """Return the lines that ``program`` prints in a process with ``directories`` on its path."""
    paths = [*map(str, directories), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
