"""SiLUs, gates and means over positions between quantized layers: onnxruntime computes them on integers."""

from pathlib import Path

import pytest
import torch
from kondense.artifacts.gates import SigmoidProduct
from kondense.artifacts.identity import GATES_FORMAT, directory_identity
from kondense.artifacts.model import Model, load_model, model_identity, save_model, without_input_quantizers
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.export.onnx import compute_in_float, export_onnx
from kondense.files import read_json
from kondense.quantize import qat
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.static import static
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver

from tests.support.quantize_makers import make_context, make_dataset, make_model
from tests.unit.export.test_onnx_export import kernels, onnx_logits

NETWORK = "tests.support.factories:Excited"
SILUS = ("stem_act", "act", "squeezed")
LAYERS = {"stem", "depthwise", "squeeze", "excite", "project", "last", "head"}
IN_FRONT = {"stem_act", "act", "squeezed", "gate", "last_act"}  # read a convolution's output


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONDENSE_ALLOW_NETWORK", NETWORK)
        return make_model(NETWORK, dataset, steps=120)


@pytest.fixture
def quantized(model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", NETWORK)
    return static.quantize(model, [dataset.normalise(dataset.train.images[:100])])


def logits(model: Model, dataset: Dataset) -> Tensor:
    with torch.no_grad():
        return model.module(dataset.normalise(dataset.test.images))


def test_sigmoids_and_what_products_read_lie_on_the_grids_of_torchs_observers(
    model: Model, quantized: Model, dataset: Dataset
) -> None:
    sigmoids = {f"{name}.sigmoid:output" for name in SILUS}
    # The product of act is read by the mean and by the gates' product, those of the others by a convolution alone.
    assert quantized.activations.keys() == {*LAYERS, *IN_FRONT, *sigmoids, "act:output", "gate:output"}
    observers = {place: MinMaxObserver(dtype=torch.quint8) for place in (*sigmoids, "act:output", "gate:output")}

    def see(name: str, values: Tensor, output: Tensor) -> None:
        for place, seen in ((f"{name}.sigmoid:output", torch.sigmoid(values)), (f"{name}:output", output)):
            if place in observers:
                observers[place](seen)

    handles = [
        model.module.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: see(name, inputs[0], output)
        )
        for name in ("gate", "squeezed")  # a SiLU in place has overwritten its input
    ]
    with torch.no_grad():
        model.module(dataset.normalise(dataset.train.images[:100]))
    for handle in handles:
        handle.remove()
    for place in ("gate:output", "squeezed.sigmoid:output"):
        scale, zero_point = observers[place].calculate_qparams()
        assert quantized.activations[place].scale == float(scale)
        assert quantized.activations[place].zero_point == int(zero_point)


def test_onnxruntime_computes_them_on_integers_and_agrees(
    model: Model, quantized: Model, dataset: Dataset, tmp_path: Path
) -> None:
    content = export_onnx(quantized, dataset)
    found = kernels(content, tmp_path)
    assert (found["QLinearSigmoid"], found["QLinearMul"], found["QLinearGlobalAveragePool"]) == (4, 4, 1)
    # The norm in groups reads floats, so the SiLU before it stays one.
    assert found["QuickGelu"] + found["Sigmoid"] == 1
    wanted_NK, found_NK = logits(quantized, dataset), onnx_logits(content, dataset)
    assert (wanted_NK.argmax(1) == found_NK.argmax(1)).double().mean() >= 0.99
    assert float((wanted_NK - found_NK).norm() / wanted_NK.norm()) < 0.02
    assert float((wanted_NK - logits(model, dataset)).norm() / wanted_NK.norm()) < 0.1
    plain = without_input_quantizers(quantized)
    in_float = compute_in_float(content, plain)
    torch.testing.assert_close(onnx_logits(in_float, dataset), logits(plain, dataset), rtol=1e-4, atol=1e-4)


def test_what_reads_a_layer_in_float_stays_in_float(model: Model, dataset: Dataset, quantized: Model) -> None:
    batches = [dataset.normalise(dataset.train.images[:100])]
    excluded = static.quantize(model, batches, exclude=["project"])
    assert type(excluded.module.get_submodule("stem_act")) is SigmoidProduct
    without = static.quantize(model, batches, exclude=["squeeze", "excite", "project", "depthwise"])
    assert type(without.module.get_submodule("squeezed")) is nn.SiLU


def test_it_is_read_again_and_told_apart_from_earlier_formats(
    quantized: Model, dataset: Dataset, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", quantized)
    description = read_json(tmp_path / "model" / "model.json", format_version=GATES_FORMAT)
    kinds = {name: edit["type"] for name, edit in description["edits"].items() if edit["type"] != "Identity"}
    assert kinds == dict.fromkeys(SILUS, "SigmoidProduct")
    assert directory_identity(tmp_path / "model") == model_identity(quantized)
    for loaded in (load_model(tmp_path / "model"), unpack_model(pack_model(quantized))):
        assert loaded.activations == quantized.activations
        assert torch.equal(logits(loaded, dataset), logits(quantized, dataset))


def test_an_edit_of_another_module_than_a_silu_is_refused(quantized: Model, dataset: Dataset) -> None:
    from kondense.artifacts.structure import apply_edits

    with pytest.raises(InputError, match="cannot separate the layers of a Sigmoid"):
        apply_edits(quantized.module, {"gate": {"type": "SigmoidProduct"}})


def test_quantization_aware_training_learns_their_grids(
    model: Model, quantized: Model, dataset: Dataset, tmp_path: Path
) -> None:
    config = QuantizeConfig(method="qat", epochs=1, batch_size=50, learning_rate=0.02)
    trained = qat.apply(model, make_context(config, dataset))
    assert trained.activations.keys() == quantized.activations.keys()
    assert trained.activations["act:output"] != quantized.activations["act:output"]
    content = export_onnx(trained, dataset)
    assert kernels(content, tmp_path)["QLinearMul"] == 4
    wanted_NK = logits(trained, dataset)
    assert float((wanted_NK - onnx_logits(content, dataset)).norm() / wanted_NK.norm()) < 0.02
