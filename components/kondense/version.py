"""Kondense's version and the revision of its source. Stdlib only: the wheel's build reads this file too."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

__version__ = "0.1.0"
REVISION_FILE = Path(__file__).with_name("revision.txt")  # written into wheels by hatch_build.py
ROOT = Path(__file__).parents[2]  # of a checkout
GIT = ("git", "describe", "--always", "--dirty", "--abbrev=12")
GIT_S = 10.0


def source_revision(
    *, environment: Mapping[str, str] = os.environ, revision_file: Path = REVISION_FILE, root: Path = ROOT
) -> str:
    """Return the source revision that an image, a wheel or a checkout states, in this order; empty if none does."""
    if revision := environment.get("KONDENSE_REVISION"):
        return revision
    if revision_file.exists():
        return revision_file.read_text(encoding="utf-8").strip()
    if not (root / ".git").exists():
        return ""
    try:
        return subprocess.run(GIT, cwd=root, capture_output=True, text=True, check=True, timeout=GIT_S).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, no commit, or a checkout of another user
        return ""


def version_text() -> str:
    """Return the line of ``kondense --version``."""
    return f"kondense {__version__} (source revision {source_revision() or 'unknown'})"
