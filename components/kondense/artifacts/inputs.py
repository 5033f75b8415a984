"""The error of a step whose input artifact is no longer in the store."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kondense.files import ArtifactError

REMEDY = "run it again without the cache (kondense submit --no-cache, or untick the cache in the UI's form)"


@contextlib.contextmanager
def fetched(**artifacts: Any) -> Iterator[None]:
    """Name the remedy if the block fails because an input's files are missing.

    KFP knows a cached step's outputs by their addresses and never checks that they exist; its launcher then fetches
    nothing and reports nothing.

    Args:
        artifacts: the step's inputs by name, as KFP's executor gives them (``path`` and ``uri``), or None.

    Raises:
        ArtifactError: an input that the block needs does not exist.
    """
    try:
        yield
    except (ArtifactError, FileNotFoundError) as error:
        for name, artifact in artifacts.items():
            if artifact and artifact.path in str(error) and is_empty(Path(artifact.path)):
                raise ArtifactError(
                    f"input {name} is gone: {REMEDY}. There is nothing at {artifact.uri}, where an earlier run wrote"
                    " it."
                ) from error
        raise


def is_empty(directory: Path) -> bool:
    """Return whether a directory has no files, or does not exist."""
    return not directory.is_dir() or not any(directory.iterdir())
