"""A search and a run of it whose trials have ended."""

from typing import Any

from kondense.search.run import Run, Search
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester

SPACE = SearchSpace((Parameter("lr", "double", 0.1, 0.9), Parameter("epochs", "int", 1, 9)))


def make_run(*finished: tuple[Any, ...], resource_name: str = "", **changes: Any) -> Run:
    """Return a run whose trials ended as (status, value) or (status, value, epochs)."""
    algorithm = "hyperband" if resource_name else "random"
    settings = {"resource_name": resource_name} if resource_name else {"random_state": "3"}
    search = {"name": "example", "metric": "loss", "settings": settings, "max_trials": 6, "max_failed": 6} | changes
    run = Run(Search(algorithm=algorithm, suggester=load_suggester(algorithm), space=SPACE, **search))
    for index, (status, value, *epochs) in enumerate(finished):
        name, assignments = f"t{index}", {"lr": "0.5", "epochs": str(epochs[0]) if epochs else "1"}
        run.apply({"event": "suggested", "trials": [{"name": name, "assignments": assignments}], "settings": {}})
        run.apply({"event": "started", "name": name, "time": 10.0})
        event = {"event": "finished", "name": name, "status": status, "reason": "", "value": value, "time": 12.5}
        run.apply(event)
    return run
