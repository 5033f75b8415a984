"""What a scenario raises when the cluster is not as it should be, and how it waits."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class CheckError(Exception):
    """A check that did not hold.

    Attributes:
        look: commands that show more, as a user types them.
        pods: label selectors of the pods concerned.
    """

    def __init__(self, text: str, *look: str, pods: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.look = look
        self.pods = tuple(pods)


class AwayError(OSError):
    """Something that may come back does not answer."""


def check(holds: object, text: str, *look: str, pods: Sequence[str] = ()) -> None:
    """Raise CheckError unless ``holds``."""
    if not holds:
        raise CheckError(text, *look, pods=pods)


def wait_for(  # noqa: PLR0913
    what: str,
    look: Callable[[], T | None],
    *,
    timeout_s: float,
    poll_s: float,
    say: Callable[[str], None],
    commands: Sequence[str] = (),
    pods: Sequence[str] = (),
) -> T:
    """Look again and again until ``look`` returns something true, and return it.

    Args:
        what: is waited for; said once.
        look: may raise CheckError when it can never come.
        timeout_s: after this many seconds CheckError is raised.
        poll_s: between two looks.
        say: takes a line.
        commands: of the CheckError.
        pods: of the CheckError.
    """
    deadline_s = time.monotonic() + timeout_s
    told = False
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise CheckError(f"{what}: not within {timeout_s:g} s", *commands, pods=pods)
        if not told:
            say(f"waiting for {what}")
            told = True
        time.sleep(poll_s)
    return found
