"""Every error that Kondense raises on purpose. Their texts give the rule and the value; all else is a bug.

A command tells them in one line and exits with ``exit_code``: 1 failed, 2 bad input, 3 written but short of what was
asked. Any other exception keeps its traceback, except the operating system's (OSError), such as a full disk.
"""


class KondenseError(Exception):
    """The base of all of them."""

    exit_code = 1


class InputError(KondenseError, ValueError):
    """An input, a parameter or a file breaks a rule."""

    exit_code = 2


class ShortfallError(KondenseError, ValueError):
    """The model is written, but it is only the closest to what was asked for."""

    exit_code = 3


EXPECTED = (KondenseError, OSError)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a command that ends with ``error``, one of ``EXPECTED``."""
    return error.exit_code if isinstance(error, KondenseError) else 1
