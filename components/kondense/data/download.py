"""Download a data set, with short time-outs: through torchvision, or as a Debian package."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kondense.errors import KondenseError

CONNECT_SECONDS = 5
TOTAL_SECONDS = 600
# In a separate process, which can be stopped and has its own socket time-out.
TORCHVISION = """
import socket, sys
socket.setdefaulttimeout(float(sys.argv[3]))
from torchvision import datasets
getattr(datasets, sys.argv[1])(sys.argv[2], download=True)
"""


class DownloadError(KondenseError, OSError):
    """A data set could not be downloaded; the text is one line."""


def from_torchvision(name: str, folder: str, work: Path) -> Path:
    """Download and verify a data set of torchvision.

    Args:
        name: the class in torchvision.datasets.
        folder: the folder below its root in which the class writes the files.
        work: an empty directory.

    Returns:
        The directory below ``work`` that holds the files.

    Raises:
        DownloadError: no network, a time-out, or a file with a wrong digest.
    """
    _run([sys.executable, "-P", "-c", TORCHVISION, name, str(work), str(CONNECT_SECONDS)], work)
    return work / folder


def from_debian(package: str, folder: str, work: Path) -> Path:
    """Download a Debian package with apt and unpack it without installation; needs no root.

    Args:
        package: name of the package.
        folder: the folder of the files in the package.
        work: an empty directory.

    Returns:
        The directory below ``work`` that holds the files.

    Raises:
        DownloadError: this is not a Debian system, or the archive does not have the package.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DownloadError(f"{program} is not installed")
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
