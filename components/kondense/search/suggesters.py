"""The suggesters by their algorithm name in Katib.

A suggester of our own is a module of this package with a literal METHOD; others come under the entry point group
`kondense.suggesters` (`package.module` or `package.module:object`), or as an object through `kd.search`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from kondense.errors import InputError, meant
from kondense.methods import Method, Methods

if TYPE_CHECKING:  # they import NumPy, which the names of the algorithms do not need
    from kondense.search.history import History, Suggestion
    from kondense.search.space import SearchSpace

MULTI_FIDELITY = "multi-fidelity"  # the kind of a suggester that needs a resource; the other kind is single-fidelity
SUGGESTERS = Methods("kondense.search", group="kondense.suggesters", describe=lambda name, loaded: loaded.METHOD)


class Suggester(Protocol):
    """A module or an object with these pure functions; it keeps no state, everything comes with each request.

    Attributes:
        METHOD: `name`, `kind` (`single-fidelity`, or `multi-fidelity` for one that needs a resource) and `summary`;
            `repeats` is true where a configuration may be issued again in another bracket.
    """

    METHOD: Mapping[str, Any]

    def validate(
        self,
        space: "SearchSpace",
        settings: Mapping[str, str],
        *,
        max_trial_count: int | None = None,
        parallel_trial_count: int | None = None,
    ) -> None:
        """Raise a ValueError of one line, giving rule and value, if the experiment breaks a rule."""

    def planned_trials(self, settings: Mapping[str, str], space: "SearchSpace") -> int | None:
        """Return the number of trials that complete the search; None if there is no such number."""

    def suggest(
        self, space: "SearchSpace", settings: Mapping[str, str], seed: int, history: "History", count: int
    ) -> "Suggestion":
        """Return exactly `count` proposals, the same for the same arguments in every process.

        `ExperimentState(history).issue(count, draw)` names the trials and keeps the ledger.
        """


def load_suggester(name: str) -> Suggester:
    """Return the suggester of a name.

    Raises:
        ValueError: no suggester has this name (those that exist are listed), or it cannot be imported.
    """
    return cast(Suggester, _known(name).load())


def is_multi_fidelity(name: str) -> bool:
    """Return whether a suggester trains configurations with growing amounts of a resource.

    Raises:
        ValueError: no suggester has this name.
    """
    return _known(name).kind == MULTI_FIDELITY


def _known(name: str) -> Method:
    if name not in SUGGESTERS:
        raise InputError(
            f"algorithm must be one of {', '.join(SUGGESTERS)}, but got {name!r}{meant(name, SUGGESTERS)}."
        )
    return SUGGESTERS[name]
