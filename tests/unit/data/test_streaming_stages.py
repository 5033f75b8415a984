"""Pruning, distillation and calibration from shards give the tensors of those from images in memory."""

import pytest
import torch
from kondense.distill.config import DistillConfig
from kondense.distill.stage import distill
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from kondense.testing.models import TRAINING, small_dataset, small_model

from tests.support.shard_makers import sharded


def pruned_by(method):
    config = PruneConfig(**TRAINING, method=method, sparsity=0.4, round_to=1, steps=1)
    return lambda model, data: prune(model, data, config).model


def quantized_by(method):
    config = QuantizeConfig(method=method, device="cpu", epochs=1, batch_size=32)
    return lambda model, data: quantize(model, data, config).model


def distilled(model, data):
    config = DistillConfig(student_network="resnet8", cache_teacher=True, **TRAINING)
    return distill(None, data, config, teachers={"teacher": model}).model


@pytest.mark.parametrize(
    "technique",
    [pruned_by("taylor"), pruned_by("taylor_channel"), quantized_by("qat"), quantized_by("mixed"), distilled],
    ids=["taylor", "taylor_channel", "qat", "mixed", "distill"],
)
def test_techniques_stream(tmp_path, technique):
    model = small_model("lenet5")
    inside, streamed = (
        technique(model, data).module.state_dict() for data in (small_dataset(), sharded(small_dataset(), tmp_path))
    )
    assert inside.keys() == streamed.keys()
    assert all(torch.equal(inside[name], streamed[name]) for name in inside)


def test_pruning_and_static_quantization_stream(tmp_path):
    model, found = small_model("lenet5"), []
    for data in (small_dataset(), sharded(small_dataset(), tmp_path)):
        pruned = prune(model, data, PruneConfig(**TRAINING, sparsity=0.4, round_to=1, steps=1)).model
        found.append(quantize(pruned, data, QuantizeConfig(method="static", device="cpu")).model.module.state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
