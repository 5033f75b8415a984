import numpy as np
import pytest
import torch
from kondense.artifacts.quantized import ActivationQuantizer, CodebookTensor, QuantizedTensor, install_quantizers
from torch import nn


def integers(*shape, low=-7, high=7):
    return torch.randint(low, high + 1, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 5), (4,)])
def test_values_are_those_of_torchs_quantizers(shape):
    grid, scale = integers(*shape), torch.tensor([0.5, 0.1, 2.0, 0.03])
    zeros = torch.zeros(4, dtype=torch.int64)
    reference = torch.fake_quantize_per_channel_affine(
        grid * scale.reshape(-1, *[1] * (len(shape) - 1)), scale, zeros.int(), 0, -8, 7
    )
    assert torch.equal(QuantizedTensor(grid, scale, 4).dequantize(), reference)
    per_tensor = torch.fake_quantize_per_tensor_affine(grid * 0.1, 0.1, 0, -8, 7)
    assert torch.equal(QuantizedTensor(grid, torch.tensor([0.1]), 4).dequantize(), per_tensor)


@pytest.mark.parametrize(
    ("grid", "scale", "bits", "text"),
    [
        (integers(4, 2).short(), torch.ones(4), 4, r"integers of 4 bits must be int8 within \[-7, 7\]"),
        (torch.tensor([[8]], dtype=torch.int8), torch.ones(1), 4, r"must be int8 within \[-7, 7\]"),
        (torch.tensor([[-8]], dtype=torch.int8), torch.ones(1), 4, r"must be int8 within \[-7, 7\]"),
        (torch.tensor([[-128]], dtype=torch.int8), torch.ones(1), 8, r"must be int8 within \[-127, 127\]"),
        (integers(4, 2), torch.ones(4), 1, r"bits must be in \[2, 8\], but got 1"),
        (integers(4, 2), torch.ones(4), 9, r"bits must be in \[2, 8\], but got 9"),
        (integers(4, 2), torch.ones(3), 4, r"scale must be float32 \[1\] or \[4\], but got \[3\]"),
        (integers(4, 2), torch.ones(4).double(), 4, "scale must be float32"),
        (integers(4, 2), torch.tensor([1.0, 1.0, float("nan"), 1.0]), 4, "scale must be finite"),
    ],
)
def test_integers_and_scale_must_fit(grid, scale, bits, text):
    with pytest.raises(ValueError, match=text):
        QuantizedTensor(grid, scale, bits)


@pytest.mark.parametrize(
    ("shape", "scales", "granularity"), [((4, 2), 4, "channel"), ((4, 2), 1, "tensor"), ((1, 2), 1, "channel")]
)
def test_the_description_says_the_granularity(shape, scales, granularity):
    described = QuantizedTensor(integers(*shape), torch.ones(scales), 4).describe()
    assert described == {"scheme": "uniform", "bits": 4, "granularity": granularity, "symmetric": True}


def test_a_codebook_counts_from_its_first_value_that_is_not_negative_where_int8_allows():
    codebook = torch.tensor([-0.75, -0.5, 0.0, 0.25])
    tensor = CodebookTensor(torch.tensor([[-2, -1], [0, 1]], dtype=torch.int8), codebook, 2)
    assert torch.equal(tensor.dequantize(), torch.tensor([[-0.75, -0.5], [0.0, 0.25]]))
    assert tensor.describe() == {"scheme": "codebook", "bits": 2}
    for first in (-300.0, -200.0, -128.0, -50.0, 3.0):
        full = CodebookTensor(torch.tensor([-128, 127], dtype=torch.int8), torch.arange(first, first + 256), 8)
        assert full.dequantize().tolist() == [first, first + 255]


@pytest.mark.parametrize(
    ("grid", "codebook", "bits", "text"),
    [
        (integers(4, 2, low=0, high=1).short(), torch.tensor([0.0, 1.0]), 2, r"must be int8 within \[0, 1\]"),
        (torch.tensor([[2]], dtype=torch.int8), torch.tensor([0.0, 1.0]), 2, r"must be int8 within \[0, 1\]"),
        (torch.tensor([[-2]], dtype=torch.int8), torch.tensor([-1.0, 1.0]), 2, r"must be int8 within \[-1, 0\]"),
        (integers(4, 2, low=0, high=1), torch.tensor([0.0]), 2, r"K in \[2, 4\], but got torch.float32 \[1\]"),
        (integers(4, 2, low=0, high=1), torch.arange(5.0), 2, r"K in \[2, 4\], but got torch.float32 \[5\]"),
        (integers(4, 2, low=0, high=1), torch.arange(2.0).double(), 2, "but got torch.float64"),
        (integers(4, 2, low=0, high=1), torch.tensor([0.0, 0.0]), 2, "strictly ascending"),
        (integers(4, 2, low=0, high=1), torch.tensor([0.0, float("nan")]), 2, "strictly ascending"),
        (integers(4, 2, low=0, high=1), torch.tensor([0.0, float("inf")]), 2, "finite"),
        (integers(4, 2, low=0, high=1), torch.tensor([0.0, 1.0]), 9, r"bits must be in \[2, 8\], but got 9"),
    ],
)
def test_integers_and_codebook_must_fit(grid, codebook, bits, text):
    with pytest.raises(ValueError, match=text):
        CodebookTensor(grid, codebook, bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_inputs_are_rounded_to_the_nearest_integer_even_in_ties(bits):
    quantizer = ActivationQuantizer(scale=0.0625, zero_point=1, bits=bits)
    values = np.append(np.random.default_rng(1).normal(size=1000), np.arange(-8, 8) / 32).astype(np.float32)
    found, label = quantizer(nn.Identity(), (torch.from_numpy(values), "second"))
    levels = np.clip(np.rint(values / 0.0625) + 1, 0, 2**bits - 1)
    assert np.array_equal(found.numpy(), (levels - 1) * 0.0625)
    assert label == "second"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"scale": 0.0, "zero_point": 0}, r"scale must be in \(0, inf\), but got 0.0"),
        ({"scale": float("nan"), "zero_point": 0}, "but got nan"),
        ({"scale": float("inf"), "zero_point": 0}, "but got inf"),
        ({"scale": 1.0, "zero_point": 256}, r"zero_point must be in \[0, 256\), but got 256"),
        ({"scale": 1.0, "zero_point": -1}, "but got -1"),
        ({"scale": 1.0, "zero_point": 0, "bits": 9}, r"bits must be in \[2, 8\], but got 9"),
    ],
)
def test_a_grid_must_be_one(arguments, text):
    with pytest.raises(ValueError, match=text):
        ActivationQuantizer(**arguments)


def test_quantizers_are_hooked_by_name():
    module = nn.Sequential(nn.Sequential(nn.Identity()), nn.Identity())
    install_quantizers(module, {"0.0": ActivationQuantizer(scale=1.0, zero_point=0)})
    assert module(torch.tensor([1.4, -3.0, 300.0])).tolist() == [1.0, 0.0, 255.0]


@pytest.mark.parametrize(("scale", "zero_point", "bits"), [(0.0123, 117, 8), (0.1, 0, 8), (3e-5, 255, 8), (0.7, 3, 4)])
def test_inputs_are_rounded_as_by_torchs_operator_with_and_without_gradients(
    scale: float, zero_point: int, bits: int
) -> None:
    quantizer, last = ActivationQuantizer(scale, zero_point, bits), 2**bits - 1
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(100_000, generator=generator) * scale * 100
    halves = (torch.arange(-600, 600) + 0.5) * scale  # ties of the rounding
    values = torch.cat([random, halves])
    reference = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, last)
    (found,) = quantizer(nn.Identity(), (values,))
    assert torch.equal(found, reference)
    far = torch.tensor([1e30, -1e30, float("inf"), -0.0])
    low, high = -zero_point * scale, (last - zero_point) * scale
    assert quantizer(nn.Identity(), (far,))[0].tolist() == pytest.approx([high, low, high, 0.0])
    trained = values.clone().requires_grad_()
    (rounded,) = quantizer(nn.Identity(), (trained,))
    assert torch.equal(rounded, reference)
    rounded.sum().backward()
    assert trained.grad is not None
    assert 0 < float(trained.grad.sum()) < len(trained)
