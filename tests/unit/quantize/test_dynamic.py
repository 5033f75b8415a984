"""Dynamic quantization: the simulation against onnxruntime's own operators."""

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from kondense.artifacts.model import load_model, save_model
from kondense.artifacts.quantized import DynamicQuantizer, read_quantizer
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import Dataset
from kondense.export.onnx import export_onnx
from kondense.measuring.accuracy import predict
from kondense.measuring.latency import open_session
from kondense.quantize import dynamic

from tests.support.quantize_makers import make_dataset, make_model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16, test=1000)


def onnx_logits(content: bytes, images_NCHW: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(open_session(content).run(None, {"images": images_NCHW.numpy()})[0])


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "mobilenet_small"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_onnxruntime_computes_the_same_on_integers(name: str, granularity: str, dataset: Dataset) -> None:
    model = make_model(name, dataset, width=0.5)
    quantized = dynamic.quantize(model, granularity=granularity)
    content = export_onnx(quantized, dataset)
    kinds = Counter(node.op_type for node in onnx.load_from_string(content).graph.node)
    layers = Counter(type(layer).__name__ for layer in model.module.modules())
    assert kinds["ConvInteger"] == layers["Conv2d"]
    assert kinds["MatMulInteger"] == layers["Linear"]
    assert not {"Conv", "Gemm", "MatMul"} & set(kinds)
    images_NCHW = dataset.normalise(dataset.test.images)
    with torch.no_grad():
        expected_NK = quantized.module(images_NCHW)
    found_NK = onnx_logits(content, images_NCHW)
    assert float((found_NK.argmax(1) == expected_NK.argmax(1)).double().mean()) >= 0.999
    with torch.no_grad():
        float_NK = model.module(images_NCHW)
    assert 0 < float((expected_NK - float_NK).norm()) < 0.1 * float(float_NK.norm())


def test_a_grid_is_that_of_onnxs_operator() -> None:
    values = torch.tensor([[-1.0, 0.0, 0.3, 3.0]])
    (found,) = DynamicQuantizer()(torch.nn.Identity(), (values,))
    scale = 4.0 / 255
    expected = ((values / scale).round() + 64).clamp(0, 255).sub(64) * scale  # 1 / scale = 63.75
    torch.testing.assert_close(found, expected)
    for constant in (torch.zeros(2, 3), torch.full((2, 3), 5.0), torch.full((2, 3), -5.0)):
        torch.testing.assert_close(DynamicQuantizer()(torch.nn.Identity(), (constant,))[0], constant)


def test_the_artifact_and_the_packed_form_keep_it(dataset: Dataset, tmp_path: Path) -> None:
    quantized = dynamic.quantize(make_model("lenet5", dataset, width=0.5), bits=4)
    expected_NK = predict(quantized.module, dataset.test, dataset)
    save_model(tmp_path / "model", quantized)
    for model in (load_model(tmp_path / "model"), unpack_model(pack_model(quantized))):
        assert set(model.activations.values()) == {DynamicQuantizer()}
        assert torch.equal(predict(model.module, dataset.test, dataset), expected_NK)


@pytest.mark.parametrize("spec", [{"scheme": "odd"}, {"scheme": "dynamic", "bits": 7}])
def test_a_scheme_that_is_none_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        read_quantizer(spec)
