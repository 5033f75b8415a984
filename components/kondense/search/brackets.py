"""The brackets of Hyperband, in integer arithmetic.

Source: Li et al., Hyperband, JMLR 18 (2018), Algorithm 1 and Table 1.
"""

from dataclasses import dataclass
from functools import cached_property

from kondense.errors import InputError

SIZES = ("ceil", "floor")


@dataclass(frozen=True)
class Bracket:
    """One run of successive halving.

    Args:
        sizes: configurations in each rung, falling.
        resources: resource of each rung, rising.
    """

    sizes: tuple[int, ...]
    resources: tuple[int, ...]


@dataclass(frozen=True)
class BracketPlan:
    """The cycle of brackets, the widest (most configurations, smallest resource) first.

    Args:
        min_resource: minimum resource of a trial.
        max_resource: resource of the highest rung of every bracket; the paper's R is max_resource / min_resource.
        eta: one of this many configurations is promoted, at this many times the resource.
        sizes: `ceil` is Algorithm 1 (81, 34, 15, 8, 5 configurations for R = 81, eta = 3); `floor` is Table 1
            (81, 27, 9, 6, 5), whose rungs divide evenly.
        resource_low: the resource lies on the grid resource_low + k * resource_step.
        resource_step: see resource_low.

    Deviation: a resource that eta does not divide is rounded down, to the grid.

    Raises:
        ValueError: a rule is broken; the message gives the rule and the value.
    """

    min_resource: int
    max_resource: int
    eta: int = 3
    sizes: str = "ceil"
    resource_low: int = 0
    resource_step: int = 1

    def __post_init__(self) -> None:
        if self.min_resource < 1:
            raise InputError(f"min_resource must be at least 1, but got {self.min_resource}.")
        if self.max_resource < self.min_resource:
            raise InputError(
                f"max_resource must be at least min_resource={self.min_resource}, but got {self.max_resource}."
            )
        if self.eta < 2:
            raise InputError(f"eta must be at least 2, but got {self.eta}.")
        if self.sizes not in SIZES:
            raise InputError(f"bracket_sizes must be one of {', '.join(SIZES)}, but got {self.sizes!r}.")
        resources = self.brackets[0].resources
        if resources[0] < self.min_resource or len(set(resources)) < len(resources):
            raise InputError(
                f"the resource's step must allow different resources of at least min_resource={self.min_resource} "
                f"for all rungs, but step {self.resource_step} gives {', '.join(map(str, resources))}."
            )

    @cached_property
    def brackets(self) -> tuple[Bracket, ...]:
        """The different brackets; bracket number b of an experiment is number b modulo their count."""
        depth = 0
        while self.min_resource * self.eta ** (depth + 1) <= self.max_resource:
            depth += 1
        return tuple(self._bracket(halvings, depth) for halvings in range(depth, -1, -1))

    @property
    def trials(self) -> int:
        """The number of trials in one cycle of all brackets."""
        return sum(sum(bracket.sizes) for bracket in self.brackets)

    def bracket(self, number: int) -> Bracket:
        """Return bracket `number`; the cycle repeats without end."""
        return self.brackets[number % len(self.brackets)]

    def _bracket(self, halvings: int, depth: int) -> Bracket:
        if self.sizes == "ceil":
            widest = -(-(depth + 1) * self.eta**halvings // (halvings + 1))
        else:
            widest = (depth + 1) // (halvings + 1) * self.eta**halvings
        return Bracket(
            sizes=tuple(widest // self.eta**rung for rung in range(halvings + 1)),
            resources=tuple(self._resource(self.eta ** (halvings - rung)) for rung in range(halvings + 1)),
        )

    def _resource(self, divisor: int) -> int:
        exact = self.max_resource // divisor
        return exact - (exact - self.resource_low) % self.resource_step
