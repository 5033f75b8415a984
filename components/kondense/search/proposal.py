"""What a suggester answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Proposal:
    """One trial to run.

    Args:
        name: the trial's name; carries bracket, rung and configuration.
        assignments: every parameter of the experiment as Katib's string.
        labels: for people (`kubectl get trials -L bracket,rung`); never read back.
    """

    name: str
    assignments: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggestion:
    """The reply to one request.

    Args:
        proposals: exactly as many as were asked for.
        settings: algorithm settings to store and to send with the next request (the ledger).
    """

    proposals: tuple[Proposal, ...]
    settings: Mapping[str, str]
