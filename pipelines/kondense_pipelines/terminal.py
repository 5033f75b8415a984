"""Texts that others have written, on a terminal: neither rich's markup nor control characters in them count."""

from kondense.printable import printable
from rich.markup import escape


def plain(text: object) -> str:
    """Return the markup that shows ``text`` as it is, with control characters as escapes."""
    return escape(printable(str(text)))
