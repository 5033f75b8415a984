"""The options --map and --command of a local search."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from kondense.errors import InputError
from kondense.katib.template import LocalChanges


def read_changes(maps: Sequence[str], command: str) -> LocalChanges:
    """Return what replaces the image's paths and command.

    Args:
        maps: IMAGE-PATH=LOCAL-PATH each.
        command: words as in a shell; empty keeps the template's.

    Raises:
        InputError: one has another form, or its local path does not exist.
    """
    pairs: dict[str, str] = {}
    for text in maps:
        path, sign, local = text.partition("=")
        if not sign or not path.startswith("/") or not local:
            raise InputError(f"--map must be IMAGE-PATH=LOCAL-PATH with an absolute IMAGE-PATH, but got {text!r}.")
        if path.rstrip("/") in pairs:
            raise InputError(f"--map must name a path once, but names {path} twice.")
        if not Path(local).absolute().parent.exists():
            raise InputError(f"--map must name a LOCAL-PATH in a directory that exists, but got {local!r}.")
        pairs[path.rstrip("/")] = local
    try:
        return LocalChanges(dict(sorted(pairs.items(), key=lambda pair: -len(pair[0]))), tuple(shlex.split(command)))
    except ValueError as error:
        raise InputError(f"--command must be words as in a shell, but got {command!r} ({error}).") from None
