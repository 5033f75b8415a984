import dataclasses

import pytest
import torch
from torch import nn

from components.artifacts.model import load_model, save_model
from components.artifacts.packed import pack_model, unpack_model
from components.measuring.accuracy import accuracy, predict
from components.quantize import rate_distortion, weight_only
from components.quantize.config import QuantizeConfig
from components.quantize.curvature import unit_steps
from components.quantize.rate_distortion import apply, grids, install
from components.quantize.rate_export import on_grids
from components.quantize.request import Request
from tests.quantize_makers import make_dataset, make_model


@pytest.fixture(scope="module")
def dataset():
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def lenet(dataset):
    return make_model("lenet5", dataset)


@pytest.fixture(scope="module")
def resnet(dataset):
    return make_model("resnet8", dataset, width=0.5)


def request(dataset, teacher=None, **options):
    config = QuantizeConfig(method="rate_distortion", device="cpu", batch_size=40, **options)
    return Request(config, dataset, teacher=teacher)


def validation(model, dataset):
    return accuracy(predict(model.module, dataset.validation, dataset), dataset.validation.labels)


@pytest.mark.parametrize("network", ["lenet5", "resnet8"])
def test_the_bound_holds_and_a_wider_one_gives_a_smaller_file(network, dataset, lenet, resnet, tmp_path):
    model = lenet if network == "lenet5" else resnet
    sizes = []
    for drop in (0.0, 0.05, 0.3):
        asked = request(dataset, max_accuracy_drop=drop)
        found = apply(model, asked)
        assert validation(found, dataset) >= validation(model, dataset) - drop
        sizes.append(len(pack_model(found)))
        assert asked.details["rate_distortion"]["size_bytes"] == sizes[-1]
        save_model(tmp_path / "model", found)
        for other in (load_model(tmp_path / "model"), unpack_model(pack_model(found))):
            assert torch.equal(
                predict(other.module, dataset.test, dataset), predict(found.module, dataset.test, dataset)
            )
    assert sizes[0] >= sizes[1] >= sizes[2]
    assert sizes[0] < len(pack_model(weight_only.quantize(model, bits=8)))


def test_training_makes_it_smaller_at_the_same_bound(dataset, lenet):
    options = {"max_accuracy_drop": 0.15, "learning_rate": 0.05}
    plain = apply(lenet, request(dataset, **options))
    asked = request(dataset, lenet, fine_tune=True, epochs=30, rounds=2, **options)
    trained = apply(lenet, asked)
    assert validation(trained, dataset) >= validation(lenet, dataset) - 0.15
    assert len(pack_model(trained)) < len(pack_model(plain))
    assert len(asked.curve) == 30 + 10
    assert not any(nn.utils.parametrize.is_parametrized(module) for module in trained.module.modules())


@pytest.mark.parametrize(
    ("coarsest", "expected"),
    [
        (9.0, [(2.5, 6), (3.125, 2), (3.906, 2), (4.883, 2)]),  # all hold
        (2.1, [(2.5, 6), (2.0, 6), (2.236, 2), (2.115, 2)]),
        (2.9, [(2.5, 6), (3.125, 2), (2.795, 2), (2.955, 2)]),
        (1.0, [(2.5, 6), (2.0, 6), (1.6, 6), (1.28, 6)]),  # none holds
    ],
)
def test_rounds_start_anew_until_one_holds_then_close_in(dataset, lenet, monkeypatch, coarsest, expected):
    factors, epochs = zip(*expected, strict=True)
    rounds, starts = [], []

    def train(self, module, phase, *, epochs=0, **others):
        starts.append(module.get_parameter("fc2.parametrizations.weight.original").detach().clone())
        rounds.append(epochs or self.config.epochs)
        with torch.no_grad():
            module.get_parameter("fc2.parametrizations.weight.original").add_(1.0)

    def judge(factor, model, module, request, *, choices):
        tried.append(round(factor, 3))
        return rate_distortion.Trial(factor, model, int(1000 / factor), 1.0 if factor <= coarsest else 0.0)

    tried: list[float] = []
    monkeypatch.setattr(Request, "train", train)
    monkeypatch.setattr(rate_distortion, "_trial", judge)
    asked = request(dataset, fine_tune=True, epochs=6, rounds=4)
    held = rate_distortion._train(lenet, asked, unit_steps(lenet.module, asked.calibration_batches(), seed=0), 0.5)
    assert tuple(tried) == factors
    assert tuple(rounds) == epochs
    assert [trial.factor for trial in held] == pytest.approx(
        [factor for factor in factors if factor <= coarsest], abs=1e-3
    )
    weight = lenet.module.get_parameter("fc2.weight")
    taken = 0  # trainings that a round goes on from: those of the rounds before it that held
    for start, factor in zip(starts, factors, strict=True):
        torch.testing.assert_close(start, weight + taken)
        taken += factor <= coarsest


def test_pruned_weights_stay_zero_in_training(dataset, lenet):
    module = make_model("lenet5", dataset).module
    with torch.no_grad():
        weight = module.get_parameter("fc1.weight")
        weight.masked_fill_(weight.abs() < weight.abs().median(), 0.0)
    pruned = dataclasses.replace(lenet, module=module, masked=("fc1.weight",))
    trained = apply(pruned, request(dataset, fine_tune=True, epochs=1, rounds=1, max_accuracy_drop=0.9))
    assert (trained.module.get_parameter("fc1.weight")[weight == 0] == 0).all()
    assert trained.masked == ("fc1.weight",)


def test_a_folded_model_computes_what_the_grids_did(dataset, resnet):
    module = make_model("resnet8", dataset, width=0.5).module.eval()
    with torch.no_grad():
        module.get_parameter("bn1.weight")[:3] *= -1.0  # channels that the norm turns around
    steps = unit_steps(module, [dataset.normalise(dataset.train.images[:50])], seed=0)
    assert set(steps) == {name for name, weight in module.named_parameters() if weight.ndim > 1} | {"fc.bias"}
    install(module, dict.fromkeys(steps, 2.0**-6), 0.01)
    for grid in grids(module).values():
        grid.step = 2.0**-6
    folded = on_grids(resnet, module, grids(module), choices=1)
    before, after = (predict(each, dataset.test, dataset) for each in (module, folded.module))
    assert (before - after).norm() < 0.03 * before.norm()
    assert all(float(tensor.scale.min()) > 0 for tensor in folded.quantized.values())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.module.modules())


def test_steps_are_finer_where_the_loss_feels_more(dataset):
    module = make_model("lenet5", dataset).module
    steps = unit_steps(module, [dataset.normalise(dataset.train.images[:100])], seed=0)
    with torch.no_grad():  # the same function, of which the first layer's weights are ten times as large
        module.get_parameter("conv1.weight").mul_(10)
        module.get_parameter("conv1.bias").mul_(10)
        module.get_parameter("conv2.weight").div_(10)
    scaled = unit_steps(module, [dataset.normalise(dataset.train.images[:100])], seed=0)
    assert scaled["conv1.weight"] == pytest.approx(10 * steps["conv1.weight"], rel=0.01)
    assert scaled["conv2.weight"] == pytest.approx(steps["conv2.weight"] / 10, rel=0.01)
    assert scaled["fc1.weight"] == pytest.approx(steps["fc1.weight"], rel=0.01)


def test_a_bound_that_nothing_holds_is_an_error(dataset, lenet):
    untrained = make_model("lenet5", dataset, steps=0)
    with pytest.raises(ValueError, match="max_accuracy_drop must leave a grid that holds it, but none does at 0.01"):
        apply(untrained, request(dataset, lenet, max_accuracy_drop=0.01))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"max_accuracy_drop": -0.01}, r"max_accuracy_drop must be in \[0, 1\], but got -0.01"),
        ({"max_accuracy_drop": float("nan")}, "max_accuracy_drop must be a number, but got nan"),
        ({"rounds": 0}, r"rounds must be in \[1, 1000\], but got 0"),
    ],
)
def test_bad_options_are_refused(options, rule):
    with pytest.raises(ValueError, match=rule):
        QuantizeConfig(method="rate_distortion", **options)


def test_a_quantized_model_and_one_without_layers_are_refused(dataset, lenet):
    with pytest.raises(ValueError, match="must be quantized once"):
        apply(weight_only.quantize(lenet, bits=4), request(dataset))
    with pytest.raises(ValueError, match="needs a Conv2d or Linear layer"):
        apply(dataclasses.replace(lenet, module=nn.Flatten()), request(dataset))
