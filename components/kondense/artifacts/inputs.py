"""What is said when a step's input artifact is not in the store any more."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kondense.files import ArtifactError

REMEDY = "run it again without the cache (kondense submit --no-cache, or untick the cache in the UI's form)"


@contextlib.contextmanager
def fetched(**artifacts: Any) -> Iterator[None]:
    """Name the remedy where the block fails because an input's files are gone.

    KFP knows a cached step's outputs by their addresses and never looks whether they are there; its launcher then
    fetches nothing and says nothing.

    Args:
        artifacts: the step's inputs by name, as KFP's executor gives them (``path`` and ``uri``), or None.

    Raises:
        ArtifactError: an input that the block missed is not there.
    """
    try:
        yield
    except (ArtifactError, FileNotFoundError) as error:
        for name, artifact in artifacts.items():
            if artifact and artifact.path in str(error) and is_empty(Path(artifact.path)):
                raise ArtifactError(
                    f"input {name} is gone: {REMEDY}. There is nothing at {artifact.uri}, where an earlier run put it."
                ) from error
        raise


def is_empty(directory: Path) -> bool:
    """Return whether a directory holds nothing, or is not there."""
    return not directory.is_dir() or not any(directory.iterdir())
