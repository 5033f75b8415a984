"""The errors that Kondense raises on purpose; their texts give the rule and the value. Any other exception is a bug.

A command prints them in one line and exits with ``exit_code``: 1 failed, 2 bad input, 3 written but short of the
request. A bug keeps its traceback and exits with 1. Errors of the operating system (OSError), such as a full disk, are
expected too.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

EXTRAS = {  # module -> the extra of the distribution that installs it
    "docker": "run",
    "kfp": "run",
    "kfp.kubernetes": "cluster",
    "kubernetes": "run",
    "re2": "run",
    "minio": "run",
    "urllib3": "run",
    "grpc": "katib",
    "grpc_health": "katib",
    "kubeflow": "katib",
}


NEAR = 0.75  # difflib's ratio of a slip and the name that was meant; gpu and cpu have 0.67, local and global 0.73
LONGEST_LINE = 4000  # characters of a line of a text; the names of all parameters take half of them


class KondenseError(Exception):
    """The base of these errors. Of a text that quotes a long value, both ends of each line are shown."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the text."""
        return "\n".join(map(_shown, super().__str__().split("\n")))


class InputError(KondenseError, ValueError):
    """An input, a parameter or a file breaks a rule."""

    exit_code = 2


class ShortfallError(KondenseError, ValueError):
    """The model is written, but only approximates the request."""

    exit_code = 3


class MissingExtraError(KondenseError, ImportError):
    """A package is missing that an extra of the distribution installs."""


EXPECTED = (KondenseError, OSError)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a command that ends with ``error``, one of ``EXPECTED``."""
    return error.exit_code if isinstance(error, KondenseError) else 1


def _shown(line: str) -> str:
    half = LONGEST_LINE // 2 - len(" ... ")
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


def meant(given: object, known: Iterable[object]) -> str:
    """Return the question whether the name of ``known`` was meant that is nearest to ``given``, "" if none is near.

    The upper and lower case of letters does not count. It goes before the full stop of an error's text.
    """
    names = {str(name).casefold(): str(name) for name in known}
    near = difflib.get_close_matches(str(given).casefold(), names, n=1, cutoff=NEAR)
    return f" (did you mean {names[near[0]]}?)" if near else ""


@contextlib.contextmanager
def extras_named() -> Iterator[None]:
    """Raise MissingExtraError, which names the extra, if an import in the block fails for want of one."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = EXTRAS[error.name]
        raise MissingExtraError(
            f"the module {error.name} must be installed, but is not: pip install 'kondense[{extra}]'."
        ) from error
