"""Networks with one construct each are quantized, stored in kz and exported, and compute the same."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from kondense.artifacts.equivalence import outputs, probes
from kondense.artifacts.images import Images
from kondense.artifacts.model import Model, without_input_quantizers
from kondense.codec.model_file import pack_model, unpack_model
from kondense.export import onnx as exporting
from kondense.export.onnx import compute_in_float, export_onnx, read_metadata
from kondense.export.runtimes import computed_wrong, runtimes, session_entries
from kondense.export.verification import run
from kondense.files import ArtifactError
from kondense.networks.build import NetworkSpec
from kondense.quantize import dynamic, weight_only
from kondense.quantize.static import static
from torch import nn

from tests.support.constructs import CONSTRUCTS, construct

HOME = "tests.support.constructs"
SHAPE = (1, 8, 8)
BATCHES = probes(SHAPE, seed=1)
IMAGES = Images(("a", "b", "c"), SHAPE, (0.5,), (0.25,))
WAYS = {
    "float": lambda model: model,
    "weight_only": lambda model: weight_only.quantize(model, bits=4),
    "dynamic": dynamic.quantize,
    "static": lambda model: static.quantize(model, [torch.cat(BATCHES)], equalize=True),
}
CASES = [(kind.__name__, "static") for kind in CONSTRUCTS] + [
    ("Transformer", "weight_only"),
    ("Transformer", "dynamic"),
    ("Measured", "dynamic"),
    ("Twice", "weight_only"),
    ("Tied", "static"),
    ("Tied", "weight_only"),
]


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", "tests.support")


def model_of(name: str) -> Model:
    if name == "Tied":
        from tests.support.factories import Tied

        torch.manual_seed(0)
        return Model(Tied().eval(), NetworkSpec("tests.support.factories:Tied", {}))
    return Model(construct(name), NetworkSpec(f"{HOME}:{name}", {}))


@pytest.mark.parametrize(("name", "way"), CASES)
def test_constructs_are_quantized_stored_and_exported(name: str, way: str) -> None:
    model = dataclasses.replace(WAYS[way](dataclasses.replace(model_of(name), images=IMAGES)), images=IMAGES)
    content = export_onnx(model, IMAGES)
    loaded = unpack_model(pack_model(model)).module
    proto = onnx.load_model_from_string(content)
    for batch in BATCHES:
        expected = outputs(model.module, batch)[0]
        assert torch.equal(outputs(loaded, batch)[0], expected)
        logits = run(proto, batch)
        assert logits is not None
        # One rounding to the other side moves an integer file's logits by a step.
        tolerance = 0.1 if model.activations else 1e-4
        assert float((logits - expected).abs().max() / expected.abs().max()) <= tolerance
    used = {value for node in proto.graph.node for value in node.input}
    assert {constant.name for constant in proto.graph.initializer} <= used
    if name == "Tied" and not model.activations:  # three layers of one weight
        weights = [each for each in proto.graph.initializer if list(each.dims) == [4, 4, 3, 3]]
        assert len(weights) == 1


def test_tied_integers_are_stored_once_in_a_file_in_float_arithmetic() -> None:
    model = dataclasses.replace(WAYS["static"](dataclasses.replace(model_of("Tied"), images=IMAGES)), images=IMAGES)
    plain = without_input_quantizers(model)
    proto = onnx.load_model_from_string(compute_in_float(export_onnx(model, IMAGES), plain))
    weights = [each for each in proto.graph.initializer if list(each.dims) == [4, 4, 3, 3]]
    assert [each.data_type for each in weights] == [onnx.TensorProto.INT8]
    for batch in BATCHES:
        logits = run(proto, batch)
        assert logits is not None
        torch.testing.assert_close(logits, outputs(plain.module, batch)[0], rtol=1e-4, atol=1e-4)


def test_norms_behind_checks_and_tables_are_folded() -> None:
    assert "BatchNormalization" not in operators(export_onnx(model_of("Checked"), IMAGES))


def operators(content: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_model_from_string(content).graph.node}


def test_four_bits_have_the_form_that_runtimes_read() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, 4), nn.Linear(4, 3)).eval()
    model = Model(module, NetworkSpec("x:y", {}))
    quantized = weight_only.quantize(model, bits=4)
    proto = exporting._translate(exporting.trace_program(copy_of(quantized), SHAPE))
    exporting.store_packed(proto)
    kinds = {tuple(each.dims): each.data_type for each in proto.graph.initializer if len(each.dims) > 1}
    assert kinds[(9, 64)] == kinds[(3, 4)] == onnx.TensorProto.INT4
    assert kinds[(4, 9)] == onnx.TensorProto.INT8  # an odd number of weights per output
    dequantized = [node for node in proto.graph.node if node.op_type == "DequantizeLinear"]
    assert len(dequantized) == 2 and all(len(node.input) == 2 for node in dequantized)
    assert session_entries(proto.SerializeToString())
    logits = run(proto, BATCHES[1])
    assert logits is not None
    torch.testing.assert_close(logits, outputs(quantized.module, BATCHES[1])[0], rtol=1e-4, atol=1e-5)


def copy_of(model: Model) -> nn.Module:
    import copy

    module = copy.deepcopy(model.module)
    exporting.replace_layers(module, model.quantized, model.activations)
    return module


def test_a_file_that_computes_something_else_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    translate = exporting._translate

    def wrong(program: torch.export.ExportedProgram) -> onnx.ModelProto:
        proto = translate(program)
        for node in proto.graph.node:
            if node.op_type == "HardSwish":
                node.op_type = "HardSigmoid"
        return proto

    monkeypatch.setattr(exporting, "_translate", wrong)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(), nn.Hardswish()), nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(ArtifactError, match=r"its logits differ by .* the first module .* is 1\.1 \(Hardswish\)"):
        export_onnx(Model(module.eval(), NetworkSpec("x:y", {})), IMAGES)


def test_the_metadata_tells_the_runtimes() -> None:
    metadata = read_metadata(export_onnx(WAYS["weight_only"](model_of("Gated")), IMAGES))
    assert metadata["runtimes"]["least"] == "onnxruntime 1.19"
    assert metadata["runtimes"]["faulty"] == ""
    assert any(each.startswith("onnxruntime 1.32") for each in metadata["runtimes"]["checked"])
    faulty = runtimes({"conv2": 50, "fc1": 64}, four_bits=False)["faulty"]
    assert faulty == "onnxruntime 1.21 to 1.24 on processors with AMX: conv2 (50 filters)"


def test_widths_that_some_versions_compute_wrong() -> None:
    assert [width for width in (24, 25, 28, 30, 31, 32, 33, 50, 56, 250, 252) if computed_wrong(width)] == [
        *(25, 30, 31, 50, 250)
    ]
    assert not any(computed_wrong(int(width)) for width in np.arange(4, 300, 4))
