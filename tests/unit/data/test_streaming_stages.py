"""Pruning and calibration from shards give the tensors of those from images in memory."""

import torch
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from kondense.testing.models import TRAINING, small_dataset, small_model

from tests.support.shard_makers import sharded


def test_pruning_and_static_quantization_stream(tmp_path):
    model, found = small_model("lenet5"), []
    for data in (small_dataset(), sharded(small_dataset(), tmp_path)):
        pruned = prune(model, data, PruneConfig(**TRAINING, sparsity=0.4, round_to=1, steps=1)).model
        found.append(quantize(pruned, data, QuantizeConfig(method="static", device="cpu")).model.module.state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
