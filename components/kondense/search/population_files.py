"""The files of a population's trials: one directory each, which starts as a copy of its parent's."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from kondense.errors import InputError
from kondense.files import copy_directory
from kondense.removal import remove_directory
from kondense.search.history import Proposal
from kondense.search.pbt import PARENT

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # of a Kubernetes object: no path leads out of the directory


def provide(directory: Path, proposals: Iterable[Proposal]) -> None:
    """Make the directory of every proposed trial; one that is there stays as it is.

    Args:
        directory: of the experiment.
        proposals: the label PARENT of each names the trial whose files it continues.

    Raises:
        InputError: a name is not one of Kubernetes.
        OSError: the directory cannot be written.
    """
    for proposal in proposals:
        provide_one(directory, proposal.name, proposal.labels.get(PARENT, ""))


def provide_one(directory: Path, name: str, parent: str) -> Path:
    """Make the directory of one trial, as a copy of its parent's if that exists; errors as in `provide`."""
    for text in (directory.name, name, *([parent] if parent else [])):
        if not NAME.fullmatch(text):
            raise InputError(f"the name of a directory of trials must be a Kubernetes name, but got {text!r}.")
    target = directory / name
    if target.exists():
        return target
    copy = directory / f"{name}.partial"  # a kill leaves no half directory under the trial's name
    if copy.exists():
        remove_directory(copy)
    if parent and (directory / parent).is_dir():
        copy_directory(directory / parent, copy)
    else:
        copy.mkdir(parents=True)
    os.replace(copy, target)
    return target
