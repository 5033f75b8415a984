"""Regular expressions as Katib's Go programs read them: the syntax of RE2, in time linear in the text."""

import re
from typing import Any

from kondense.errors import InputError

ONE_BYTE = re.compile(r"(?<!\\)(\\\\)*\\C")  # RE2 has it, Go has not


def compiled(expression: str) -> Any:
    r"""Return an expression with ``groups`` and ``finditer``, as Python's.

    POSIX classes, ``\pN``, ``\z``, ``(?U)`` and ``\Q...\E`` mean what they mean in Go; lookaround and references to a
    group, which Python alone has, are refused.

    Raises:
        InputError: Go does not take it.
    """
    import re2  # of the extra `run`, as the search is

    options = re2.Options()
    options.log_errors = False
    try:
        if ONE_BYTE.search(expression) and r"\Q" not in expression:
            raise re2.error(rb"\C is not in Go")
        return re2.compile(expression, options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise InputError(f"must be a regular expression of Go, but got {expression!r} ({reason}).") from None
