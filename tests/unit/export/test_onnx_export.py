"""Exported models: what onnxruntime computes, on which kernels, from how many bytes."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from kondense.artifacts.identity import directory_identity
from kondense.artifacts.model import Model, save_model, without_input_quantizers
from kondense.data.dataset import Dataset
from kondense.export.integer_storage import pack_nibbles
from kondense.export.onnx import OPSET, compute_in_float, export_onnx, read_metadata
from kondense.export.runtimes import session_entries
from kondense.files import ArtifactError
from kondense.measuring.accuracy import predict
from kondense.measuring.latency import open_session, predict_onnx
from kondense.measuring.processor import CPUINFO, read_cpu
from kondense.measuring.size import count_parameters
from kondense.networks.build import NetworkSpec
from kondense.quantize import weight_only
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from kondense.quantize.static import static
from torch import Tensor, nn

from tests.support.quantize_makers import make_dataset, make_model

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
    for key, value in session_entries(content).items():
        options.add_session_config_entry(key, value)
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
    assert (metadata["input"], metadata["arithmetic"], metadata["opset"]) == ("float32", "float", OPSET)
    assert b"/site-packages/" not in content  # no stack traces of the exporting machine


def test_what_is_no_onnx_file_is_refused() -> None:
    with pytest.raises(ArtifactError, match="must be an ONNX model"):
        read_metadata(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="format_version 1, but got None"):
        read_metadata(onnx.ModelProto().SerializeToString())


class Uncapturable(nn.Module):
    """A module that no capture can follow."""

    def forward(self, values_NK: Tensor) -> Tensor:
        return torch.linalg.lstsq(values_NK, torch.ones(2, 10)).solution


class DataDependent(nn.Module):
    """A module whose path depends on what the images are."""

    def forward(self, values_NK: Tensor) -> Tensor:
        return values_NK if values_NK.sum() > 0 else -values_NK


class Untranslatable(nn.Module):
    """A module with an operator that ONNX lacks."""

    def forward(self, values_NK: Tensor) -> Tensor:
        return torch.special.airy_ai(values_NK)


class Looping(nn.Module):
    """A module that takes the images one by one."""

    def forward(self, values_NK: Tensor) -> Tensor:
        return torch.stack([values_K / values_K.norm() for values_K in values_NK])


class Sampling(nn.Module):
    """A module that draws its weights at every call, as networks do that tell how sure they are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(10))

    def forward(self, values_NK: Tensor) -> Tensor:
        return values_NK @ torch.nn.functional.dropout(self.weight, 0.5, training=True)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Looping, r"a static graph of operators, but Sequential is not: it computes for a fixed number of images"),
        (Sampling, "the same as the network, but its logits change from call to call in evaluation mode"),
        (Uncapturable, r"a static graph of operators, but tail\.1 \(Uncapturable\) is not: aten\.linalg_lstsq"),
        (DataDependent, r"a static graph of operators, but tail\.1 \(DataDependent\) is not: Could not guard on data"),
        (Untranslatable, r"ONNX operators, but tail\.1 \(Untranslatable\) does not: .*special_airy_ai"),
    ],
)
def test_what_cannot_be_exported_is_one_line_that_names_the_module(
    kind: type[nn.Module], rule: str, dataset: Dataset
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    network.add_module("tail", nn.Sequential(nn.ReLU(), kind()))
    spec = NetworkSpec("lenet5", {"classes": 10, "channels": 1, "image_size": 16})
    with pytest.raises(ArtifactError, match=rule) as caught:
        export_onnx(Model(network.eval(), spec), dataset)
    assert "\n" not in str(caught.value)


class Counting(nn.Module):
    """A network that asks for the number of images by ``len`` and ``int``, which return plain numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.conv = nn.Parameter(torch.randn(1, 1, 8)), nn.Conv2d(1, 8, 4, stride=4)
        self.mix, self.fc = nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        tokens = self.conv(images_NCHW).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1)
        return self.fc(self.mix(tokens).relu().mean(1)).reshape(int(images_NCHW.shape[0]), -1)


@pytest.mark.parametrize("method", ["", "static", "weight_only"])
def test_the_number_of_images_may_be_a_number_in_the_code(method: str, dataset: Dataset) -> None:
    model = Model(Counting().eval())
    if method:
        model = quantize(model, dataset, QuantizeConfig(method=method, calibration_images=32)).model
    expected = predict(model.module, dataset.test, dataset, batch_size=64)
    change = (onnx_logits(export_onnx(model, dataset), dataset) - expected).abs().max()
    assert change < (0.05 if method else 1e-4) * expected.abs().max()


def test_the_digest_is_that_of_the_artifact(models: dict[str, Model], dataset: Dataset, tmp_path: Path) -> None:
    digests = set()
    for model in (models["lenet5"], weight_only.quantize(models["lenet5"], bits=4), models["resnet8"]):
        save_model(tmp_path / "model", model)
        assert read_metadata(export_onnx(model, dataset))["digest"] == directory_identity(tmp_path / "model")
        digests.add(directory_identity(tmp_path / "model"))
    assert len(digests) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_a_graph_that_takes_pixels_computes_the_same(channels: int) -> None:
    dataset = make_dataset(size=16, channels=channels, test=64)
    model = make_model("lenet5", dataset, width=0.5, steps=12)
    for each in (model, static.quantize(model, [dataset.normalise(dataset.train.images)])):
        session = open_session(export_onnx(each, dataset, uint8_input=True), exact_products=True)
        assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
            ("images", "tensor(uint8)", ["batch", channels, 16, 16])
        ]
        (logits_NK,) = session.run(None, {"images": dataset.test.images.numpy()})
        normalised_NK = onnx_logits(export_onnx(each, dataset), dataset)
        if each is model:
            torch.testing.assert_close(torch.from_numpy(logits_NK), normalised_NK, rtol=1e-4, atol=1e-4)
        assert (logits_NK.argmax(1) == normalised_NK.argmax(1).numpy()).all()


def test_a_static_model_in_float_keeps_its_integers_and_runs_on_float_kernels(
    models: dict[str, Model], dataset: Dataset, tmp_path: Path
) -> None:
    quantized = static.quantize(models["resnet8"], [dataset.normalise(dataset.train.images)])
    plain = without_input_quantizers(quantized)
    integer = export_onnx(quantized, dataset)
    content = compute_in_float(integer, plain)
    assert not {"QLinearConv", "QGemm", "QuantizeLinear", "DequantizeLinear"} & set(kernels(content, tmp_path))
    assert len(content) < len(integer)
    expected_NK = predict(plain.module, dataset.test, dataset)
    torch.testing.assert_close(onnx_logits(content, dataset), expected_NK, rtol=1e-4, atol=1e-4)
    assert not torch.equal(expected_NK, predict(quantized.module, dataset.test, dataset))  # the original still rounds
    metadata = read_metadata(content)
    assert metadata["arithmetic"] == "float"
    save_model(tmp_path / "plain", plain)
    assert metadata["digest"] == directory_identity(tmp_path / "plain")


def test_nibbles_are_packed_low_half_first() -> None:
    values = np.array([1, -1, 7, -7, 3], np.int8)
    packed = pack_nibbles(values)
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.INT4, [5], packed.tobytes(), raw=True)
    assert onnx.numpy_helper.to_array(tensor).astype(np.int8).tolist() == values.tolist()
