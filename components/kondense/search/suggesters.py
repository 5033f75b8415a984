"""The search methods by their algorithm name in Katib."""

from collections.abc import Mapping
from typing import Protocol

from kondense.search import bohb, grid, hyperband, random_search, tpe
from kondense.search.history import History
from kondense.search.proposal import Proposal, Suggestion
from kondense.search.space import SearchSpace

__all__ = ["SUGGESTERS", "Proposal", "Suggester", "Suggestion"]


class Suggester(Protocol):
    """A search method: a module with these functions, all pure."""

    def validate(
        self,
        space: SearchSpace,
        settings: Mapping[str, str],
        *,
        max_trial_count: int | None = None,
        parallel_trial_count: int | None = None,
    ) -> None:
        """Raise a ValueError that gives rule and value if the experiment breaks a rule."""

    def planned_trials(self, settings: Mapping[str, str], space: SearchSpace) -> int | None:
        """Return the number of trials after which the method is through; None if it has no end."""

    def suggest(
        self, space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int
    ) -> Suggestion:
        """Return exactly `count` proposals, the same for the same arguments in every process."""


SUGGESTERS: dict[str, Suggester] = {
    "random": random_search,
    "grid": grid,
    "tpe": tpe,
    "hyperband": hyperband,
    "bohb": bohb,
}
