import pytest
import torch
from kondense.artifacts.model import Model, load_model, save_model
from kondense.artifacts.quantized import CodebookTensor
from kondense.codec.model_file import pack_model, unpack_model
from kondense.measuring.accuracy import accuracy, predict
from kondense.quantize.codebook import Gather, apply, quantize, tidy
from kondense.quantize.config import QuantizeConfig
from torch import nn

from tests.support.quantize_makers import make_context, make_dataset, make_model


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def lenet(dataset):
    model = make_model("lenet5", dataset)
    with torch.no_grad():
        weight = model.module.get_parameter("fc1.weight")
        weight.masked_fill_(weight.abs() < weight.abs().quantile(0.9), 0.0)
    return Model(model.module, model.network, masked=("fc1.weight",))


def cross_entropy(model, dataset):
    logits = predict(model.module, dataset.train, dataset)
    return float(nn.functional.cross_entropy(logits, dataset.train.labels))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_each_layer_takes_few_values_and_zeros_stay(lenet, bits):
    shared = quantize(lenet, bits=bits)
    for name, tensor in shared.quantized.items():
        weight, original = shared.module.get_parameter(name), lenet.module.get_parameter(name)
        assert len(weight.unique()) <= 2**bits
        assert torch.equal(tensor.dequantize(), weight)
        assert torch.equal(tensor.codebook, tensor.codebook.bfloat16().float())
        assert (weight[original == 0] == 0).all()
    assert (shared.module.get_parameter("fc1.weight") == 0).float().mean() >= 0.9


def test_a_weight_takes_the_value_nearest_to_it(lenet):
    for name, tensor in quantize(lenet, bits=3).quantized.items():
        distance = (lenet.module.get_parameter(name).detach().unsqueeze(-1) - tensor.codebook).abs()
        chosen = distance.gather(-1, (tensor.integers.long() + tensor.offset).unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(chosen, distance.min(-1).values, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_layer_of_one_value_is_shared_too(lenet, dataset, value):
    model = make_model("lenet5", dataset, steps=0)
    nn.init.constant_(model.module.get_parameter("fc2.weight"), value)
    tensor = quantize(model, bits=2).quantized["fc2.weight"]
    assert torch.allclose(tensor.dequantize(), torch.full((10, 500), value), rtol=0.004)


def test_more_bits_lose_less(lenet):
    original = lenet.module.get_parameter("fc1.weight").detach()
    errors = [
        float((quantize(lenet, bits=bits).quantized["fc1.weight"].dequantize() - original).norm()) for bits in (2, 4, 6)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_a_value_moves_by_the_mean_gradient_of_its_weights_and_zero_not_at_all():
    codebook = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    indices = torch.tensor([[0, 0, 1], [2, 2, 2]])
    factors = torch.tensor([[1.0, 3.0, 5.0], [2.0, 4.0, 9.0]])
    (Gather.apply(codebook, indices) * factors).sum().backward()
    assert codebook.grad.tolist() == [2.0, 0.0, 5.0]


def test_training_the_values_lowers_the_loss(lenet, dataset):
    config = QuantizeConfig(method="codebook", bits=2, epochs=3, batch_size=40, device="cpu")
    plain = apply(lenet, make_context(config, dataset))
    context = make_context(QuantizeConfig(**config.to_dict() | {"fine_tune": True}), dataset)
    tuned = apply(lenet, context)
    assert len(context.session.curve) == 3
    assert cross_entropy(tuned, dataset) < cross_entropy(plain, dataset)
    for name, tensor in tuned.quantized.items():
        weight = tuned.module.get_parameter(name)
        assert torch.equal(tensor.dequantize(), weight)
        assert len(weight.unique()) <= 4
        assert torch.equal(weight == 0, plain.module.get_parameter(name) == 0)
    assert not any(nn.utils.parametrize.is_parametrized(layer) for layer in tuned.module.modules())


def test_values_that_meet_or_pass_each_other_are_put_in_order():
    assert tidy(torch.tensor([0.5, -0.25, 0.5, -0.0])).tolist() == [-0.25, 0.0, 0.5]
    assert tidy(torch.tensor([0.0])).tolist() == [0.0, 1.0]
    assert tidy(torch.tensor([-2.0])).tolist() == [-2.0, 0.0]


@pytest.mark.parametrize("bits", [2, 5])
def test_the_artifact_and_the_kz_file_hold_it(lenet, dataset, tmp_path, bits):
    shared = quantize(lenet, bits=bits)
    save_model(tmp_path / "model", shared)
    content = pack_model(shared)
    for model in (load_model(tmp_path / "model"), unpack_model(content)):
        assert all(isinstance(tensor, CodebookTensor) and tensor.bits == bits for tensor in model.quantized.values())
        assert torch.equal(predict(model.module, dataset.test, dataset), predict(shared.module, dataset.test, dataset))
    assert len(content) < 431_080 * bits / 8
    assert accuracy(predict(shared.module, dataset.test, dataset), dataset.test.labels) > 0.5
