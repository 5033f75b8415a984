"""Our suggesters, driven as Katib drives them: through names, settings and reported trials alone."""

from collections.abc import Mapping

from kondense.search.history import History, Status, Trial
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester

from benchmarks.search.problems import RESOURCE, Problem


class Ours:
    """One of our suggesters as an optimizer that asks for one evaluation at a time."""

    def __init__(self, method: str, problem: Problem, seed: int, settings: Mapping[str, str] | None = None) -> None:
        self.suggester, self.seed = load_suggester(method), seed
        self.full_resource = problem.max_resource
        self.space, self.settings = problem.space, dict(settings or {})
        if method in ("hyperband", "bohb"):
            resource = Parameter(RESOURCE, "int", problem.min_resource, problem.max_resource)
            self.space = SearchSpace((*self.space.parameters, resource))
            self.settings["resource_name"] = RESOURCE
        self.suggester.validate(self.space, self.settings)
        self.trials: list[Trial] = []
        self.issued = ""

    def ask(self) -> tuple[Mapping[str, str], int]:
        history = History(tuple(self.trials), self.issued, "minimize", "benchmark")
        suggestion = self.suggester.suggest(self.space, self.settings, self.seed, history, 1)
        self.issued = suggestion.settings["issued"]
        self.asked = suggestion.proposals[0]
        return self.asked.assignments, int(self.asked.assignments.get(RESOURCE, self.full_resource))

    def tell(self, loss: float) -> None:
        self.trials.append(Trial(self.asked.name, self.asked.assignments, Status.SUCCEEDED, loss))

    def close(self) -> None:
        pass
