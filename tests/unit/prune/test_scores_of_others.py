"""A score from outside the package: one function, passed as an object or registered by an entry point."""

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.errors import InputError
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.methods import kind_of
from kondense.prune.stage import prune

from tests.support.distribution import make_distribution, run_python
from tests.support.toy_training import toy_dataset

SETTINGS = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-9, "device": "cpu", "round_to": 1, "reconstruct": False}


def resnet() -> Model:
    spec = NetworkSpec("resnet8", {"classes": 3, "channels": 1, "image_size": 16})
    return Model(build(spec, seed=5).eval(), spec)


def first_channels(module, groups):
    """Rank the channels of every group by their position, the last one highest."""
    return {name: torch.arange(float(group.channels)) for name, group in groups.items()}


def last_weights(module, weights, context):
    """Rank weights by their position, in the order that the seed of the context says."""
    sign = 1.0 if context.config.seed else -1.0
    return {name: sign * torch.arange(float(weight.numel())).view_as(weight) for name, weight in weights.items()}


def test_a_score_of_channels_passed_as_an_object():
    model = resnet()
    result = prune(model, toy_dataset(), PruneConfig(**SETTINGS, sparsity=0.3), method=first_channels)
    pruned = result.model.module.get_submodule("blocks.0.conv1").weight
    kept = model.module.get_submodule("blocks.0.conv1").weight[-len(pruned) :, -pruned.shape[1] :]
    assert pruned.shape[0] < 16
    torch.testing.assert_close(pruned, kept, atol=1e-4, rtol=1e-3)
    assert result.summary.startswith("prune first_channels ")
    assert result.details["method"] == "first_channels"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_score_of_weights_passed_as_an_object(seed):
    config = PruneConfig(**SETTINGS, sparsity=0.5, scope="layer", seed=seed)
    result = prune(resnet(), toy_dataset(), config, method=last_weights)
    weight = result.model.module.get_submodule("blocks.0.conv1").weight.flatten()
    half = len(weight) // 2
    assert (weight[:half] == 0).all() if seed else (weight[half:] == 0).all()
    assert result.summary == "prune last_weights 50.0% of weights"


@pytest.mark.parametrize("score", [lambda module: {}, lambda one, two: {}, "l1"])
def test_what_is_no_score_is_refused(score):
    with pytest.raises(InputError, match=r"a score must be a function \(module, groups\) or \(module, weights\)"):
        kind_of(score)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (lambda group: torch.zeros(1), r"must return a tensor of shape \[16\] for conv1, but returned \[1\]"),
        (lambda group: torch.full((group.channels,), torch.nan), "must return numbers, but returned NaN for"),
    ],
)
def test_a_score_of_another_form_is_refused(values, rule):
    def wrong(module, groups):
        return {name: values(group) for name, group in groups.items()}

    with pytest.raises(InputError, match=rule):
        prune(resnet(), toy_dataset(), PruneConfig(**SETTINGS), method=wrong)


THEIRS = """
    import torch

    def by_position(module, groups):
        return {name: torch.arange(float(group.channels)) for name, group in groups.items()}

    def by_weight(module, weights):
        return {name: weight.detach().abs() for name, weight in weights.items()}
    """


def test_scores_registered_by_entry_points(tmp_path):
    points = {"by_position": "theirs:by_position", "by_weight": "theirs:by_weight", "failing": "broken:score"}
    files = {"theirs.py": THEIRS, "broken.py": "raise RuntimeError('no such device')"}
    make_distribution(tmp_path, files, {"kondense.scores": points})
    program = """
        import sys
        from kondense.errors import InputError
        from kondense.prune.config import PruneConfig
        from kondense.prune.methods import METHODS
        assert {"by_position", "by_weight", "failing", "l1"} <= set(METHODS)
        assert "torch" not in sys.modules, "names need no import"
        from kondense.prune.stage import prune
        from tests.unit.prune.test_scores_of_others import SETTINGS, resnet
        from tests.support.toy_training import toy_dataset
        assert METHODS["by_position"].kind == "channels"
        for method in ("by_position", "by_weight", "l1"):
            config = PruneConfig(**SETTINGS, method=method, sparsity=0.3)
            print(prune(resnet(), toy_dataset(), config).summary, config.training_optimizer)
        try:
            prune(resnet(), toy_dataset(), PruneConfig(**SETTINGS, method="failing"))
        except InputError as error:
            print(error)
        """
    lines = run_python(program, tmp_path)
    assert [line.split()[1] for line in lines[:3]] == ["by_position", "by_weight", "l1"]
    assert [line.split()[-1] for line in lines[:3]] == ["muon", "sgd", "muon"]
    assert lines[3] == "kondense.scores: failing = broken:score cannot be used: RuntimeError('no such device')."
