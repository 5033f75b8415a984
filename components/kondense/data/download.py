"""Fetch a data set from the network, with short time-outs: through torchvision, or as a Debian package."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kondense.errors import KondenseError

CONNECT_SECONDS = 5
TOTAL_SECONDS = 600
# In a process of its own: it can be stopped, and its socket time-out is nobody else's.
TORCHVISION = """
import socket, sys
socket.setdefaulttimeout(float(sys.argv[3]))
from torchvision import datasets
getattr(datasets, sys.argv[1])(sys.argv[2], download=True)
"""


class DownloadError(KondenseError, OSError):
    """A data set could not be fetched; the text is one line."""


def from_torchvision(name: str, folder: str, work: Path) -> Path:
    """Let torchvision download and verify its data set.

    Args:
        name: the class in torchvision.datasets.
        folder: where below its root that class puts the files.
        work: an empty directory.

    Returns:
        The directory below ``work`` that holds the files.

    Raises:
        DownloadError: there is no network, it is too slow, or a file has the wrong digest.
    """
    _run([sys.executable, "-c", TORCHVISION, name, str(work), str(CONNECT_SECONDS)], work)
    return work / folder


def from_debian(package: str, folder: str, work: Path) -> Path:
    """Fetch a Debian package from the archive that apt knows and unpack it without installing it; needs no root.

    Args:
        package: its name.
        folder: where it holds the files.
        work: an empty directory.

    Returns:
        The directory below ``work`` that holds the files.

    Raises:
        DownloadError: this is no Debian system, or the archive does not serve the package.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DownloadError(f"there is no {program}")
    timeout = f"Acquire::http::Timeout={CONNECT_SECONDS}"
    _run(["apt-get", "-o", timeout, "-o", "Acquire::Retries=0", "download", package], work)
    archive = next(work.glob(f"{package}_*.deb"), None)
    if archive is None:
        raise DownloadError(f"apt-get wrote no {package}_*.deb")
    _run(["dpkg-deb", "-x", archive.name, "."], work)
    return work / folder


def _run(command: Sequence[str], directory: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=directory, check=False, capture_output=True, text=True, errors="replace", timeout=TOTAL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise DownloadError(f"it took more than {TOTAL_SECONDS} seconds") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise DownloadError(lines[-1] if lines else f"exit code {done.returncode}")
