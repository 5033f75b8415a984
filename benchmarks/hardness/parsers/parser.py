"""A parser and its inputs."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

Read = Callable[[bytes, Path], object]
REPOSITORY = Path(__file__).resolve().parents[3]
SIDE = 8  # pixels of images


@dataclasses.dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes:
        name: in the table.
        kind: of the mutations, see ``mutators``.
        make: returns valid samples; it may write into the scratch directory that ``read`` gets too.
        read: reads one input.
        share: its part of all inputs, against that of the others.
        allowance: bytes that it may take beside those of the rule, as a parameter of its allows.
    """

    name: str
    kind: str
    make: Callable[[Path], Sequence[bytes]]
    read: Read
    share: float = 1.0
    allowance: int = 0


def as_json(*values: object) -> list[bytes]:
    """Return each value as JSON."""
    return [json.dumps(value).encode() for value in values]


def written(name: str, read: Callable[[Path], object]) -> Read:
    """Return a reader of a file of this name in the scratch directory."""

    def run(content: bytes, scratch: Path) -> object:
        path = scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return read(path)

    return run
