import copy
import dataclasses

import pytest
import torch
from kondense.artifacts.model import Model, load_model, save_model
from kondense.data.dataset import save_dataset
from kondense.errors import ShortfallError
from kondense.networks.build import NetworkSpec, build
from kondense.prune import stage
from kondense.prune.accuracy_bound import largest_sparsity
from kondense.prune.config import PruneConfig
from kondense.prune.metrics import validation_accuracy
from kondense.prune.pruner import Pruner
from kondense.prune.sensitivity import FRACTIONS
from kondense.prune.timing import Timing
from kondense.train.config import TrainConfig
from kondense.train.stage import run as train

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

DATASET = toy_dataset()
FAST = {"epochs": 1, "batch_size": 32, "learning_rate": 0.01, "device": "cpu"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bound")
    save_dataset(directory / "dataset", DATASET)
    config = TrainConfig(network="resnet8", epochs=3, batch_size=32, learning_rate=0.05, device="cpu")
    train(config, dataset_dir=directory / "dataset", model_dir=directory / "trained")
    spec = NetworkSpec("resnet8", {"classes": 3, "channels": 1, "image_size": 16})
    save_model(directory / "untrained", Model(build(spec, seed=1).eval(), spec))
    return directory


def prune(made, output, *, model="trained", teacher=None, **settings):
    return stage.run(
        PruneConfig(**FAST | settings),
        dataset_dir=made / "dataset",
        model_dir=made / model,
        pruned_dir=output,
        teacher_dir=made / teacher if teacher else None,
    )


class Threshold(Pruner):
    """Spoils the network if more than 0.37 is asked for."""

    def __init__(self, module, context):
        self.module, self.context = module, context

    def step(self, share):
        if share * self.context.config.sparsity > 0.37:
            for parameter in self.module.parameters():
                parameter.data.zero_()
        return {}


def test_bisection_finds_the_threshold(made):
    module = load_model(made / "trained").module
    before = copy.deepcopy(module.state_dict())
    request = make_context(PruneConfig(**FAST, sparsity=0.8), DATASET, floor=0.9)
    found, trials = largest_sparsity(Threshold, module, request)
    assert 0.37 - 0.8 / 32 <= found <= 0.37
    assert [row["sparsity"] for row in trials][:3] == [0.8, 0.4, 0.2]
    assert all((row["validation_accuracy"] >= 0.9) == (row["sparsity"] <= 0.37) for row in trials)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    config = dataclasses.replace(request.config, sparsity=0.3)
    assert largest_sparsity(Threshold, module, dataclasses.replace(request, config=config))[0] == 0.3


@pytest.mark.parametrize(("method", "most"), [("l1", 0.99), ("magnitude", 0.999)])
def test_any_method_keeps_within_the_bound(method, most, made, tmp_path):
    settings = {"method": method, "sparsity": most, "max_validation_drop": 0.01, "round_to": 1, "learning_rate": 1e-4}
    metrics = prune(made, tmp_path / "pruned", **settings, pruning_schedule="one_shot")
    record = load_model(tmp_path / "pruned").lineage[-1]
    own = validation_accuracy(load_model(made / "trained").module, DATASET, CPU)
    trials = record["details"]["bound"]
    held = [row["sparsity"] for row in trials if row["validation_accuracy"] >= own - 0.01]
    assert 0 < len(held) < len(trials)
    reached = metrics["sparsity"] if method == "magnitude" else 1 - metrics["macs"] / metrics["macs_before"]
    assert most > reached >= max(held) - 1e-3


def test_fine_tuning_that_breaks_the_bound_is_said(made, tmp_path):
    with pytest.raises(ShortfallError, match=r"max_validation_drop 0\.05 was not met: after fine-tuning, .* below"):
        prune(made, tmp_path / "pruned", sparsity=0.3, max_validation_drop=0.05, learning_rate=20.0, epochs=1)
    assert (tmp_path / "pruned").exists()


def test_a_bound_that_the_unpruned_model_breaks_is_refused_before_any_work(made, tmp_path):
    with pytest.raises(
        ValueError, match=r"max_validation_drop must be at least 0\.\d+, the gap between the unpruned model"
    ):
        prune(made, tmp_path / "pruned", model="untrained", teacher="trained", max_validation_drop=0.01)
    assert not (tmp_path / "pruned").exists()


def test_greedy_stops_at_the_bound(made, tmp_path):
    prune(made, tmp_path / "pruned", method="greedy", sparsity=0.95, slice=0.2, max_validation_drop=0.02)
    details = load_model(tmp_path / "pruned").lineage[-1]["details"]
    own = validation_accuracy(load_model(made / "trained").module, DATASET, CPU)
    assert all(row["validation_accuracy"] >= own - 0.02 for row in details["trajectory"])


def test_a_latency_out_of_reach_writes_the_closest_and_fails(made, tmp_path, monkeypatch):
    monkeypatch.setattr(Timing, "measure", lambda self, module, seconds: 0.9)
    with pytest.raises(ShortfallError, match=r"sparsity 0\.5 of the latency was not reached: the closest has 0\.1000"):
        prune(made, tmp_path / "pruned", method="l1", target="latency", sparsity=0.5, latency_batch_size=2)
    assert load_model(tmp_path / "pruned").lineage[-1]["details"]["latency"]["rows"]


@pytest.mark.parametrize(("method", "layers"), [("l2", ["conv1", "blocks.0.conv1"]), ("magnitude", ["conv1", "fc"])])
def test_the_scan_prunes_each_layer_alone(method, layers, made, tmp_path):
    prune(made, tmp_path / "pruned", method=method, sparsity=0.3, sensitivity=True)
    found = load_model(tmp_path / "pruned").lineage[-1]["details"]["sensitivity"]
    assert found["of"] == "sparsity"
    rows = {row["layer"]: row["points"] for row in found["rows"]}
    assert len(rows) == {"l2": 6, "magnitude": 10}[method]
    for points in rows.values():
        assert [value for value, _ in points] == list(FRACTIONS)
        assert all(0 <= accuracy <= 1 for _, accuracy in points)
