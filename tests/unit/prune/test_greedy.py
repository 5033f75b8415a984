import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from kondense.measuring.size import count_parameters
from kondense.prune import greedy
from kondense.prune.config import PruneConfig
from torch import nn

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

pytestmark = pytest.mark.usefixtures("log_on_stdout")

DATASET = toy_dataset(size=6)
SETTINGS = {
    "method": "greedy",
    "target": "parameters",
    "round_to": 1,
    "slice": 0.001,
    "reconstruct": False,
    "criterion": "l1",
    "device": "cpu",
}


def network():
    """Two hidden layers of four channels, trained a little."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    images, labels = DATASET.normalise(DATASET.train.images), DATASET.train.labels
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        optimizer.step()
    return module.eval()


def zeroed(module, layer, count):
    """The network without the ``count`` channels of a layer whose leaving weights are smallest, by hand."""
    silent = copy.deepcopy(module)
    reader = {1: 3, 3: 5}[layer]
    scores = module[layer].weight.abs().sum(1) + module[reader].weight.abs().sum(0)
    with torch.no_grad():
        for channel in scores.argsort()[:count].tolist():
            silent[layer].weight[channel] = silent[layer].bias[channel] = 0.0
            silent[reader].weight[:, channel] = 0.0
    return silent


def loss_of(module):
    with torch.no_grad():
        logits = module(DATASET.normalise(DATASET.validation.images))
    return float(F.cross_entropy(logits, DATASET.validation.labels))


def parameters(first, second):
    return 36 * first + first + first * second + second + 3 * second + 3


def test_the_first_move_is_the_best_of_all():
    module = network()
    before = loss_of(module)
    rises = {}
    for layer, cost in ((1, parameters(3, 4)), (3, parameters(4, 3))):
        rises[str(layer)] = (loss_of(zeroed(module, layer, 1)) - before) / (parameters(4, 4) - cost)
    method = greedy.prepare(module, make_context(PruneConfig(**SETTINGS, sparsity=0.01), DATASET))
    method.step(1.0)
    (row,) = method.details()["trajectory"]
    assert row["layer"] == min(rises, key=rises.get)
    assert row["channels"] == 3
    assert set(row) == {"layer", "channels", "validation_accuracy", "macs"}


def test_meets_the_budget_as_well_as_brute_force():
    module = network()
    original, budget = copy.deepcopy(module), 0.5 * parameters(4, 4)
    method = greedy.prepare(module, make_context(PruneConfig(**SETTINGS, sparsity=0.5), DATASET))
    method.step(1.0)
    assert count_parameters(module) <= budget
    losses = {}
    for first, second in itertools.product(range(1, 5), repeat=2):
        if parameters(first, second) <= budget:
            losses[first, second] = loss_of(zeroed(zeroed(original, 1, 4 - first), 3, 4 - second))
    found = (module[1].out_features, module[3].out_features)
    assert loss_of(module) == pytest.approx(losses[found], abs=0.15)  # scores are taken anew after each move
    assert found == min(losses, key=losses.get)


def test_stops_at_the_last_state_that_holds_and_says_so(capsys):
    module = network()
    request = make_context(PruneConfig(**SETTINGS, sparsity=0.9), DATASET, floor=0.9)
    method = greedy.prepare(module, request)
    method.step(1.0)
    trajectory = method.details()["trajectory"]
    assert all(row["validation_accuracy"] >= 0.9 for row in trajectory)
    assert "greedy stopped at" in method.details()["stopped"]
    assert method.details()["stopped"] in capsys.readouterr().out
    assert method.shortfall() == ""
    sizes = {row["layer"]: row["channels"] for row in trajectory}
    assert {name: module.get_submodule(name).out_features for name in sizes} == sizes


def test_fractions_of_layers_are_met_and_left_alone():
    module = network()
    request = make_context(PruneConfig(**SETTINGS, sparsity=0.4), DATASET, fractions={"3": 0.5})
    method = greedy.prepare(module, request)
    method.step(1.0)
    assert module[3].out_features == 2
    assert {row["layer"] for row in method.details()["trajectory"]} == {"1"}


def test_the_slice_is_what_one_move_saves():
    module = network()
    method = greedy.prepare(module, make_context(PruneConfig(**SETTINGS | {"slice": 0.3}, sparsity=0.3), DATASET))
    method.step(1.0)
    assert len(method.details()["trajectory"]) == 1
    assert count_parameters(module) <= 0.7 * parameters(4, 4)


def test_later_moves_try_few_groups_and_leave_no_trace(monkeypatch):
    module = network()
    method = greedy.prepare(
        module, make_context(PruneConfig(**SETTINGS | {"reconstruct": True}, sparsity=0.4), DATASET)
    )
    tried, candidate = [], greedy.GreedyPruner._candidate

    def watched(pruner, group, *arguments):
        before = {name: (id(tensor), tensor.clone()) for name, tensor in module.state_dict(keep_vars=True).items()}
        found = candidate(pruner, group, *arguments)
        after = module.state_dict(keep_vars=True)
        assert all(id(after[name]) == number for name, (number, _) in before.items())
        assert all(torch.equal(after[name], value) for name, (_, value) in before.items())
        tried.append(group.name)
        return found

    monkeypatch.setattr(greedy.GreedyPruner, "_candidate", watched)
    method.step(1.0)
    moves = len(method.details()["trajectory"])
    assert set(tried[:2]) == {"1", "3"}  # the first move tries all
    assert moves > 1
    assert len(tried) < 2 * moves
