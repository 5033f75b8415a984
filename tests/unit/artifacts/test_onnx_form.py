"""Exported models: what onnxruntime computes, on which kernels, from how many bytes."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from components.artifacts.dataset import Dataset
from components.artifacts.files import ArtifactError
from components.artifacts.integer_storage import pack_nibbles
from components.artifacts.model import Model
from components.artifacts.onnx_form import OPSET, export_onnx, read_metadata
from components.measuring.accuracy import predict
from components.measuring.latency import open_session, predict_onnx
from components.measuring.processor import CPUINFO, read_cpu
from components.measuring.size import count_parameters
from components.networks.build import NetworkSpec
from components.quantize import static, weight_only
from tests.quantize_makers import make_dataset, make_model

NETWORKS = ("lenet5", "resnet8", "mobilenet_small")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def models(dataset: Dataset) -> dict[str, Model]:
    return {name: make_model(name, dataset, width=0.5) for name in NETWORKS}


def onnx_logits(content: bytes, dataset: Dataset, *, exact_products: bool = True) -> Tensor:
    images_NCHW = dataset.normalise(dataset.test.images).numpy()
    return torch.from_numpy(
        predict_onnx(open_session(content, exact_products=exact_products), images_NCHW, batch_size=64)
    )


def kernels(content: bytes, folder: Path) -> Counter[str]:
    """Return how often onnxruntime runs each operator once it has optimised the graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize("name", NETWORKS)
def test_float_models_compute_the_same(name: str, models: dict[str, Model], dataset: Dataset, tmp_path: Path) -> None:
    content = export_onnx(models[name], dataset)
    expected_NK = predict(models[name].module, dataset.test, dataset)
    torch.testing.assert_close(onnx_logits(content, dataset), expected_NK, rtol=1e-4, atol=1e-4)
    assert "BatchNormalization" not in kernels(content, tmp_path)


@pytest.mark.parametrize(("name", "granularity"), [*((name, "channel") for name in NETWORKS), ("resnet8", "tensor")])
def test_static_models_run_on_integers_and_agree(
    name: str, granularity: str, models: dict[str, Model], dataset: Dataset, tmp_path: Path
) -> None:
    calibration = [dataset.normalise(dataset.train.images)]
    quantized = static.quantize(models[name], calibration, granularity=granularity)
    content = export_onnx(quantized, dataset)
    layers = Counter(type(layer).__name__ for layer in quantized.module.modules())
    found = kernels(content, tmp_path)
    assert found["QLinearConv"] == layers["Conv2d"]
    assert found["QGemm"] == layers["Linear"]
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & set(found)
    expected_N = predict(quantized.module, dataset.test, dataset).argmax(1)
    saturates = "vnni" not in read_cpu(CPUINFO)[1]
    for exact_products in (True,) if saturates else (True, False):
        logits_NK = onnx_logits(content, dataset, exact_products=exact_products)
        assert float((logits_NK.argmax(1) == expected_N).double().mean()) >= 0.999


@pytest.mark.parametrize(("bits", "kind"), [(2, "INT4"), (5, "INT8")])
def test_weight_only_models_compute_the_same_from_few_bytes(
    bits: int, kind: str, models: dict[str, Model], dataset: Dataset, tmp_path: Path
) -> None:
    quantized = weight_only.quantize(models["lenet5"], bits=bits)
    content = export_onnx(quantized, dataset)
    expected_NK = predict(quantized.module, dataset.test, dataset)
    torch.testing.assert_close(onnx_logits(content, dataset), expected_NK, rtol=1e-4, atol=1e-4)
    # The kernels of a float model: the integers are made floats once, while the model is loaded.
    assert kernels(content, tmp_path) == kernels(export_onnx(models["lenet5"], dataset), tmp_path)
    weights = [each for each in onnx.load_from_string(content).graph.initializer if len(each.dims) > 1]
    large = [each for each in weights if np.prod(each.dims) > 300]
    assert {onnx.TensorProto.DataType.Name(each.data_type) for each in large} == {kind}
    assert len(content) < count_parameters(quantized.module) * (0.5 if kind == "INT4" else 1) + 6_000


def test_export_leaves_the_model_as_it_was(models: dict[str, Model], dataset: Dataset) -> None:
    quantized = static.quantize(models["resnet8"], [dataset.normalise(dataset.train.images[:50])])
    before_NK = predict(quantized.module, dataset.validation, dataset)
    first = export_onnx(quantized, dataset)
    assert torch.equal(predict(quantized.module, dataset.validation, dataset), before_NK)
    assert export_onnx(quantized, dataset) == first


def test_input_output_opset_and_metadata(models: dict[str, Model], dataset: Dataset) -> None:
    content = export_onnx(models["lenet5"], dataset)
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert [each.version for each in proto.opset_import if not each.domain] == [OPSET]
    session = open_session(content)
    assert [(each.name, each.shape) for each in session.get_inputs()] == [("images", ["batch", 1, 16, 16])]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("logits", ["batch", 10])]
    metadata = read_metadata(content)
    assert metadata["classes"] == list(dataset.classes)
    assert metadata["mean"] == list(dataset.mean)
    assert metadata["std"] == list(dataset.std)
    assert metadata["shape"] == [1, 16, 16]
    assert metadata["network"] == "lenet5"
    assert b"/site-packages/" not in content  # no stack traces of the exporting machine


def test_what_is_no_onnx_file_is_refused() -> None:
    with pytest.raises(ArtifactError, match="must be an ONNX model"):
        read_metadata(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="format_version 1, but got None"):
        read_metadata(onnx.ModelProto().SerializeToString())


class Unexportable(nn.Module):
    """A network with an operator that ONNX lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(256, 10)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return torch.linalg.lstsq(self.fc(images_NCHW.flatten(1)), torch.ones(2, 10)).solution


def test_an_operator_that_onnx_lacks_is_one_clear_error(dataset: Dataset) -> None:
    spec = NetworkSpec("lenet5", {"classes": 10, "channels": 1, "image_size": 16})
    with pytest.raises(ArtifactError, match="operators that ONNX has, but: [^\n]+$"):
        export_onnx(Model(Unexportable().eval(), spec), dataset)


def test_nibbles_are_packed_low_half_first() -> None:
    values = np.array([1, -1, 7, -7, 3], np.int8)
    packed = pack_nibbles(values)
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.INT4, [5], packed.tobytes(), raw=True)
    assert onnx.numpy_helper.to_array(tensor).astype(np.int8).tolist() == values.tolist()
