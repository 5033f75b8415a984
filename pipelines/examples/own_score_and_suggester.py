"""A pruning score and a suggester of your own: each is one small object, and no list is edited.

    python pipelines/examples/own_score_and_suggester.py

Registered under the entry point groups `kondense.scores` and `kondense.suggesters`, both also work by name, in
`kondense run --set prune.method=NAME` and in Experiments.
"""

from collections.abc import Mapping

import kondense as kd
import numpy as np
import torch
from kondense.channels.dependencies import ChannelGroup
from kondense.search.history import History, Suggestion
from kondense.search.sampling import generator
from kondense.search.settings import check
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState
from sklearn.datasets import load_digits
from torch import Tensor, nn


def largest_weight(module: nn.Module, groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """Rank each channel, [channels], by the largest weight among those that produce it; the lowest are removed."""
    scores = {}
    for name, group in groups.items():
        scores[name] = torch.zeros(group.channels)
        for member in group.members:
            if member.output and isinstance(member.layer, nn.Conv2d | nn.Linear):
                largest = member.layer.weight.detach().abs().flatten(1).amax(1)
                scores[name] = scores[name].maximum(largest[member.entries].amax(1))
    return scores


class Corners:
    """Proposes every combination of the ends of the ranges, then random values."""

    METHOD = {"name": "corners", "kind": "single-fidelity", "summary": "ends of the ranges first", "settings": {}}

    def validate(
        self,
        space: SearchSpace,
        settings: Mapping[str, str],
        *,
        max_trial_count: int | None = None,
        parallel_trial_count: int | None = None,
    ) -> None:
        """Refuse settings: there are none."""
        check(settings, {}, max_trial_count, parallel_trial_count)

    def planned_trials(self, settings: Mapping[str, str], space: SearchSpace) -> int | None:
        """Return None: there is no natural number of trials."""

    def suggest(
        self, space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int
    ) -> Suggestion:
        """Return ``count`` proposals; a function of its arguments alone."""

        def draw(number: int) -> dict[str, str]:
            rng = generator(seed, history.experiment, 0, number)
            corners = 2 ** len(space.names)
            ends = [number >> bit & 1 for bit in range(len(space.names))]
            return space.from_unit(np.array([ends if number < corners else rng.random(len(space.names))], float))[0]

        return ExperimentState(history).issue(count, draw)


def main() -> None:
    """Prune with the score, then search with the suggester how much."""
    digits = load_digits()
    images = (digits.images / 16).astype("float32")
    train, test = (images[:1200], digits.target[:1200]), (images[1200:], digits.target[1200:])
    data = kd.Dataset.from_arrays(train=train, test=test)
    model = kd.train(data, "lenet300", epochs=3).model

    def accuracy(sparsity: float) -> float:
        pruned = kd.prune(model, data, method=largest_weight, sparsity=sparsity, target="parameters", epochs=1)
        return pruned.metrics["validation_accuracy"]

    space = {"sparsity": kd.uniform(0.2, 0.8)}
    print(kd.search(accuracy, space, algorithm=Corners(), goal="maximize", max_trials=4))


if __name__ == "__main__":
    main()
