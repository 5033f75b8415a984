"""The exporter's table of operators is made once, and exports are what torch makes."""

import onnx
import pytest
import torch
import torchvision
from kondense.export import operators
from kondense.export.onnx import _translate
from kondense.export.operators import operators_kept, table
from kondense.export.trace import trace_program
from onnxscript.values import TracedOnnxFunction
from torch import Tensor, nn
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


def test_the_table_is_that_of_torch_though_no_source_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    table.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(TracedOnnxFunction, "function_ir", property(lambda _: pytest.fail("a source was parsed")))
        ours = table(21)
    theirs = ONNXRegistry.from_torchlib(21)
    assert ours.functions.keys() == theirs.functions.keys()
    for target, functions in theirs.functions.items():
        assert ours.functions[target] == functions


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


class InPlace(nn.Module):
    """Overwrites values that are read again."""

    def __init__(self, *, shared: bool = False, renamed: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.shared, self.renamed = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), shared, renamed

    def forward(self, images: Tensor) -> Tensor:
        values = self.norm(self.conv(images))
        rows = values.flatten(1) if self.shared else values
        first = torch.relu_(values)
        rows = first.flatten(1) if self.renamed else rows
        values += first.mean((2, 3), keepdim=True)
        return torch.cat([values.permute(0, 2, 3, 1).reshape(images.shape[0], -1), rows.flatten(1)], 1)


def _networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "in place": InPlace(),
        "in place, shared memory of the new value": InPlace(renamed=True),
        "in place, shared memory": InPlace(shared=True),
        "transformer": torchvision.models.VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=4),
        "pooled": nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            *(nn.Dropout(inplace=True), nn.Linear(4, 2)),
        ),
    }


@pytest.mark.parametrize("name", _networks())
def test_a_program_that_is_traced_once_becomes_the_file_that_torch_makes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _networks()[name].eval()
    shape = (3, 16, 16) if name == "transformer" else (1, 8, 8)
    traced_once = []
    ours = operators.make_functional
    monkeypatch.setattr(
        operators, "make_functional", lambda *given: traced_once.append(ours(*given)) or traced_once[-1]
    )
    once = _translate(trace_program(module, shape))
    monkeypatch.setattr(operators, "make_functional", lambda *given: False)
    again = _translate(trace_program(module, shape))
    assert traced_once == ["shared memory" not in name]
    for proto in (once, again):
        for node in proto.graph.node:
            del node.metadata_props[:]
            node.name = ""
        del proto.graph.value_info[:]
    assert _numbered(once) == _numbered(again)
    assert once.graph.initializer == again.graph.initializer


def _numbered(proto: onnx.ModelProto) -> list[tuple[str, list[str], list[str], list[str]]]:
    """Return the nodes with their values numbered."""
    names = {name: str(number) for number, name in enumerate(name for node in proto.graph.node for name in node.output)}
    return [
        (
            node.op_type,
            [names.get(name, name) for name in node.input],
            [names[name] for name in node.output],
            [str(attribute) for attribute in node.attribute],
        )
        for node in proto.graph.node
    ]
