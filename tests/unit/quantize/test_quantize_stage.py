"""The quantize stage: artifacts in, an artifact out, and what it refuses."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import Model, load_model, save_model
from kondense.artifacts.quantized import QuantizedTensor
from kondense.data.dataset import Split, load_dataset, save_dataset
from kondense.measuring.accuracy import predict
from kondense.quantize import stage
from kondense.quantize.config import CALIBRATIONS, QuantizeConfig
from kondense.quantize.context import Context
from kondense.quantize.layers import quantizable_layers, with_weights
from kondense.quantize.methods import METHODS
from kondense.quantize.static import ranges
from kondense.quantize.weight_only import quantize_weight
from torch import nn

from tests.support.quantize_makers import make_dataset, make_model


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset and a float model of it."""
    folder = tmp_path_factory.mktemp("quantize")
    dataset = make_dataset(size=16)
    save_dataset(folder / "dataset", dataset)
    save_model(folder / "model", make_model("resnet8", dataset, width=0.5))
    return folder / "dataset", folder / "model"


def run(config: QuantizeConfig, places: tuple[Path, Path], output: Path) -> dict[str, float]:
    return stage.run(config, dataset_dir=places[0], model_dir=places[1], quantized_dir=output)


def test_the_config_lists_the_calibrations() -> None:
    assert set(CALIBRATIONS) == set(ranges.CALIBRATIONS)


# Those of their own tests apart: what bits rate_distortion uses is its result.
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"rate_distortion"}))
@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_artifact_computes_what_was_measured(
    method: str, bits: int, granularity: str, places: tuple[Path, Path], tmp_path: Path
) -> None:
    config = QuantizeConfig(
        method=method, bits=bits, granularity=granularity, calibration="percentile", epochs=1, learning_rate=0.01
    )
    metrics = run(config, places, tmp_path / "quantized")
    dataset, model = load_dataset(places[0]), load_model(tmp_path / "quantized")
    predictions_N = predict(model.module, dataset.validation, dataset).argmax(1)
    assert metrics["validation_accuracy"] == float((predictions_N == dataset.validation.labels).double().mean())
    if method != "mixed":
        assert {tensor.bits for tensor in model.quantized.values()} == {bits}
    assert bool(model.activations) == (METHODS[method].kind == "activations")
    record = model.lineage[-1]
    assert record["stage"] == "quantize"
    assert record["config"] == config.to_dict()
    assert set(record["inputs"]) == {"dataset", "model"}
    assert record["details"]["float_layers"] == []
    assert len(record["curves"]) == config.trains
    assert record["summary"] != f"quantize by {method}"
    assert "sensitivity" not in record["details"]


@pytest.mark.parametrize(
    ("exclude", "left"), [("conv1", ["conv1"]), ("blocks.1, Linear", ["blocks.1.conv1", "blocks.1.conv2", "fc"])]
)
def test_excluded_layers_stay_in_float(
    exclude: str, left: list[str], places: tuple[Path, Path], tmp_path: Path
) -> None:
    run(QuantizeConfig(exclude=exclude), places, tmp_path / "quantized")
    model = load_model(tmp_path / "quantized")
    found = set(model.lineage[-1]["details"]["float_layers"])
    assert set(left) <= found
    assert all(name in left or name.startswith("blocks.1.") for name in found)
    assert set(model.quantized) == {f"{name}.weight" for name in quantizable_layers(model.module) if name not in found}
    folded = fold_batch_norms(load_model(places[1]).module)
    for name in found:
        assert torch.equal(model.module.get_parameter(f"{name}.weight"), folded.get_parameter(f"{name}.weight"))


@pytest.mark.parametrize(
    ("exclude", "rule"),
    [
        ("conv9", "exclude must name layers of the network, but got 'conv9'; the types are Conv2d, Linear, the layers"),
        ("Conv2d,Linear", "exclude must leave a layer to quantize, but it names all of them: conv1, "),
    ],
)
def test_what_cannot_be_excluded_is_refused(exclude: str, rule: str, places: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        run(QuantizeConfig(exclude=exclude), places, tmp_path / "quantized")
    assert str(caught.value).startswith(rule)
    assert not (tmp_path / "quantized").exists()


def test_the_same_seed_gives_the_same_artifact(places: tuple[Path, Path], tmp_path: Path) -> None:
    config = QuantizeConfig(calibration_images=50)
    for name in ("first", "second"):
        run(config, places, tmp_path / name)
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second
    run(dataclasses.replace(config, seed=1), places, tmp_path / "other")
    assert load_model(tmp_path / "other").activations != load_model(tmp_path / "first").activations


@pytest.mark.parametrize("method", ["static", "weight_only"])
def test_a_quantized_model_is_refused(method: str, places: tuple[Path, Path], tmp_path: Path) -> None:
    run(QuantizeConfig(method=method), places, tmp_path / "quantized")
    with pytest.raises(ValueError, match="quantize needs a float model, but got a quantized one"):
        run(QuantizeConfig(method="weight_only"), (places[0], tmp_path / "quantized"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_network_without_layers_to_quantize_is_refused(places: tuple[Path, Path]) -> None:
    model = dataclasses.replace(load_model(places[1]), module=nn.Flatten())
    with pytest.raises(ValueError, match="needs a network with a Conv2d or Linear layer"):
        stage.quantize(model, load_dataset(places[0]), QuantizeConfig())


class HalfPrecise:
    """A quantizer of a user's own: 8 bits, with the last layer in float."""

    def __call__(self, model: Model, context: Context) -> Model:
        names = quantizable_layers(model.module)[:-1]
        context.summary = "quantize all but the last layer"
        return with_weights(model, {f"{name}.weight": self.rounded(model, name) for name in names})

    def rounded(self, model: Model, name: str) -> QuantizedTensor:
        return quantize_weight(model.module.get_parameter(f"{name}.weight"), bits=8, granularity="channel")


def test_a_quantizer_of_ones_own_is_passed_as_an_object(places: tuple[Path, Path]) -> None:
    dataset, model = load_dataset(places[0]), load_model(places[1])
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    model.module.train()
    result = stage.quantize(model, dataset, QuantizeConfig(), method=HalfPrecise())
    assert result.summary == "quantize all but the last layer"
    assert result.details["method"] == "HalfPrecise"
    assert result.details["float_layers"] == ["fc"]
    assert result.metrics["float_layers"] == 1
    assert model.module.training and not model.quantized
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())


THIRD_PARTY = """
from kondense.quantize import weight_only

METHOD = {"kind": "weights", "summary": "3 bits", "fine_tune": True}


def quantize(model, context):
    return weight_only.quantize(model, bits=3)
"""


@pytest.mark.parametrize(
    ("name", "fails"),
    [("three_bits", ""), ("broken", "kondense.quantizers: broken = no_such_module:quantize cannot be used")],
)
def test_a_registered_quantizer_runs_with_a_summary_and_a_broken_one_is_named(
    name: str, fails: str, places: tuple[Path, Path], tmp_path: Path
) -> None:
    """One file outside the package and its registration; a process of its own reads the entry points anew."""
    (tmp_path / "third_party.py").write_text(THIRD_PARTY)
    (tmp_path / "third_party-1.dist-info").mkdir()
    entry_points = "[kondense.quantizers]\nthree_bits = third_party:quantize\nbroken = no_such_module:quantize\n"
    (tmp_path / "third_party-1.dist-info/entry_points.txt").write_text(entry_points)
    (tmp_path / "third_party-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1\n")
    script = (
        "import sys; from pathlib import Path; from kondense.quantize import stage;"
        " from kondense.quantize.config import QuantizeConfig;"
        " data, model, output, name = sys.argv[1:];"
        " config = QuantizeConfig(method=name, fine_tune=True);"
        " stage.run(config, dataset_dir=Path(data), model_dir=Path(model), quantized_dir=Path(output))"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, places), str(tmp_path / "quantized"), name],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if fails:
        assert fails in done.stderr
        return
    assert done.returncode == 0, done.stderr
    model = load_model(tmp_path / "quantized")
    assert {tensor.bits for tensor in model.quantized.values()} == {3}
    assert model.lineage[-1]["summary"] == "quantize by three_bits"


def test_calibration_on_one_class_is_refused(places: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = load_dataset(places[0])
    only_3 = torch.full_like(dataset.train.labels, 3)
    one_class = dataclasses.replace(dataset, train=Split(dataset.train.images, only_3))
    save_dataset(tmp_path / "dataset", one_class)
    with pytest.raises(ValueError, match="at least 2 classes, but all 400 are of class 'class 3'"):
        run(QuantizeConfig(), (tmp_path / "dataset", places[1]), tmp_path / "quantized")
    with pytest.raises(ValueError, match="at least 2 classes, but all 1 are"):
        run(QuantizeConfig(calibration_images=1), places, tmp_path / "quantized")
    assert not (tmp_path / "quantized").exists()


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"bits": 1}, "bits must be in [2, 8], but got 1."),
        ({"bits": 9}, "bits must be in [2, 8], but got 9."),
        (
            {"method": "dynamical"},
            "method must be one of " + ", ".join(METHODS) + ", but got 'dynamical' (did you mean dynamic?).",
        ),
        ({"granularity": "group"}, "granularity must be one of channel, tensor, but got 'group'."),
        ({"calibration": "best"}, "calibration must be one of entropy, minmax, mse, percentile, but got 'best'."),
        ({"percentile": 100.5}, "percentile must be in [50, 100], but got 100.5."),
        (
            {"exclude": "conv1", "method": "dynamic"},
            "exclude must be '' with method dynamic and float arithmetic, but got 'conv1'; methods that use it:"
            " static.",
        ),
        ({"calibration_images": 0}, "calibration_images must be in [1, 1000000], but got 0."),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError) as caught:
        QuantizeConfig(**values)
    assert str(caught.value) == rule
