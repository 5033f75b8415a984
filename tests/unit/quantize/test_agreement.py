"""Every method on every kind of model: what torch simulates, onnxruntime computes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from kondense.artifacts.model import Model, load_model, save_model
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import Dataset, save_dataset
from kondense.export.onnx import export_onnx
from kondense.measuring.accuracy import predict
from kondense.measuring.latency import open_session, predict_onnx
from kondense.networks.allowed import VARIABLE
from kondense.prune import stage as prune_stage
from kondense.prune.config import PruneConfig
from kondense.quantize import stage
from kondense.quantize.config import QuantizeConfig
from torch import nn

from tests.support.quantize_makers import make_dataset, make_model

METHODS = {
    "dynamic": {},
    "fixed_point": {"bits": 8},
    "mixed integer": {"method": "mixed", "bits": 6, "arithmetic": "integer"},
    "qat": {"bits": 6},
    "static symmetric": {"method": "static", "activations": "symmetric", "granularity": "tensor"},
    "static refined": {
        "method": "static",
        "calibration": "entropy",
        "equalize": True,
        "bias_correction": True,
        "rounding": "learned",
        "rounding_steps": 5,
    },
    "weight_only": {"bits": 3, "fine_tune": True},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16, test=1000)


@pytest.fixture(scope="module")
def places(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a network whose channels and then whose weights were pruned."""
    folder = tmp_path_factory.mktemp("agreement")
    save_dataset(folder / "dataset", dataset)
    save_model(folder / "whole", make_model("resnet8", dataset, steps=40))
    tuning = {"epochs": 1, "batch_size": 50, "learning_rate": 0.02}
    names = ("whole", "channels", "pruned")
    for config, before, after in zip(
        (PruneConfig(method="l1", sparsity=0.5, **tuning), PruneConfig(method="magnitude", sparsity=0.7, **tuning)),
        names[:-1],
        names[1:],
        strict=True,
    ):
        prune_stage.run(config, dataset_dir=folder / "dataset", model_dir=folder / before, pruned_dir=folder / after)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_pruned_models_quantize_and_onnxruntime_agrees(
    name: str, places: Path, dataset: Dataset, tmp_path: Path
) -> None:
    config = QuantizeConfig(
        **{"method": name, "epochs": 1, "batch_size": 50, "calibration_images": 100} | METHODS[name]
    )
    stage.run(config, dataset_dir=places / "dataset", model_dir=places / "pruned", quantized_dir=tmp_path / "quantized")
    pruned, quantized = load_model(places / "pruned"), load_model(tmp_path / "quantized")
    assert len(quantized.module.conv1.weight) < 16
    kept_before = torch.cat([pruned.module.get_parameter(masked).flatten() != 0 for masked in pruned.masked])
    kept = torch.cat([quantized.module.get_parameter(masked).flatten() != 0 for masked in pruned.masked])
    assert 0.0 < float(kept_before.double().mean()) < 0.35
    assert not (kept & ~kept_before).any()
    expected_NK = predict(quantized.module, dataset.test, dataset, batch_size=500)
    images = dataset.normalise(dataset.test.images).numpy()
    found_NK = torch.from_numpy(predict_onnx(open_session(export_onnx(quantized, dataset)), images, batch_size=500))
    assert float((found_NK.argmax(1) == expected_NK.argmax(1)).double().mean()) >= 0.999
    unpacked = unpack_model(pack_model(quantized))
    assert torch.equal(predict(unpacked.module, dataset.test, dataset, batch_size=500), expected_NK)


class WithTransposed(nn.Module):
    """A network with a layer that has no integer kernel."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, 2, 1)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.fc = nn.Linear(4 * image_size**2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.up(torch.relu(self.conv(images)))).flatten(1))


@pytest.mark.parametrize("method", ["dynamic", "fixed_point", "mixed", "qat", "static", "weight_only"])
def test_a_layer_without_integer_kernel_stays_in_float_and_is_named(
    method: str, places: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, __name__)
    from kondense.networks.build import NetworkSpec

    spec = NetworkSpec(
        f"{__name__}:WithTransposed", {"classes": 10, "channels": dataset.shape[0], "image_size": dataset.shape[1]}
    )
    torch.manual_seed(0)
    save_model(tmp_path / "model", Model(WithTransposed(**spec.arguments).eval(), spec))
    config = QuantizeConfig(method=method, bits=6, epochs=1, batch_size=50)
    metrics = stage.run(
        config, dataset_dir=places / "dataset", model_dir=tmp_path / "model", quantized_dir=tmp_path / "quantized"
    )
    quantized = load_model(tmp_path / "quantized")
    assert metrics["float_layers"] == 1
    assert quantized.lineage[-1]["details"]["float_layers"] == ["up"]
    assert set(quantized.quantized) == {"conv.weight", "fc.weight"}
    if method not in {"dynamic", "static"}:
        return  # exported as these, or without activations
    expected_NK = predict(quantized.module, dataset.test, dataset, batch_size=500)
    images = dataset.normalise(dataset.test.images).numpy()
    found_NK = torch.from_numpy(predict_onnx(open_session(export_onnx(quantized, dataset)), images, batch_size=500))
    assert float((found_NK.argmax(1) == expected_NK.argmax(1)).double().mean()) >= 0.999


@pytest.mark.parametrize("method", ["qat", "static"])
def test_images_that_are_not_finite_are_refused(method: str, places: Path, dataset: Dataset, tmp_path: Path) -> None:
    """A channel that never varies has a deviation of zero in a data set made by hand; its images turn infinite."""
    damaged = dataclasses.replace(dataset, std=(1e-45,))
    save_dataset(tmp_path / "dataset", damaged)
    with pytest.raises(ValueError, match="must be finite"):
        stage.run(
            QuantizeConfig(method=method),
            dataset_dir=tmp_path / "dataset",
            model_dir=places / "whole",
            quantized_dir=tmp_path / "quantized",
        )
    assert not (tmp_path / "quantized").exists()
