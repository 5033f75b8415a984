"""Residual blocks on integers: where the quantizers belong, and what onnxruntime makes of them."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from kondense.artifacts.equivalence import outputs
from kondense.data.dataset import Dataset
from kondense.export.integer_storage import merge_quantizers
from kondense.export.onnx import export_onnx
from kondense.quantize.fake_quantize import FakeQuantizedNetwork, weight_grids
from kondense.quantize.graph import quantizer_places, trace_graph
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.residuals import residual_places
from kondense.quantize.static import static
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tests.support.quantize_makers import make_dataset, make_model


class Block(nn.Module):
    """As torchvision's: one ReLU for both places."""

    def __init__(self, *, reads_twice: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.relu = nn.Identity(), nn.ReLU()
        self.reads_twice = reads_twice

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.norm(self.conv2(self.relu(self.conv1(values))))
        return self.relu(hidden + (values * 2 if self.reads_twice else values))


class Network(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(1, 4, 3), Block(**options), Block(**options)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.head(self.pool(self.second(self.first(self.stem(images_NCHW)))).flatten(1))


def found_places(module: nn.Module) -> list[str]:
    graph = trace_graph(module)
    return residual_places(graph, quantizer_places(graph, quantizable_layers(module)))


def test_blocks_and_the_reader_of_the_last_sum_are_quantized() -> None:
    assert found_places(Network()) == ["second", "pool"]  # the first block reads the stem's quantized output


def test_blocks_whose_input_is_computed_with_are_not() -> None:
    assert found_places(Network(reads_twice=True)) == []


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


def test_onnxruntime_adds_integers_and_agrees(dataset: Dataset, tmp_path: Path) -> None:
    model = make_model("resnet8", dataset, steps=20)
    batch_NCHW = dataset.normalise(dataset.train.images[:64])
    quantized = static.quantize(model, [batch_NCHW])
    content = export_onnx(quantized, dataset)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearAdd"] == 3
    assert kinds["Add"] == kinds["Relu"] == kinds["Conv"] == 0
    (found_NK,) = session.run(None, {"images": batch_NCHW.numpy()})
    (wanted_NK,) = outputs(quantized.module, batch_NCHW)
    assert np.abs(found_NK - wanted_NK.numpy()).mean() < 0.02 * wanted_NK.abs().max()


def test_parameters_of_a_wrapped_block_keep_their_place(dataset: Dataset) -> None:
    model = make_model("resnet8", dataset, steps=1)
    quantized = static.quantize(model, [dataset.normalise(dataset.train.images[:8])])
    names = [name for name, _ in model.module.named_parameters()]
    network = FakeQuantizedNetwork(model.module, weight_grids(quantized, model.module), quantized.activations)
    found = dict(network.named_parameters())
    assert all(network.parameter_name(name) in found for name in names)


def test_a_value_is_quantized_once_on_each_grid() -> None:
    grid = [numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.uint8(3), "z")]
    other = [numpy_helper.from_array(np.float32(0.25), "t"), numpy_helper.from_array(np.uint8(3), "y")]
    nodes = []
    for source, result, names in (("x", "a", "sz"), ("a", "b", "sz"), ("x", "c", "sz"), ("x", "d", "ty")):
        nodes.append(helper.make_node("QuantizeLinear", [source, *names], [f"{result}_integers"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{result}_integers", *names], [result]))
    nodes.append(helper.make_node("Sum", ["a", "b", "c", "d"], ["out"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "out")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [*grid, *other])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    values = np.array([-9, 0.1, 0.2, 70], np.float32)

    def run() -> list[float]:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return [float(value) for value in session.run(None, {"x": values})[0]]

    before = run()
    merge_quantizers(proto)
    assert Counter(node.op_type for node in proto.graph.node)["QuantizeLinear"] == 2
    assert run() == before
    assert torch.tensor(before).isfinite().all()
