"""The suites for scores, quantizers and stages accept what conforms, and name each broken rule."""

import dataclasses

import pytest
import torch
from kondense.channels.dependencies import ChannelGroup
from kondense.errors import InputError
from kondense.prune.masks import magnitude
from kondense.prune.scores import l1
from kondense.quantize import weight_only
from kondense.stages import STAGES, Stage
from kondense.testing import check_quantizer, check_score, check_stage


@pytest.mark.parametrize("module", [l1, magnitude])
def test_our_scores_conform(module) -> None:
    check_score(module.score)


def by_channel(values):
    """Return a score whose values are made from a group of channels."""

    def score(module, groups: dict[str, ChannelGroup]):
        return {name: values(module, group) for name, group in groups.items()}

    return score


def changes(module, group):
    next(module.parameters()).data.mul_(0.5)
    return torch.zeros(group.channels)


def trains(module, group):
    module.train()
    return torch.zeros(group.channels)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (changes, "a score must not change the network, but changed"),
        (trains, "a score must not change the mode of the network"),
        (lambda module, group: torch.rand(group.channels), "must not draw from torch's global random state"),
    ],
)
def test_a_score_that_breaks_a_rule(values, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_score(by_channel(values))


def test_a_score_of_another_form() -> None:
    with pytest.raises(InputError, match="must return a tensor of shape"):
        check_score(by_channel(lambda module, group: torch.zeros(1)))


def test_a_score_must_be_deterministic() -> None:
    sign = iter([1.0, -1.0] * 100)

    def score(module, groups):
        factor = next(sign)
        return {name: factor * torch.arange(float(group.channels)) for name, group in groups.items()}

    with pytest.raises(AssertionError, match="a score must return the same result for the same input"):
        check_score(score)


def test_a_quantizer_of_ours_conforms() -> None:
    check_quantizer(weight_only.apply)


def test_a_quantizer_that_does_nothing() -> None:
    with pytest.raises(AssertionError, match="must return a model with quantized weights, but lenet5 has none"):
        check_quantizer(lambda model, context: model)


def test_a_quantizer_whose_weights_are_not_its_integers() -> None:
    def shifted(model, context):
        made = weight_only.apply(model, context)
        next(iter(made.module.parameters())).data.add_(0.25)
        return made

    with pytest.raises(InputError, match="was changed after it was quantized"):
        check_quantizer(shifted)


@pytest.mark.parametrize("name", ["train", "prune", "quantize"])
def test_our_stages_conform(name: str) -> None:
    check_stage(STAGES[name], {"epochs": 1, "batch_size": 32, "device": "cpu", **EXTRA.get(name, {})})


EXTRA = {"train": {"network": "lenet300"}, "quantize": {"method": "weight_only"}, "prune": {"round_to": 1}}


def test_a_stage_without_a_parameter_for_an_artifact() -> None:
    stage = dataclasses.replace(STAGES["prune"], run="kondense.train.stage:run")
    assert isinstance(stage, Stage)
    with pytest.raises(AssertionError, match="run must have a parameter pruned_dir for pruned"):
        check_stage(dataclasses.replace(stage, inputs=stage.inputs[:1]))
