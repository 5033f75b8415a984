"""The ledger of issued trials, and trial names.

A controller drops trials (one without metrics is never reported again) and returns neither labels nor order, only the
trial names and the settings of the last reply. So a trial's identity is its name,
`<experiment>-b<bracket>r<rung>c<config>-<digest>`, and the ledger of all names is one setting. Its text has about 40 kB
for 10,000 trials: brackets separated by `;`, each with the digests of its configurations (4 characters each), then for
each higher rung `/` and the promoted configurations, as in `q83nAAECKjod/0,2/2;EjRW`.
"""

import base64
import binascii
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kondense.errors import InputError

CACHED = 512  # brackets whose parsed part of the ledger is cached; a cycle has a few
SETTING = "issued"  # the algorithm setting that holds the ledger
NAME = re.compile(r"(.+)-b(\d+)r(\d+)c(\d+)-([0-9a-f]{6})")


@dataclass(frozen=True)
class Identity:
    """A trial's bracket, rung and configuration.

    Args:
        bracket: counted from 0 in order of their start; a search without brackets has only bracket 0.
        rung: counted from 0 within the bracket.
        config: counted from 0 within the bracket; a promoted configuration keeps its number.
        digest: of the configuration without its resource, 6 hexadecimal digits; the same in every rung.
    """

    bracket: int
    rung: int
    config: int
    digest: str

    def name(self, experiment: str) -> str:
        """Return the trial's name: at most 63 characters for an experiment's name of up to 40."""
        return f"{experiment}-b{self.bracket}r{self.rung}c{self.config}-{self.digest}"

    def labels(self) -> dict[str, str]:
        """Return Kubernetes labels that show the identity to people."""
        return {"bracket": str(self.bracket), "rung": str(self.rung), "config": str(self.config)}


def identity(name: str) -> Identity | None:
    """Return the identity in a trial's name; None if no suggester of ours made the name."""
    match = NAME.fullmatch(name)
    return Identity(int(match[2]), int(match[3]), int(match[4]), match[5]) if match else None


def digest(assignments: Mapping[str, str], resource_name: str | None = None) -> str:
    """Return 6 hexadecimal digits that identify a configuration without its resource."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(assignments.items()) if name != resource_name)
    return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()


class Ledger:
    """All issued trials.

    Attributes:
        digests: of each bracket's configurations, in order.
        promoted: of each bracket, for each rung above the lowest, the configurations issued there, in order of issue.
    """

    def __init__(self, text: str = "") -> None:
        """Read the setting's text.

        Raises:
            ValueError: the text is not a ledger.
        """
        self.digests: list[Sequence[str]] = []
        self.promoted: list[Sequence[Sequence[int]]] = []
        self._texts = text.split(";") if text else []
        self._changed: set[int] = set()
        self._open: dict[int, tuple[list[str], list[list[int]]]] = {}
        for number, part in enumerate(self._texts):
            # Only the last bracket changes often: the others' parts are cached.
            digests, promoted = (_read_once if number + 1 < len(self._texts) else _read)(part)
            self.digests.append(digests)
            self.promoted.append(promoted)
        self.known = set().union(*self.digests)

    def closed(self, bracket: int) -> str | None:
        """Return a bracket's part of the text; None of the last one, and of one that was changed since it was read."""
        last = bracket + 1 == len(self._texts)
        return None if last or bracket in self._changed else self._texts[bracket]

    def names(self, experiment: str, bracket: int) -> tuple[tuple[str, ...], ...]:
        """Return the names of the trials issued in each rung of a bracket, in order of issue."""
        digests = self.digests[bracket]
        rungs = [tuple(f"{experiment}-b{bracket}r0c{config}-{digest}" for config, digest in enumerate(digests))]
        for level, configs in enumerate(self.promoted[bracket], start=1):
            rungs.append(tuple(f"{experiment}-b{bracket}r{level}c{config}-{digests[config]}" for config in configs))
        return tuple(rungs)

    def text(self) -> str:
        """Return the setting's text."""
        for bracket in self._changed:
            packed = bytes.fromhex("".join(self.digests[bracket]))
            higher = (",".join(map(str, rung)) for rung in self.promoted[bracket])
            self._texts[bracket] = "/".join([base64.b64encode(packed, altchars=b"-_").decode(), *higher])
        self._changed.clear()
        return ";".join(self._texts)

    def issued(self, bracket: int) -> list[Sequence[int]]:
        """Return the configurations issued in each rung of a bracket."""
        return [range(len(self.digests[bracket])), *map(tuple, self.promoted[bracket])]

    def start_bracket(self) -> None:
        """Open the next bracket."""
        self.digests.append(())
        self.promoted.append(())
        self._texts.append("")

    def add(self, bracket: int, assignments: Mapping[str, str], resource_name: str | None = None) -> Identity:
        """Add a new configuration to the lowest rung of a bracket."""
        value = digest(assignments, resource_name)
        digests, _ = self._change(bracket)
        digests.append(value)
        self.known.add(value)
        return Identity(bracket, 0, len(digests) - 1, value)

    def promote(self, bracket: int, rung: int, config: int) -> Identity:
        """Add a configuration of a bracket to a rung above its lowest."""
        _, promoted = self._change(bracket)
        while len(promoted) < rung:
            promoted.append([])
        promoted[rung - 1].append(config)
        return Identity(bracket, rung, config, self.digests[bracket][config])

    def _change(self, bracket: int) -> tuple[list[str], list[list[int]]]:
        """Return a bracket's digests and promoted configurations for changes: ledgers share those that were read."""
        digests, promoted = self._open.get(bracket, (None, None))
        if digests is None or promoted is None:
            digests, promoted = list(self.digests[bracket]), list(map(list, self.promoted[bracket]))
            self._open[bracket] = self.digests[bracket], self.promoted[bracket] = digests, promoted
        self._changed.add(bracket)
        return digests, promoted


def _read(part: str) -> tuple[Sequence[str], Sequence[Sequence[int]]]:
    """Return a bracket's digests, and the configurations promoted into each rung above the lowest."""
    first, *higher = part.split("/")
    try:
        packed = base64.b64decode(first, altchars=b"-_", validate=True).hex()
        promoted = [tuple(map(int, rung.split(","))) for rung in higher]
        wrong = any(max(rung) * 6 >= len(packed) for rung in promoted)
    except (binascii.Error, ValueError):
        wrong = True
    if wrong:
        raise InputError(f"setting {SETTING} must be a ledger of trials, but has the part {part[:80]!r}.")
    return tuple(packed[i : i + 6] for i in range(0, len(packed), 6)), tuple(promoted)


@functools.lru_cache(maxsize=CACHED)
def _read_once(part: str) -> tuple[Sequence[str], Sequence[Sequence[int]]]:
    return _read(part)
