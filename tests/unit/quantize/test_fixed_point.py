"""Fixed point by hand."""

from pathlib import Path

import pytest
import torch
from kondense.artifacts.model import load_model, save_model
from kondense.data.dataset import save_dataset
from kondense.quantize import stage
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.fixed_point import quantize

from tests.support.quantize_makers import make_dataset, make_model


def test_values_are_multiples_of_the_step_in_the_open_interval() -> None:
    model = make_model("lenet5", make_dataset(size=16), width=0.5, steps=1)
    values = torch.tensor([-3.0, -1.0, -0.95, -0.13, -0.12, 0.0, 0.12, 0.13, 0.8, 0.875, 0.99, 1.0, 7.0])
    with torch.no_grad():
        model.module.fc2.weight[0, : len(values)] = values
    quantized = quantize(model, bits=4)
    expected = [-0.875, -0.875, -0.875, -0.125, -0.125, 0.0, 0.125, 0.125, 0.75, 0.875, 0.875, 0.875, 0.875]
    assert quantized.module.fc2.weight[0, : len(values)].tolist() == expected
    for tensor in quantized.quantized.values():
        assert tensor.scale.tolist() == [0.125]


@pytest.mark.parametrize("fine_tune", [False, True])
def test_the_stage_counts_what_is_clipped_and_training_stays_on_the_grid(fine_tune: bool, tmp_path: Path) -> None:
    dataset = make_dataset(size=16)
    model = make_model("lenet5", dataset, width=0.5)
    with torch.no_grad():
        model.module.fc2.weight[0, :3] = torch.tensor([-2.0, 1.0, 3.0])
    save_dataset(tmp_path / "dataset", dataset)
    save_model(tmp_path / "model", model)
    config = QuantizeConfig(method="fixed_point", bits=6, fine_tune=fine_tune, epochs=1, batch_size=50)
    places = {"dataset_dir": tmp_path / "dataset", "model_dir": tmp_path / "model"}
    stage.run(config, **places, quantized_dir=tmp_path / "quantized")
    quantized = load_model(tmp_path / "quantized")
    assert quantized.lineage[-1]["details"]["clipped"] == {"conv1": 0, "conv2": 0, "fc1": 0, "fc2": 3}
    for name, tensor in quantized.quantized.items():
        assert tensor.scale.tolist() == [2.0**-5]
        assert float(quantized.module.get_parameter(name).detach().abs().max()) <= 1 - 2.0**-5
    changed = not torch.equal(quantized.module.conv1.bias, model.module.conv1.bias)
    assert changed == fine_tune
