"""The networks that may be imported: those that the user names, never one that only an artifact names.

An artifact is data: its model.json may come from a bucket that others write to. Importing a module runs its code, so a
factory of ``package.module:factory`` is imported only if the user names it too: as the network of this run, by
``--allow-network``, or in KONDENSE_ALLOW_NETWORK (separated by commas; ``package.module:factory``, a module, or a
package with all its modules). Built-in networks, those of torchvision and timm and those that an installed distribution
registers need no permission. Stdlib only.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator

from kondense.errors import InputError
from kondense.networks.names import LIBRARIES

VARIABLE = "KONDENSE_ALLOW_NETWORK"


def is_imported(name: str) -> bool:
    """Return whether a network's name means an import: ``package.module:factory``."""
    prefix, colon, rest = name.partition(":")
    return bool(prefix and colon and rest) and prefix not in LIBRARIES


def allowed_names() -> tuple[str, ...]:
    """Return the names that the user allows."""
    return tuple(filter(None, (name.strip() for name in os.environ.get(VARIABLE, "").split(","))))


def check_allowed(name: str) -> None:
    """Raise InputError for a name in an artifact that the user has not allowed; imports nothing."""
    if not is_imported(name):
        return
    if not any(name == one or name.startswith((f"{one}.", f"{one}:")) for one in allowed_names()):
        module = name.partition(":")[0]
        raise InputError(
            f"network {name!r} is named by the artifact alone, so its code is not imported; if you trust it, allow it"
            f" with --allow-network {module} or {VARIABLE}={module}."
        )


@contextlib.contextmanager
def allowing(*, networks: Iterable[str] = (), modules: Iterable[str] = ()) -> Iterator[None]:
    """Allow what the user has named, in the block, in this process and in those that it starts.

    Args:
        networks: names of networks; those without an import are ignored.
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
