"""Greedy channel pruning: again and again take a slice of channels from the group where it hurts least.

Source: Yang et al. 2018 (NetAdapt), algorithm 1: in each iteration every layer is a candidate for the next saving,
the one whose network is best is kept, and the resource is a measured one when latency is asked for. Deviations:
candidates are repaired by least squares and re-estimated batch norms instead of a short training (``reconstruct``);
they are compared by the rise of the validation loss per saving, which is finer than accuracy, since no two save
the same.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.size import count_macs
from kondense.prune import channels
from kondense.prune.allocation import Cost, Group, allowed, smallest_counts
from kondense.prune.batch_norm import reestimate
from kondense.prune.method import Masks, Method
from kondense.prune.request import Request
from kondense.prune.scores import fpgm, l1, l2, taylor_channel

TRIAL_IMAGES = 500  # that repair a candidate; what is adopted is repaired from all
LEAST_SAVING = 0.002  # of the whole: what saves less is noise where a latency is measured


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network with one more slice of channels gone."""

    group: str
    count: int
    cost: float
    loss: float
    accuracy: float


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that removes slice by slice (see ``channels.prepare``)."""
    criteria: Mapping[str, channels.Score] = {
        "fpgm": fpgm.score,
        "l1": l1.score,
        "l2": l2.score,
        "taylor_channel": functools.partial(taylor_channel.score, request=request),
    }
    pruner = GreedyPruner(module, request, criteria[request.config.criterion])
    pruner.check()
    return pruner


class GreedyPruner(channels.ChannelPruner):
    """Removes slices until the cost is met, no slice is left, or the next one would break the accuracy's bound."""

    def __init__(self, module: nn.Module, request: Request, score: channels.Score) -> None:
        super().__init__(module, request, score)
        self.trajectory: list[dict[str, Any]] = []
        self.stopped = ""

    def step(self, share: float) -> Masks:
        """Remove slices until a share of what is asked for is gone."""
        budget = (1.0 - share * self.config.sparsity) * self.whole
        self._meet_fractions(share)
        now = self._measure(self.module)
        while not self.stopped:
            scores = self.score(self.module, self.groups())
            groups = self.described(scores, share)
            cost = self.cost(groups)
            spent = self.confirmed(cost, {group.name: group.channels for group in groups}, budget)
            self.note(spent, share)
            if self.timing is not None and self.trajectory:
                self.trajectory[-1]["latency_ms"] = spent * self.timing.unpruned_ms
            if spent <= budget:
                break
            saving = min(self.config.slice * self.whole, spent - budget)
            best = self._best(self._candidates(groups, scores, cost, saving), now[0], spent, budget)
            if best is None:
                break
            if best.accuracy < self.request.floor:
                self.stopped = (
                    f"greedy stopped at {1.0 - spent / self.whole:.4f} of the {self.config.target}: the next slice,"
                    f" from {best.group}, would leave a validation accuracy of {best.accuracy:.4f}, below"
                    f" {self.request.floor:.4f}."
                )
                LOG.info(self.stopped)
                self.closest = ""  # the bound on accuracy ends the search as asked
                break
            self._adopt(best, scores)
            now = (best.loss, best.accuracy)
        return self.request.masks(self.module)

    def _meet_fractions(self, share: float) -> None:
        """Remove what ``layers`` asks for by name; the search leaves these groups alone."""
        scores = self.score(self.module, self.groups())
        given = [group for group in self.described(scores, share) if group.sparsity is not None]
        if given:
            self.shrink(scores, smallest_counts(given, self.config.round_to))
            reestimate(self.module, self.request.dataset, seed=self.config.seed, device=self.request.device)

    def details(self) -> dict[str, Any]:
        """Return every removal in order, and why the search ended before its budget, if it did."""
        stopped = {"stopped": self.stopped} if self.stopped else {}
        return super().details() | {"trajectory": self.trajectory} | stopped

    @staticmethod
    def _best(candidates: Iterable[Candidate], loss: float, spent: float, budget: float) -> Candidate | None:
        """Return the candidate whose loss rises least per saving, None when no group can lose any more.

        What is saved beyond the budget counts for nothing.
        """
        return min(candidates, key=lambda found: (found.loss - loss) / (spent - max(found.cost, budget)), default=None)

    def _candidates(
        self, groups: list[Group], scores: Mapping[str, Tensor], cost: Cost, saving: float
    ) -> Iterator[Candidate]:
        for group in groups:
            count = self._next_count(group, groups, cost, max(saving, LEAST_SAVING * self.whole))
            if count is not None:
                yield self._candidate(group, count, groups, scores, cost)

    def _next_count(self, group: Group, groups: list[Group], cost: Cost, saving: float) -> int | None:
        """Return the largest count that saves enough; where none does, the one that saves most, if any does."""
        least = smallest_counts([group], self.config.round_to)[group.name]
        now = {other.name: other.channels for other in groups}
        spent = cost(now)
        most, best = LEAST_SAVING * self.whole, None
        for count in range(group.channels - 1, least - 1, -1):
            if count not in (least, allowed(count, group.channels, group.multiple(self.config.round_to))):
                continue
            saved = spent - cost(now | {group.name: count})
            if saved >= saving:
                return count
            if saved > most:
                most, best = saved, count
        return best

    def _candidate(
        self, group: Group, count: int, groups: list[Group], scores: Mapping[str, Tensor], cost: Cost
    ) -> Candidate:
        counts = {other.name: other.channels for other in groups} | {group.name: count}
        trial, removed = copy.deepcopy(self.module), channels.lowest(self.groups(), scores, counts)
        channels.shrink(trial, self.groups(), removed, self.request, images=TRIAL_IMAGES)
        reestimate(trial, self.request.dataset, seed=self.config.seed, device=self.request.device)
        loss, found = self._measure(trial)
        return Candidate(group.name, count, cost(counts), loss, found)

    def _adopt(self, best: Candidate, scores: Mapping[str, Tensor]) -> None:
        counts = {name: group.channels for name, group in self.groups().items()} | {best.group: best.count}
        self.shrink(scores, counts)
        reestimate(self.module, self.request.dataset, seed=self.config.seed, device=self.request.device)
        row = {
            "layer": best.group,
            "channels": best.count,
            "validation_accuracy": best.accuracy,
            "macs": sum(count_macs(self.module, self.request.image_shape).values()),
        }
        if self.timing is not None:
            row["latency_ms"] = best.cost * self.timing.unpruned_ms
        self.trajectory.append(row)
        LOG.info(f"greedy {best.group} to {best.count} cost={best.cost / self.whole:.4f} accuracy={best.accuracy:.4f}")

    def _measure(self, module: nn.Module) -> tuple[float, float]:
        """Return loss and accuracy on the validation split."""
        dataset = self.request.dataset
        logits_NK = predict(module.to(self.request.device), dataset.validation, dataset, device=self.request.device)
        module.to("cpu")
        labels_N = dataset.validation.labels
        return float(F.cross_entropy(logits_NK, labels_N)), accuracy(logits_NK, labels_N)
