"""Directories are removed however deep they are. Stdlib only."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path


def remove_directory(directory: Path, *, ignore_errors: bool = False) -> None:
    """Remove a directory with all that is in it; links are not followed.

    Unlike shutil's rmtree it has no limit of folders in each other. Whoever can write to a folder can make them.

    Raises:
        OSError: something cannot be removed, and ``ignore_errors`` is not set.
    """
    try:
        shutil.rmtree(directory, ignore_errors=ignore_errors)
    except RecursionError:
        with contextlib.suppress(*([OSError] if ignore_errors else [])):
            _remove_deep(directory)


def _remove_deep(directory: Path) -> None:
    """Move what is in the inner folders into the outermost until that has no folders."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    outer = os.open(directory, flags)
    try:
        while names := os.listdir(outer):
            for name in names:
                try:
                    os.unlink(name, dir_fd=outer)
                except IsADirectoryError:
                    inner = os.open(name, flags, dir_fd=outer)
                    try:
                        for entry in os.listdir(inner):
                            os.rename(entry, secrets.token_hex(8), src_dir_fd=inner, dst_dir_fd=outer)
                    finally:
                        os.close(inner)
                    os.rmdir(name, dir_fd=outer)
    finally:
        os.close(outer)
    os.rmdir(directory)
