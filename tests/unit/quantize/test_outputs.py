"""Convolutions whose outputs no module reads: they run on integers by quantizers of their own outputs."""

from pathlib import Path

import pytest
import torch
from kondense.artifacts.identity import OUTPUTS_FORMAT, directory_identity
from kondense.artifacts.model import Model, load_model, model_identity, save_model, without_input_quantizers
from kondense.data.dataset import Dataset
from kondense.evaluate.program import run_in_fresh_process
from kondense.export.onnx import compute_in_float, export_onnx
from kondense.export.torch_program import export_program
from kondense.files import read_json
from kondense.quantize import qat
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.graph import quantizer_places, trace_graph
from kondense.quantize.static import static
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver

from tests.support.quantize_makers import make_context, make_dataset, make_model
from tests.unit.export.test_onnx_export import kernels, onnx_logits

NETWORK = "tests.support.factories:Functional"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONDENSE_ALLOW_NETWORK", NETWORK)
        return make_model(NETWORK, dataset, steps=40)


@pytest.fixture
def quantized(model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", NETWORK)
    return static.quantize(model, [dataset.normalise(dataset.train.images[:100])])


def logits(model: Model, dataset: Dataset) -> Tensor:
    with torch.no_grad():
        return model.module(dataset.normalise(dataset.test.images))


def test_the_outputs_that_functions_read_are_quantized_on_the_grids_of_torchs_observers(
    model: Model, quantized: Model, dataset: Dataset
) -> None:
    seen = {"conv:output": model.module.conv, "depthwise:output": model.module.depthwise, "relu": model.module.relu}
    assert quantized.activations.keys() == {"stem", "conv", "depthwise", "last", "head", *seen}  # not stem:output
    observers = {place: MinMaxObserver(dtype=torch.quint8) for place in seen}
    # What a ReLU makes to zeros needs no integers, so its output counts.
    handles = [
        part.register_forward_hook(lambda _, __, output, place=place: observers[place](output))
        for place, part in seen.items()
    ]
    with torch.no_grad():
        model.module(dataset.normalise(dataset.train.images[:100]))
    for handle in handles:
        handle.remove()
    for place, observer in observers.items():
        scale, zero_point = observer.calculate_qparams()
        assert quantized.activations[place].scale == float(scale)
        assert quantized.activations[place].zero_point == int(zero_point)
    assert quantized.activations["relu"].zero_point == 0


def test_all_convolutions_run_on_integers_in_onnxruntime_and_agree(
    model: Model, quantized: Model, dataset: Dataset, tmp_path: Path
) -> None:
    content = export_onnx(quantized, dataset)
    found = kernels(content, tmp_path)
    assert found["QLinearConv"] == 4
    assert not found["Conv"]
    wanted_NK, found_NK = logits(quantized, dataset), onnx_logits(content, dataset)
    assert (wanted_NK.argmax(1) == found_NK.argmax(1)).double().mean() >= 0.99
    assert float((wanted_NK - found_NK).norm() / wanted_NK.norm()) < 0.02
    assert float((wanted_NK - logits(model, dataset)).norm() / wanted_NK.norm()) < 0.1
    plain = without_input_quantizers(quantized)
    in_float = compute_in_float(content, plain)
    torch.testing.assert_close(onnx_logits(in_float, dataset), logits(plain, dataset), rtol=1e-4, atol=1e-4)


def test_it_is_read_again_and_told_apart_from_formats_without_outputs(
    model: Model, quantized: Model, dataset: Dataset, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", quantized)
    assert read_json(tmp_path / "model" / "model.json", format_version=OUTPUTS_FORMAT)["lineage"] == []
    assert directory_identity(tmp_path / "model") == model_identity(quantized)
    loaded = load_model(tmp_path / "model")
    assert loaded.activations == quantized.activations
    assert torch.equal(logits(loaded, dataset), logits(quantized, dataset))
    images_NCHW = dataset.normalise(dataset.test.images[:50])
    found_NK = run_in_fresh_process(export_program(quantized, dataset), images_NCHW)
    torch.testing.assert_close(found_NK, logits(quantized, dataset)[:50], rtol=1e-5, atol=1e-5)


def test_a_convolution_that_stays_in_float_has_no_quantizer_of_its_output(
    model: Model, quantized: Model, dataset: Dataset
) -> None:
    batches = [dataset.normalise(dataset.train.images[:100])]
    excluded = static.quantize(model, batches, exclude=["depthwise"])
    assert quantized.activations.keys() - excluded.activations.keys() == {"depthwise", "depthwise:output"}


@pytest.mark.parametrize(("mean", "places"), [(True, ["0", "0:output"]), (False, ["0"])])
def test_logits_that_a_convolution_computes_stay_in_float(mean: bool, places: list[str]) -> None:
    class Network(nn.Sequential):
        def forward(self, images_NCHW: Tensor) -> Tensor:
            maps_NCHW = super().forward(images_NCHW)
            return maps_NCHW.mean((2, 3)) if mean else maps_NCHW.flatten(1)

    assert quantizer_places(trace_graph(Network(nn.Conv2d(1, 3, 4))), ["0"]) == places


@pytest.mark.parametrize("own", [True, False])
def test_the_grid_of_a_clipped_output_has_the_range_that_is_left(dataset: Dataset, tmp_path: Path, own: bool) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.clip, self.second = nn.Conv2d(1, 8, 3), nn.Hardtanh(0, 0.25), nn.Conv2d(8, 3, 3)

        def forward(self, images_NCHW: Tensor) -> Tensor:
            maps_NCHW = self.first(images_NCHW)
            maps_NCHW = self.clip(maps_NCHW) if own else maps_NCHW.clamp(0, 0.25)
            return torch.clamp(self.second(maps_NCHW), min=-0.5, max=0.5).mean((2, 3))

    torch.manual_seed(0)
    clipping = Model(Network().eval())
    with torch.no_grad():
        clipping.module.first.weight.mul_(20)  # without the clip, 100 times the range that is left
    quantized = static.quantize(clipping, [dataset.normalise(dataset.train.images[:100])])
    assert quantized.activations["second"].scale == pytest.approx(0.25 / 255)
    assert quantized.activations.keys() == {"first", "second", "second:output"}
    found = kernels(export_onnx(quantized, dataset), tmp_path)
    assert found["QLinearConv"] == 2 and not found["Conv"]
    wanted_NK = logits(clipping, dataset)
    assert float((logits(quantized, dataset) - wanted_NK).norm() / wanted_NK.norm()) < 0.03


def test_quantization_aware_training_learns_the_grids_of_outputs(
    model: Model, quantized: Model, dataset: Dataset, tmp_path: Path
) -> None:
    config = QuantizeConfig(method="qat", epochs=1, batch_size=50, learning_rate=0.02)
    trained = qat.apply(model, make_context(config, dataset))
    assert trained.activations.keys() == quantized.activations.keys()
    places = ("conv:output", "depthwise:output")
    assert all(trained.activations[place] != quantized.activations[place] for place in places)
    content = export_onnx(trained, dataset)
    assert kernels(content, tmp_path)["QLinearConv"] == 4
    assert float((logits(trained, dataset) - onnx_logits(content, dataset)).norm()) < 0.02 * float(
        logits(trained, dataset).norm()
    )
