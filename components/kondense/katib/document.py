"""The search in an Experiment document: one reader for the suggestion service, the search step and local runs."""

import math
from collections.abc import Mapping
from typing import Any

from kondense.errors import InputError
from kondense.search.goals import OBJECTIVES, check_reported, read_goals
from kondense.search.ledger import SETTING
from kondense.search.run import Search
from kondense.search.space import SearchSpace
from kondense.search.stopping import PROMOTED
from kondense.search.suggesters import is_multi_fidelity, load_suggester

LONGEST_SETTING = 2**20  # characters


def read_search(document: Mapping[str, Any]) -> Search:
    """Return the search of an Experiment document.

    Args:
        document: `metadata.name` and `spec` in the form of Katib's YAML, with the algorithm and the parameters.

    Raises:
        ValueError: the algorithm, a parameter or a setting breaks a rule; the text gives the rule and the value.
    """
    spec = document["spec"]
    objective, target = spec.get("objective") or {}, (spec.get("objective") or {}).get("goal")
    algorithm = spec["algorithm"].get("algorithmName", "")
    suggester = load_suggester(algorithm)
    _check_stopping((spec.get("earlyStopping") or {}).get("algorithmName"), algorithm, settings_of(spec))
    settings, metric, goal = (
        settings_of(spec),
        objective.get("objectiveMetricName", ""),
        objective.get("type", "minimize"),
    )
    reported = [metric, *(objective.get("additionalMetricNames") or [])]
    check_reported(read_goals(settings, metric, goal), reported)
    return Search(
        name=(document.get("metadata") or {}).get("name", ""),
        algorithm=algorithm,
        suggester=suggester,
        space=SearchSpace.from_katib(spec.get("parameters") or [], settings),
        settings=settings,
        metric=metric,
        goal=goal,
        target=None if target is None or not math.isfinite(target) else float(target),
        max_trials=spec.get("maxTrialCount"),
        max_failed=spec.get("maxFailedTrialCount"),
        parallel=spec.get("parallelTrialCount"),
    )


def _check_stopping(stopping: str | None, algorithm: str, settings: Mapping[str, str]) -> None:
    """Refuse an early stopping that compares what does not compare.

    Raises:
        ValueError: the rule and the value.
    """
    if stopping is None:
        return
    if is_multi_fidelity(algorithm) and stopping not in PROMOTED:
        # Median stopping compares trials of different resources with each other.
        raise InputError(
            f"earlyStopping must be absent with {algorithm}, which stops trials itself, but got {stopping!r}."
        )
    if stopping in PROMOTED and settings.get(OBJECTIVES):
        # A trial that is the best in nothing of which it has a curve may still be on the front.
        raise InputError(f"earlyStopping {stopping} must have one objective, but got {settings[OBJECTIVES]!r} besides.")


def settings_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the algorithm's settings by name.

    Raises:
        ValueError: a text other than the ledger is longer than any that a person writes.
    """
    entries = spec["algorithm"].get("algorithmSettings") or []
    settings = {entry.get("name", ""): str(entry.get("value", "")) for entry in entries}
    for name, text in settings.items():
        if len(text) > LONGEST_SETTING and name != SETTING:
            count = f"{LONGEST_SETTING:,} characters, but has {len(text):,}"
            raise InputError(f"setting {name[:80]} must have at most {count}.")
    return settings
