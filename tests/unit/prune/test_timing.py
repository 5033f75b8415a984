import copy
import json

import pytest
import torch
from kondense.channels.dependencies import find_groups
from kondense.networks.build import NetworkSpec, build
from kondense.prune import greedy
from kondense.prune import timing as timing_module
from kondense.prune.config import PruneConfig
from kondense.prune.scores import l1
from kondense.prune.stage import preparer
from kondense.prune.timing import Timing
from kondense.store.open import open_store
from kondense.training.checkpoint import Checkpoint

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

DATASET = toy_dataset()
FEWER = {"conv1": 8, "blocks.0.conv1": 8, "blocks.1.conv1": 8, "blocks.2.conv1": 8}


def resnet():
    return build(NetworkSpec("resnet8", {"classes": 3, "channels": 1, "image_size": 16}), seed=5).eval()


def request(checkpoint=None, **settings):
    return make_context(
        PruneConfig(device="cpu", target="latency", latency_batch_size=4, **settings), DATASET, checkpoint=checkpoint
    )


def measured(monkeypatch, ratio):
    """Let a network take ``ratio(module)`` of the unpruned one's time, since no time may be asserted."""
    monkeypatch.setattr(Timing, "measure", lambda self, module, seconds: ratio(module))


def width(module):
    """The share of the first block's and the last block's channels, which cost time here; others are free."""
    return 0.1 + 0.45 * module.blocks[0].conv1.out_channels / 16 + 0.45 * module.blocks[2].conv1.out_channels / 64


def test_a_shape_is_measured_once_beside_the_unpruned_network_and_kept(tmp_path, monkeypatch):
    module = resnet()
    groups = find_groups(module, DATASET.shape)
    checkpoint = Checkpoint(open_store(str(tmp_path)), "prune/key")
    timing = Timing(module, DATASET.shape, 4, checkpoint, seconds=0.01, confirm_seconds=0.01)
    before = copy.deepcopy(module.state_dict())
    counts = {name: group.channels for name, group in groups.items()}
    smaller = counts | {name: count for name, count in FEWER.items() if name in groups}
    first = timing.ratio(module, groups, smaller)
    ratio = timing.confirm(module, groups, smaller)
    assert first > 0
    assert ratio > 0
    assert timing.unpruned_ms > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    again = Timing(module, DATASET.shape, 4, checkpoint)
    monkeypatch.setattr(Timing, "measure", None)  # not called again
    assert again.ratio(module, groups, smaller) == timing.ratio(module, groups, smaller) == ratio
    assert again.confirm(module, groups, smaller) == ratio
    assert again.unpruned_ms == timing.unpruned_ms
    assert json.loads((tmp_path / "prune/key/latency.json").read_text())["ratios"][0]["ratio"] == ratio


def test_the_exported_shape_computes_what_the_network_does():
    module = resnet()
    timing = Timing(module, DATASET.shape, 4, None)
    (logits,) = timing.unpruned.run(None, {timing.unpruned.get_inputs()[0].name: timing.images_NCHW})
    with torch.no_grad():
        expected = module(torch.from_numpy(timing.images_NCHW))
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-4)


def test_greedy_takes_what_saves_time_and_nothing_else(monkeypatch):
    measured(monkeypatch, width)
    module = resnet()
    method = greedy.prepare(module, request(method="greedy", sparsity=0.5, reconstruct=False))
    method.step(1.0)
    assert width(module) <= 0.5
    trajectory = method.details()["trajectory"]
    assert {row["layer"] for row in trajectory} <= {"blocks.0.conv1", "blocks.2.conv1"}
    assert trajectory[-1]["latency_ms"] == pytest.approx(width(module) * method.timing.unpruned_ms)
    assert method.shortfall() == ""
    assert method.details()["latency"]["rows"]


@pytest.mark.parametrize("prepare", [greedy.prepare, preparer(l1.score)])
def test_a_time_that_cannot_be_reached_gives_the_closest_and_says_so(prepare, monkeypatch):
    measured(monkeypatch, width)
    module = resnet()
    method = prepare(module, request(sparsity=0.9, reconstruct=False))
    method.step(1.0)
    assert module.blocks[2].conv1.out_channels == 8
    least = 0.1 + 0.45 * 8 / 16 + 0.45 * 8 / 64
    assert f"the closest has {1 - least:.4f}" in method.shortfall()
    assert "sparsity 0.9 of the latency was not reached" in method.shortfall()


def test_the_other_methods_meet_a_time_too(monkeypatch):
    measured(monkeypatch, width)
    module = resnet()
    method = preparer(l1.score)(module, request(sparsity=0.4, reconstruct=False))
    method.step(1.0)
    assert width(module) <= 0.6
    assert method.shortfall() == ""


@pytest.mark.parametrize("prepare", [greedy.prepare, preparer(l1.score)])
def test_a_short_measurement_that_flatters_is_not_believed(prepare, monkeypatch):
    """Short measurements promise half of the time; only what a longer one finds counts."""

    def flattering(self, module, seconds):
        return width(module) * (0.5 if seconds == timing_module.SECONDS else 1.0)

    monkeypatch.setattr(Timing, "measure", flattering)
    module = resnet()
    method = prepare(module, request(sparsity=0.4, reconstruct=False))
    method.step(1.0)
    assert width(module) <= 0.6
    assert method.shortfall() == ""
