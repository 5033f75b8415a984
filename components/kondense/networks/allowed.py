"""Which networks outside of this package may be imported: those that the user names, never one that only a file names.

An artifact is data: its model.json may come from a bucket that others write. Importing a module runs its code, so the
name of a factory counts only where the user has given it, too: as the network of this very run, by ``--allow-network``
or by KONDENSE_ALLOW_NETWORK (names joined by commas; ``package.module:factory``, a module, or a package with all that
is in it). Stdlib only.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator

from kondense.errors import InputError

VARIABLE = "KONDENSE_ALLOW_NETWORK"


def is_imported(name: str) -> bool:
    """Tell whether a network's name means an import: ``package.module:factory``."""
    prefix, colon, rest = name.partition(":")
    return bool(prefix and colon and rest) and prefix not in ("torchvision", "timm")


def allowed_names() -> tuple[str, ...]:
    """Return the names that the user allows."""
    return tuple(filter(None, (name.strip() for name in os.environ.get(VARIABLE, "").split(","))))


def check_allowed(name: str) -> None:
    """Raise ValueError for a name in an artifact that the user has not given; nothing is imported."""
    if not is_imported(name):
        return
    if not any(name == each or name.startswith((f"{each}.", f"{each}:")) for each in allowed_names()):
        module = name.partition(":")[0]
        raise InputError(
            f"network {name!r} is named by the artifact alone, so its code is not imported: if you trust it, allow it"
            f" by --allow-network {module} or {VARIABLE}={module}."
        )


@contextlib.contextmanager
def allowing(*, networks: Iterable[str] = (), modules: Iterable[str] = ()) -> Iterator[None]:
    """Allow what the user has named, in this process and those that it starts in the block.

    Args:
        networks: names of networks; those that mean no import need no leave.
        modules: modules and packages.
    """
    before = os.environ.get(VARIABLE)
    wanted = [*allowed_names(), *filter(is_imported, networks), *modules]
    if wanted:
        os.environ[VARIABLE] = ",".join(dict.fromkeys(wanted))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
