"""The exporter's table of operators is made once, and exports are what torch makes."""

import torch
from kondense.export.onnx import _translate
from kondense.export.operators import operators_kept, table
from kondense.export.trace import trace_program
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry


def test_an_export_with_the_kept_table_is_that_of_torch_and_leaves_torch_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(72, 3)).eval()
    before = ONNXRegistry.__dict__["from_torchlib"]
    kept = [_translate(trace_program(module, (1, 8, 8))) for _ in range(2)]
    plain = torch.onnx.export(
        trace_program(module, (1, 8, 8)),
        dynamo=True,
        opset_version=21,
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert plain is not None
    assert [node.op_type for node in kept[1].graph.node] == [node.op_type for node in plain.model_proto.graph.node]
    assert kept[0].graph.initializer == kept[1].graph.initializer
    assert ONNXRegistry.__dict__["from_torchlib"] is before
    assert table.cache_info().misses == 1


def test_an_entry_of_ones_own_does_not_stay_in_the_kept_table() -> None:
    version = 18
    with operators_kept():
        first = ONNXRegistry.from_torchlib(version)
        target = next(iter(first.functions))
        count = len(first.functions[target])
        first.functions[target].clear()
        second = ONNXRegistry.from_torchlib(version)
    assert count > 0
    assert len(second.functions[target]) == count
