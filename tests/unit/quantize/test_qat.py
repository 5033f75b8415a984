"""Quantization-aware training and fine-tuning of weights on grids."""

import copy
import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch
from kondense.artifacts.fold import foldable_norms
from kondense.artifacts.model import Model, load_model, save_model
from kondense.data.dataset import Dataset, load_dataset, save_dataset
from kondense.errors import InputError
from kondense.export.onnx import export_onnx
from kondense.measuring.accuracy import predict
from kondense.quantize import qat, stage
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.fake_quantize import FakeQuantizedNetwork, WeightGrid
from kondense.quantize.methods import METHODS
from kondense.quantize.static import static
from kondense.training.trainer import NonFiniteLossError

from tests.support.quantize_makers import make_context, make_dataset, make_model

QAT = QuantizeConfig(method="qat", epochs=2, batch_size=50, learning_rate=0.02)
TUNED = QuantizeConfig(method="weight_only", fine_tune=True, bits=2, epochs=2, batch_size=50, learning_rate=0.02)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def resnet(dataset: Dataset) -> Model:
    return make_model("resnet8", dataset, width=0.5)


@pytest.fixture(scope="module")
def places(dataset: Dataset, resnet: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("qat")
    save_dataset(folder / "dataset", dataset)
    save_model(folder / "model", resnet)
    return {"dataset_dir": folder / "dataset", "model_dir": folder / "model"}


def weights(directory: Path) -> bytes:
    return (directory / "weights.safetensors").read_bytes()


def test_the_artifact_computes_what_was_trained(
    dataset: Dataset, resnet: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(QAT, dataset)
    calibrated = static.apply(resnet, context)
    module = copy.deepcopy(resnet.module)
    grids = {name.removesuffix(".weight"): WeightGrid(each.scale, 8) for name, each in calibrated.quantized.items()}
    network = FakeQuantizedNetwork(module, grids, calibrated.activations, foldable_norms(module))
    context.train(network, "qat", loss=qat.FreezingLoss(network, context.session.loss, 0.5))
    steps = {name: grid.scale() for name, grid in grids.items()}
    trained_NK = predict(network, dataset.validation, dataset)
    biases: list[tuple] = []
    settle_bias = static.settle_bias
    monkeypatch.setattr(static, "settle_bias", lambda *arguments: biases.append(arguments))
    quantized = qat._settle(calibrated, network)
    unsettled_NK = predict(quantized.module, dataset.validation, dataset)
    assert float((unsettled_NK - trained_NK).norm() / trained_NK.norm()) < 1e-5
    # The bias alone was not on its grid during the training.
    for arguments in biases:
        settle_bias(*arguments)
    found_NK = predict(quantized.module, dataset.validation, dataset)
    assert float((found_NK - trained_NK).norm() / trained_NK.norm()) < 5e-3
    for name, tensor in quantized.quantized.items():
        assert torch.equal(quantized.module.get_parameter(name), tensor.dequantize())
        assert torch.equal(tensor.scale, steps[name.removesuffix(".weight")])
        assert not torch.equal(tensor.scale, calibrated.quantized[name].scale)
    assert quantized.activations.keys() == calibrated.activations.keys()
    assert quantized.activations != calibrated.activations
    # What one tensor fed before, one grid feeds still.
    assert quantized.activations["blocks.0.shortcut"] == quantized.activations["blocks.0.conv1"]


def test_training_makes_few_bits_better(dataset: Dataset, resnet: Model) -> None:
    config = dataclasses.replace(QAT, bits=2, epochs=4)

    def loss(model: Model) -> float:
        logits_NK = predict(model.module, dataset.validation, dataset)
        return float(torch.nn.functional.cross_entropy(logits_NK, dataset.validation.labels))

    trained = qat.apply(resnet, make_context(config, dataset))
    assert {tensor.bits for tensor in trained.quantized.values()} == {2}
    assert loss(trained) < 0.7 * loss(static.apply(resnet, make_context(config, dataset)))


def test_onnxruntime_runs_it_on_integers_alone(dataset: Dataset, resnet: Model, tmp_path: Path) -> None:
    from tests.unit.export.test_onnx_export import kernels, onnx_logits

    quantized = qat.apply(resnet, make_context(QAT, dataset))
    content = export_onnx(quantized, dataset)
    found = kernels(content, tmp_path)
    layers = Counter(type(layer).__name__ for layer in quantized.module.modules())
    assert (found["QLinearConv"], found["QGemm"]) == (layers["Conv2d"], layers["Linear"])
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & set(found)
    expected_N = predict(quantized.module, dataset.test, dataset).argmax(1)
    same = onnx_logits(content, dataset).argmax(1) == expected_N
    assert float(same.double().mean()) >= 0.999


def test_onnxruntime_keeps_to_integers_behind_an_excluded_layer(
    dataset: Dataset, resnet: Model, tmp_path: Path
) -> None:
    from tests.unit.export.test_onnx_export import kernels, onnx_logits

    whole, partly = (
        static.quantize(resnet, [dataset.normalise(dataset.train.images)], exclude=excluded)
        for excluded in ((), ("conv1",))
    )
    content = export_onnx(partly, dataset)
    found, before = kernels(content, tmp_path), kernels(export_onnx(whole, dataset), tmp_path)
    assert found["Conv"] + found["FusedConv"] == 1
    assert found["QLinearConv"] == before["QLinearConv"] - 1
    assert found["QLinearAdd"] == before["QLinearAdd"] > 0  # a shortcut around the next layers sees integers, too
    same = onnx_logits(content, dataset).argmax(1) == predict(partly.module, dataset.test, dataset).argmax(1)
    assert float(same.double().mean()) >= 0.999


@pytest.mark.parametrize("config", [QAT, TUNED], ids=["qat", "weight_only"])
def test_a_run_that_was_stopped_ends_as_an_undisturbed_one(
    config: QuantizeConfig, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KONDENSE_CHECKPOINTS", raising=False)
    stage.run(config, **places, quantized_dir=tmp_path / "undisturbed")
    monkeypatch.setenv("KONDENSE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    stage.run(dataclasses.replace(config, epochs=1, max_epochs=2), **places, quantized_dir=tmp_path / "half")
    assert list((tmp_path / "checkpoints").rglob("000001-00000000"))
    stage.run(config, **places, quantized_dir=tmp_path / "resumed")
    assert weights(tmp_path / "resumed") == weights(tmp_path / "undisturbed") != weights(tmp_path / "half")
    first, second = (load_model(tmp_path / name).lineage[-1] for name in ("resumed", "undisturbed"))
    assert first["metrics"] == second["metrics"]


@pytest.mark.parametrize("config", [QAT, TUNED], ids=["qat", "weight_only"])
def test_without_a_teacher_the_model_itself_teaches(
    config: QuantizeConfig, places: dict[str, Path], tmp_path: Path
) -> None:
    stage.run(config, **places, quantized_dir=tmp_path / "alone")
    stage.run(config, **places, quantized_dir=tmp_path / "taught", teacher_dir=places["model_dir"])
    stage.run(dataclasses.replace(config, alpha=0.0), **places, quantized_dir=tmp_path / "labels")
    assert weights(tmp_path / "alone") == weights(tmp_path / "taught") != weights(tmp_path / "labels")
    assert "teacher" in load_model(tmp_path / "taught").lineage[-1]["inputs"]


@pytest.mark.parametrize("method", ["qat", "weight_only"])
def test_pruned_weights_stay_zero(method: str, dataset: Dataset) -> None:
    model = make_model("lenet5", dataset, width=0.5)
    with torch.no_grad():
        for name in ("conv2", "fc1"):
            weight = model.module.get_parameter(f"{name}.weight")
            weight *= weight.abs() > weight.abs().median()
    pruned = dataclasses.replace(model, masked=("conv2.weight", "fc1.weight"))
    config = dataclasses.replace(QAT, method=method, bits=4, fine_tune=method != "qat")
    quantized = METHODS[method].load()(pruned, make_context(config, dataset))
    assert quantized.masked == pruned.masked
    for name in pruned.masked:
        zeros = pruned.module.get_parameter(name) == 0
        assert (quantized.quantized[name].integers[zeros] == 0).all()
        moved = quantized.module.get_parameter(name)[~zeros] - pruned.module.get_parameter(name)[~zeros]
        assert float(moved.detach().abs().max()) > 0


def test_fine_tuned_scales_take_two_bytes(places: dict[str, Path], tmp_path: Path) -> None:
    stage.run(TUNED, **places, quantized_dir=tmp_path / "tuned")
    model = load_model(tmp_path / "tuned")
    assert not model.activations
    for tensor in model.quantized.values():
        assert torch.equal(tensor.scale, tensor.scale.bfloat16().float())
    curves = model.lineage[-1]["curves"]
    assert [point["epoch"] for point in curves] == [1, 2]
    dataset = load_dataset(places["dataset_dir"])
    logits_NK = predict(model.module, dataset.validation, dataset)
    expected = float((logits_NK.argmax(1) == dataset.validation.labels).double().mean())
    assert curves[-1]["validation_accuracy"] == expected  # the curve is of the rounded network


def test_a_diverged_run_says_so(dataset: Dataset, resnet: Model) -> None:
    with pytest.raises(NonFiniteLossError, match="a lower learning_rate may help"):
        qat.apply(resnet, make_context(dataclasses.replace(QAT, learning_rate=100.0, clip_norm=0.0, epochs=3), dataset))


def shrunk(model: Model, norm: bool) -> Model:
    """Return a model whose first layer has tiny weights; what follows it takes that back, the norm or a later layer."""
    small = 2.0**-20
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        module.conv1.weight.mul_(small)
        if norm:
            module.bn1.running_mean.mul_(small)
            module.bn1.running_var.mul_(small**2)
            module.bn1.eps *= small**2
        else:
            module.conv1.bias.mul_(small)
            module.conv2.weight.div_(small)
    return dataclasses.replace(model, module=module)


def test_tiny_weights_in_front_of_norms_are_trained_as_others(dataset: Dataset, resnet: Model) -> None:
    """The result is that of the network with weights of usual size, which computes the same."""
    wanted, got = (stage.quantize(model, dataset, QAT).model for model in (resnet, shrunk(resnet, norm=True)))
    logits_NK = [predict(each.module, dataset.validation, dataset) for each in (wanted, got)]
    torch.testing.assert_close(logits_NK[1], logits_NK[0], rtol=0.0, atol=0.05 * float(logits_NK[0].abs().max()))


def test_tiny_weights_that_training_would_dwarf_are_refused(dataset: Dataset) -> None:
    model = shrunk(make_model("lenet5", dataset), norm=False)
    config = dataclasses.replace(QAT, learning_rate=0.0)
    for each in (config, config.for_imported()):
        with pytest.raises(InputError, match="weights of 'conv1' are .* times smaller.*method=static"):
            stage.quantize(model, dataset, each)
