"""Greedy channel pruning: repeatedly removes a slice of channels from the group where the loss rises least.

Source: Yang et al. 2018 (NetAdapt), algorithm 1: in each iteration every layer is a candidate for the next saving,
the best resulting network is kept, and latency as a resource is measured. Deviations: candidates are repaired by least
squares and re-estimated batch norms instead of a short training (``reconstruct``), those of a large network only in the
layers that read what was removed, and in all of them when they are adopted; they are compared by the rise of the
validation loss per saving, which is finer than accuracy, since their savings differ. After the first iteration a layer
is only tried while the rise that it had last is below the lowest found (Minoux 1978, "Accelerated greedy algorithms"):
removals make other removals dearer, hardly ever cheaper.
"""

import bisect
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kondense.channels.surgery import remove, restored
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.size import count_macs, count_parameters
from kondense.prune import channels
from kondense.prune.allocation import Cost, Group, allowed, smallest_counts
from kondense.prune.batch_norm import reestimate
from kondense.prune.context import Context
from kondense.prune.methods import METHODS, bind
from kondense.prune.pruner import Masks, Pruner
from kondense.prune.reconstruction import Targets, trial_targets
from kondense.training.device import move

METHOD = {
    "name": "greedy",
    "kind": "channels",
    "summary": "removes channels slice by slice from the group where the loss rises least",
    "function": "prepare",
}

TRIAL_IMAGES = 500  # to reconstruct a candidate; the adopted one is reconstructed from all
LARGE = 2**20  # parameters from which on all least squares of a candidate would take too long
LEAST_SAVING = 0.002  # of the total cost; smaller savings are noise if latency is measured


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network with one more slice of channels removed."""

    group: str
    count: int
    cost: float
    loss: float
    accuracy: float


def prepare(module: nn.Module, context: Context) -> Pruner:
    """Return the method that removes slice by slice (see ``channels.prepare``)."""
    pruner = GreedyPruner(module, context, bind(METHODS[context.config.criterion].load(), context))
    pruner.check()
    return pruner


class GreedyPruner(channels.ChannelPruner):
    """Removes slices until the budget is met, no slice remains, or the next one would break the bound on accuracy."""

    keeps_floor = True

    def __init__(self, module: nn.Module, context: Context, score: channels.Score) -> None:
        super().__init__(module, context, score)
        self.trajectory: list[dict[str, Any]] = []
        self.stopped = ""
        self.large = count_parameters(module) > LARGE
        self.rises: dict[str, float] = {}  # of the loss per saving, as last measured, by group

    def step(self, share: float) -> Masks:
        """Remove slices until a share of the requested sparsity is reached."""
        budget = (1.0 - share * self.config.sparsity) * self.total
        self._meet_fractions(share)
        now = self._measure(self.module)
        while not self.stopped:
            scores = self.scores()
            groups = self.described(scores, share)
            cost = self.cost(groups)
            spent = self.confirmed(cost, {group.name: group.channels for group in groups}, budget)
            self.note(spent, share)
            if self.timing is not None and self.trajectory:
                self.trajectory[-1]["latency_ms"] = spent * self.timing.unpruned_ms
            if spent <= budget:
                break
            saving = min(self.config.slice * self.total, spent - budget)
            best = self._best(groups, scores, cost, loss=now[0], spent=spent, saving=saving, budget=budget)
            if best is None:
                break
            if best.accuracy < self.context.floor:
                self.stopped = (
                    f"greedy stopped at {1.0 - spent / self.total:.4f} of the {self.config.target}: the next slice, of"
                    f" {best.group}, would lower the validation accuracy to {best.accuracy:.4f}, below"
                    f" {self.context.floor:.4f}."
                )
                LOG.info(self.stopped)
                self.closest = ""  # the bound on accuracy is part of the request
                break
            self._adopt(best, scores)
            now = self._measure(self.module) if self.large else (best.loss, best.accuracy)
        if share == 1.0 and not self.context.floor:
            self._round()
        return self.context.masks(self.module)

    def _round(self) -> None:
        """Remove the few channels beyond a multiple from groups that were never chosen (see ``allowed``)."""
        scores = self.scores()
        counts = {
            group.name: allowed(group.channels, group.channels, group.multiple(self.config.round_to))
            for group in self.described(scores, 1.0)
            if group.sparsity is None
        }
        if any(count < len(scores[name]) for name, count in counts.items()):
            self.shrink(scores, counts)
            reestimate(self.module, self.context.dataset, seed=self.config.seed, device=self.context.device)

    def _meet_fractions(self, share: float) -> None:
        """Remove the fractions in ``layers``; the search ignores these groups."""
        scores = self.scores()
        fixed = [group for group in self.described(scores, share) if group.sparsity is not None]
        if fixed:
            self.shrink(scores, smallest_counts(fixed, self.config.round_to))
            reestimate(self.module, self.context.dataset, seed=self.config.seed, device=self.context.device)

    def details(self) -> dict[str, Any]:
        """Return every removal in order, and why the search stopped before its budget, if it did."""
        stopped = {"stopped": self.stopped} if self.stopped else {}
        return super().details() | {"trajectory": self.trajectory} | stopped

    def _best(
        self,
        groups: list[Group],
        scores: Mapping[str, Tensor],
        cost: Cost,
        *,
        loss: float,
        spent: float,
        saving: float,
        budget: float,
    ) -> Candidate | None:
        """Return the candidate whose loss rises least per saving, or None if no group can be pruned further.

        Savings beyond the budget are not counted.
        """
        best, lowest, targets = None, math.inf, None
        for group in sorted(groups, key=lambda group: self.rises.get(group.name, -math.inf)):
            if best is not None and self.rises.get(group.name, -math.inf) > lowest:
                break
            count = self._next_count(group, groups, cost, max(saving, LEAST_SAVING * self.total))
            if count is None:
                continue
            if targets is None and self.config.reconstruct:
                targets = trial_targets(self.module, self.context, TRIAL_IMAGES)
            one = self._candidate(group, count, scores, cost, targets)
            self.rises[group.name] = rise = (one.loss - loss) / (spent - max(one.cost, budget))
            if rise < lowest:
                best, lowest = one, rise
        return best

    def _next_count(self, group: Group, groups: list[Group], cost: Cost, saving: float) -> int | None:
        """Return the largest count that saves enough, else the one that saves most, if any."""
        least = smallest_counts([group], self.config.round_to)[group.name]
        now = {other.name: other.channels for other in groups}
        spent = cost(now)
        multiple = group.multiple(self.config.round_to)
        counts = [
            count
            for count in range(group.channels - 1, least - 1, -1)
            if count in (least, allowed(count, group.channels, multiple))
        ]

        def saved(count: int) -> float:
            return spent - cost(now | {group.name: count})

        if self.timing is None:  # the saving grows with every channel; a measured one need not
            enough = bisect.bisect_left(counts, saving, key=saved)
            counts = counts[enough : enough + 1] or counts[-1:]
        most, best = LEAST_SAVING * self.total, None
        for count in counts:
            gain = saved(count)
            if gain >= saving:
                return count
            if gain > most:
                most, best = gain, count
        return best

    def _candidate(
        self, group: Group, count: int, scores: Mapping[str, Tensor], cost: Cost, targets: Targets | None
    ) -> Candidate:
        counts = {name: other.channels for name, other in self.groups().items()} | {group.name: count}
        removed = channels.lowest(self.groups(), scores, counts)
        with restored(self.module, written=True):
            kept_outputs = remove(self.module, self.groups(), removed)
            if targets is not None:
                readers = {part.layer for part in group.parts if self.large and not part.output}
                touched = readers or {part.layer for part in group.parts}
                targets.fit(self.module, kept_outputs, touched, only=bool(readers))
            dataset, config = self.context.dataset, self.config
            reestimate(self.module, dataset, seed=config.seed, device=self.context.device, images=TRIAL_IMAGES)
            loss, correct = self._measure(self.module)
        return Candidate(group.name, count, cost(counts), loss, correct)

    def _adopt(self, best: Candidate, scores: Mapping[str, Tensor]) -> None:
        counts = {name: group.channels for name, group in self.groups().items()} | {best.group: best.count}
        self.shrink(scores, counts)
        reestimate(self.module, self.context.dataset, seed=self.config.seed, device=self.context.device)
        row = {
            "layer": best.group,
            "channels": best.count,
            "validation_accuracy": best.accuracy,
            "macs": sum(count_macs(self.module, self.shape).values()),
        }
        if self.timing is not None:
            row["latency_ms"] = best.cost * self.timing.unpruned_ms
        self.trajectory.append(row)
        LOG.info(f"greedy {best.group} to {best.count} cost={best.cost / self.total:.4f} accuracy={best.accuracy:.4f}")

    def _measure(self, module: nn.Module) -> tuple[float, float]:
        """Return loss and accuracy on the validation split."""
        dataset = self.context.dataset
        logits_NK = predict(move(module, self.context.device), dataset.validation, dataset, device=self.context.device)
        move(module, "cpu")
        labels_N = dataset.validation.labels
        return float(F.cross_entropy(logits_NK, labels_N)), accuracy(logits_NK, labels_N)
