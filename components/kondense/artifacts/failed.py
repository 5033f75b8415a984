"""What stands in the place of a model that could not be made: failed.json, with the step and the reason. Stdlib only.

The candidates of a run are independent. KFP stops a graph at its first failed task, and no task can take what a failed
one would have written, so a candidate's step that fails writes this file as its output and ends well; the steps after
it pass the file on, and the report tells it. The last step of the pipeline, ``verdict``, then ends the run with an
error. Troubles of the machine (``is_trouble``) are raised as ever: the step may succeed when it is tried again.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NotRequired, TypedDict

from kondense.artifacts.schema import check_fields
from kondense.errors import EXPECTED
from kondense.failure import one_line
from kondense.files import new_directory, read_json, write_json

FORMAT_VERSION = 1
FAILED = "failed.json"
VARIABLE = "KONDENSE_INDEPENDENT"  # set for the steps of candidates: a failure is theirs alone


class Failed(TypedDict):
    """Why a candidate has no model.

    Attributes:
        name: of the candidate; "" before its evaluation.
        step: the stage that failed.
        reason: one line.
        passed_on: whether an earlier step failed, and this one did nothing.
    """

    name: str
    step: str
    reason: str
    passed_on: NotRequired[bool]


def is_independent() -> bool:
    """Return whether a failure of this step must not end the run."""
    return os.environ.get(VARIABLE, "") == "1"


def is_trouble(error: BaseException) -> bool:
    """Return whether an error says nothing about the candidate: the disk, the network, the store, the memory."""
    return isinstance(error, OSError | MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's


def reason_of(error: BaseException) -> str:
    """Return an error as one line; the type of an unexpected one comes first."""
    return one_line(error) if isinstance(error, EXPECTED) else f"{type(error).__name__}: {one_line(error)}"


def write_failed(directory: Path, failed: Failed) -> None:
    """Write the file as the only content of an artifact's directory."""
    with new_directory(directory) as scratch:
        write_json(scratch / FAILED, {"format_version": FORMAT_VERSION, **failed})


def read_failed(directory: Path) -> Failed | None:
    """Return why there is no model in ``directory``; None if there may be one."""
    path = directory / FAILED
    if not path.is_file():
        return None
    content = read_json(path, format_version=FORMAT_VERSION)
    check_fields(str(path), content, Failed)
    return {
        "name": content["name"],
        "step": content["step"],
        "reason": content["reason"],
        "passed_on": content.get("passed_on", False),
    }


def first_failed(directories: Iterable[Path]) -> Failed | None:
    """Return the first failure among artifacts."""
    return next(filter(None, map(read_failed, directories)), None)
