import dataclasses

import pytest
import torch
from kondense.artifacts.model import load_model, save_model
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import save_dataset
from kondense.errors import ShortfallError
from kondense.measuring.accuracy import accuracy, predict
from kondense.quantize import stage, weight_only
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.layers import weight_errors
from kondense.quantize.rate_distortion import search as rate_distortion
from kondense.quantize.rate_distortion.curvature import unit_steps
from kondense.quantize.rate_distortion.export import on_grids, without_dead_channels
from kondense.quantize.rate_distortion.search import apply, grids, install
from torch import nn

from tests.support.quantize_makers import make_context, make_dataset, make_model

pytestmark = pytest.mark.usefixtures("log_on_stdout")


@pytest.fixture(scope="module")
def dataset():
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def lenet(dataset):
    return make_model("lenet5", dataset)


@pytest.fixture(scope="module")
def resnet(dataset):
    return make_model("resnet8", dataset, width=0.5)


def context_of(dataset, teacher=None, **options):
    config = QuantizeConfig(method="rate_distortion", device="cpu", batch_size=40, **options)
    return make_context(config, dataset, teacher)


def validation(model, dataset):
    return accuracy(predict(model.module, dataset.validation, dataset), dataset.validation.labels)


@pytest.mark.parametrize(("network", "drops"), [("lenet5", (0.0, 0.05, 0.3)), ("resnet8", (0.0, 0.3))])
def test_the_bound_holds_and_a_wider_one_gives_a_smaller_file(network, drops, *, dataset, lenet, resnet, tmp_path):
    model = lenet if network == "lenet5" else resnet
    sizes = []
    for drop in drops:
        context = context_of(dataset, max_validation_drop=drop)
        found = apply(model, context)
        assert validation(found, dataset) >= validation(model, dataset) - drop
        sizes.append(len(pack_model(found)))
        assert context.details["rate_distortion"]["size_bytes"] == sizes[-1]
        save_model(tmp_path / "model", found)
        for other in (load_model(tmp_path / "model"), unpack_model(pack_model(found))):
            assert torch.equal(
                predict(other.module, dataset.test, dataset), predict(found.module, dataset.test, dataset)
            )
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < len(pack_model(weight_only.quantize(model, bits=8)))


def test_training_makes_it_smaller_at_the_same_bound(dataset, lenet):
    options = {"max_validation_drop": 0.15, "learning_rate": 0.05}
    plain = apply(lenet, context_of(dataset, **options))
    context = context_of(dataset, lenet, fine_tune=True, epochs=12, rounds=2, **options)
    trained = apply(lenet, context)
    assert validation(trained, dataset) >= validation(lenet, dataset) - 0.15
    assert len(pack_model(trained)) < len(pack_model(plain))
    assert len(context.session.curve) == 12 + 12
    assert not any(nn.utils.parametrize.is_parametrized(module) for module in trained.module.modules())


@pytest.mark.parametrize(
    ("spare", "factors"),
    [
        ((1.0, 1.0, 1.0), (2.5, 3.125, 3.906, 4.883)),  # far above: the longest steps
        ((-1.0, -1.0, -1.0), (2.5, 2.0, 1.6, 1.28)),
        ((0.0, 0.001, -0.001), (2.5, 2.5, 2.664, 2.5)),  # e^(0.001 / 0.0157) = 1.0658
        ((-0.0005, 0.002, -1.0), (2.5, 2.422, 2.751, 2.2)),
    ],
)
def test_rounds_step_towards_the_bound_each_from_the_model_itself(dataset, lenet, spare, factors):
    name = "fc2.parametrizations.weight.original"

    def train(module, phase, **others):
        assert torch.equal(module.get_parameter(name), lenet.module.get_parameter("fc2.weight"))
        phases.append(phase)
        with torch.no_grad():
            module.get_parameter(name).add_(1.0)

    def evaluate(factor, model, module, context, *, choices):
        tried.append(factor)
        return rate_distortion.Trial(factor, model, int(1000 / factor), 0.5 + (*spare, -1.0)[len(tried) - 1])

    tried: list[float] = []
    phases: list[str] = []
    context = context_of(dataset, fine_tune=True, epochs=6, rounds=4)
    context.train = train
    steps = unit_steps(lenet.module, context.calibration_batches(), seed=0)
    best = rate_distortion._train(lenet, context, steps, 0.5, evaluate)
    assert tried == pytest.approx(factors, abs=1e-3)
    assert len(set(phases)) == 4  # each has checkpoints and randomness of its own
    ends = list(zip((*spare, -1.0), tried, strict=True))
    # The coarsest, whose file is the smallest, of those that hold; where none does, the first of the most accurate.
    assert best.factor == max((factor for margin, factor in ends if margin >= 0), default=tried[0])


def test_pruned_weights_stay_zero_in_training(dataset, lenet):
    module = make_model("lenet5", dataset).module
    with torch.no_grad():
        weight = module.get_parameter("fc1.weight")
        weight.masked_fill_(weight.abs() < weight.abs().median(), 0.0)
    pruned = dataclasses.replace(lenet, module=module, masked=("fc1.weight",))
    context = context_of(dataset, fine_tune=True, epochs=1, rounds=1)

    def evaluate(factor, model, module, context, *, choices):
        return rate_distortion.Trial(factor, on_grids(model, module, grids(module), choices), 1, 1.0)

    steps = unit_steps(module, context.calibration_batches(), seed=0)
    trained = rate_distortion._train(pruned, context, steps, 0.0, evaluate).model
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


def test_channels_that_do_not_matter_leave_and_nothing_changes(dataset):
    model = weight_only.quantize(make_model("lenet5", dataset), bits=4, granularity="channel")
    integers = {name: tensor.integers.clone() for name, tensor in model.quantized.items()}
    with torch.no_grad():
        integers["fc2.weight"][:, :100] = 0  # unread
        integers["fc1.weight"][90:130] = 0  # unmade, of which half are silent
        model.module.fc1.bias[90:130] = torch.linspace(-1, 1, 40)
        integers["fc1.weight"][:, 32:48] = 0  # all that the flattened channels 8 to 11 of conv2 go to
        for name, found in integers.items():
            tensor = dataclasses.replace(model.quantized[name], integers=found)
            model.quantized[name] = tensor
            model.module.get_parameter(name).copy_(tensor.dequantize())
    images = dataset.normalise(dataset.train.images[:20])
    trimmed = without_dead_channels(model, images)
    side = model.module.fc1.in_features // model.module.conv2.out_channels
    assert trimmed.module.conv2.out_channels == model.module.conv2.out_channels - 16 // side
    assert trimmed.module.fc1.out_features == model.module.fc1.out_features - 130
    assert len(trimmed.quantized["fc1.weight"].scale) == trimmed.module.fc1.out_features
    for name, tensor in trimmed.quantized.items():
        assert torch.equal(trimmed.module.get_parameter(name), tensor.dequantize())
    before, after = (predict(each.module, dataset.test, dataset) for each in (model, trimmed))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)
    assert len(pack_model(trimmed)) < len(pack_model(model))
    assert set(weight_errors(trimmed, model)) == {"conv1"}  # the only layer of the same shape


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(256, 20), nn.Linear(20, 10)

    def forward(self, images):
        return self.last(torch.from_numpy(self.first(images.flatten(1)).detach().numpy()))


def test_channels_that_cannot_be_traced_stay(dataset, lenet, capsys):
    model = weight_only.quantize(dataclasses.replace(lenet, module=Detached()), bits=4)
    assert without_dead_channels(model, dataset.normalise(dataset.train.images[:20])) is model
    assert (
        "channels that do not matter are kept: the network must run on images 1x16x16 to be traced"
        in capsys.readouterr().out
    )


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


@pytest.mark.parametrize(("tuning", "advice"), [({}, "fine_tune"), ({"fine_tune": True}, "more rounds or epochs")])
def test_where_nothing_holds_the_bound_the_most_accurate_is_written_and_then_said(
    tuning, advice, dataset, lenet, tmp_path
):
    save_dataset(tmp_path / "dataset", dataset)
    save_model(tmp_path / "teacher", lenet)
    save_model(tmp_path / "model", make_model("lenet5", dataset, steps=0))
    config = QuantizeConfig(
        method="rate_distortion",
        device="cpu",
        max_validation_drop=0.01,
        epochs=1,
        rounds=1,
        learning_rate=1e-6,
        **tuning,
    )
    directories = {f"{name}_dir": tmp_path / name for name in ("dataset", "model", "teacher")}
    with pytest.raises(
        ShortfallError, match=rf"max_validation_drop 0\.01 was not met: .* allow a larger drop, or {advice}\.$"
    ):
        stage.run(config, quantized_dir=tmp_path / "quantized", **directories)
    written = load_model(tmp_path / "quantized")
    details = written.lineage[-1]["details"]["rate_distortion"]
    assert validation(written, dataset) == details["validation_accuracy"] < details["lowest_validation_accuracy"]
    assert len(pack_model(written)) == details["size_bytes"]


def test_of_two_trials_the_smaller_that_holds_or_else_the_more_accurate_is_better(lenet):
    large, small, rough = (
        rate_distortion.Trial(1.0, lenet, size, accuracy) for size, accuracy in ((9, 0.9), (5, 0.8), (2, 0.7))
    )
    for one, other, lowest, better in (
        (large, small, 0.75, small),
        (small, rough, 0.75, small),
        (large, rough, 0.95, large),
        (rough, small, 0.8, small),
    ):
        assert one.or_better(other, lowest) is better
        assert other.or_better(one, lowest) is better


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"max_validation_drop": -0.01}, r"max_validation_drop must be in \[0, 1\], but got -0.01"),
        ({"max_validation_drop": float("nan")}, "max_validation_drop must be a number, but got nan"),
        ({"rounds": 0}, r"rounds must be in \[1, 1000\], but got 0"),
    ],
)
def test_bad_options_are_refused(options, rule):
    with pytest.raises(ValueError, match=rule):
        QuantizeConfig(method="rate_distortion", **options)
