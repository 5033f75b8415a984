"""Quantized tensors: integers with what turns them back into floats.

Shapes: weight [O, I, ...] with one scale per output channel [O] or one for the whole tensor [1]; codebook [K].
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kondense.errors import InputError


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """A weight on a symmetric uniform grid: value = integer * scale.

    ``integers`` is int8, shaped like the weight, within [-(2^(bits-1) - 1), 2^(bits-1) - 1]: the grid
    is symmetric, so zero stays zero. ``scale`` is float32, [O] or [1].
    """

    integers: Tensor
    scale: Tensor
    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise InputError(f"bits must be in [2, 8], but got {self.bits}.")
        limit = 2 ** (self.bits - 1) - 1
        # Not abs(): the absolute value of -128 is -128.
        if self.integers.dtype != torch.int8 or self.integers.min() < -limit or self.integers.max() > limit:
            raise InputError(f"integers of {self.bits} bits must be int8 within [-{limit}, {limit}].")
        if not torch.isfinite(self.scale).all():
            raise InputError("scale must be finite, but holds NaN or infinity.")
        if self.scale.dtype != torch.float32 or self.scale.shape not in {(1,), self.integers.shape[:1]}:
            raise InputError(f"scale must be float32 [1] or [{len(self.integers)}], but got {list(self.scale.shape)}.")

    def dequantize(self) -> Tensor:
        """Return the float32 weight that the integers stand for."""
        return self.integers.float() * self.scale.reshape(-1, *[1] * (self.integers.ndim - 1))

    def describe(self) -> dict[str, Any]:
        """Return what model.json says of this tensor."""
        granularity = "channel" if len(self.scale) > 1 or len(self.integers) == 1 else "tensor"
        return {"scheme": "uniform", "bits": self.bits, "granularity": granularity, "symmetric": True}


@dataclasses.dataclass(frozen=True)
class CodebookTensor:
    """A weight whose elements share a few values: value = codebook[integer + offset].

    ``integers`` is int8, shaped like the weight. ``codebook`` is float32 [K], strictly ascending, 2 <= K <= 2^bits.
    """

    integers: Tensor
    codebook: Tensor
    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise InputError(f"bits must be in [2, 8], but got {self.bits}.")
        if (
            self.codebook.dtype != torch.float32
            or self.codebook.ndim != 1
            or not 2 <= len(self.codebook) <= 2**self.bits
        ):
            raise InputError(
                f"a codebook of {self.bits} bits must be float32 [K] with K in [2, {2**self.bits}],"
                f" but got {self.codebook.dtype} {list(self.codebook.shape)}."
            )
        # NaN compares false, so it is caught here too.
        if not (self.codebook.diff() > 0).all() or not torch.isfinite(self.codebook).all():
            raise InputError("a codebook must be finite and strictly ascending, but is not.")
        low, high = -self.offset, len(self.codebook) - 1 - self.offset
        if self.integers.dtype != torch.int8 or self.integers.min() < low or self.integers.max() > high:
            raise InputError(f"integers into this codebook must be int8 within [{low}, {high}].")

    @property
    def offset(self) -> int:
        """The place in the codebook of the integer 0: that of the first value that is not negative.

        So zero, where it is a value, is the integer 0, unless more than 128 of 256 values lie on one side of it.
        """
        return codebook_offset(self.codebook)

    def dequantize(self) -> Tensor:
        """Return the float32 weight that the integers stand for."""
        return self.codebook[self.integers.long() + self.offset]

    def describe(self) -> dict[str, Any]:
        """Return what model.json says of this tensor."""
        return {"scheme": "codebook", "bits": self.bits}


def codebook_offset(codebook: Tensor) -> int:
    """Return which value of an ascending codebook is the integer 0 of a CodebookTensor."""
    return min(max(int((codebook < 0).sum()), len(codebook) - 128), 128)


@dataclasses.dataclass(frozen=True)
class ActivationQuantizer:
    """Simulate in float what an integer kernel sees: a forward pre-hook that rounds a module's input.

    Integers are uint8 in [0, 2^bits - 1]; value = (integer - zero_point) * scale.
    """

    scale: float
    zero_point: int
    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise InputError(f"bits must be in [2, 8], but got {self.bits}.")
        if not 0.0 < self.scale < math.inf:
            raise InputError(f"scale must be in (0, inf), but got {self.scale}.")
        if not 0 <= self.zero_point < 2**self.bits:
            raise InputError(f"zero_point must be in [0, {2**self.bits}), but got {self.zero_point}.")

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs of ``module`` with the first one on the grid."""
        first = torch.fake_quantize_per_tensor_affine(inputs[0], self.scale, self.zero_point, 0, 2**self.bits - 1)
        return (first, *inputs[1:])


@dataclasses.dataclass(frozen=True)
class DynamicQuantizer:
    """Simulate an input that is quantized at run time: a forward pre-hook that rounds it on a grid of its own extremes.

    The grid is uint8, asymmetric, and one for the whole batch, as that of ONNX's DynamicQuantizeLinear. So what is
    computed of an image depends, a little, on the images beside it.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if self.bits != 8:
            raise InputError(f"bits of an input quantized at run time must be 8, but got {self.bits}.")

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs of ``module`` with the first one on its grid."""
        values = inputs[0]
        low, high = values.amin().clamp(max=0.0), values.amax().clamp(min=0.0)
        scale = (high - low) / 255.0
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero_point = torch.round(-low / scale).clamp(0, 255)
        first = (torch.round(values / scale) + zero_point).clamp(0, 255).sub(zero_point) * scale
        return (first, *inputs[1:])


InputQuantizer = ActivationQuantizer | DynamicQuantizer


def describe_quantizer(quantizer: InputQuantizer) -> dict[str, Any]:
    """Return what model.json says of an input quantizer."""
    fields = dataclasses.asdict(quantizer)
    return fields | {"scheme": "dynamic"} if isinstance(quantizer, DynamicQuantizer) else fields


def read_quantizer(spec: Mapping[str, Any]) -> InputQuantizer:
    """Return the input quantizer that ``describe_quantizer`` described.

    Raises:
        TypeError: a field is missing or unknown.
        ValueError: a value is out of its range.
    """
    fields = {name: value for name, value in spec.items() if name != "scheme"}
    scheme = spec.get("scheme", "static")
    if scheme not in ("static", "dynamic"):
        raise InputError(f"the scheme of an input quantizer must be static or dynamic, but got {scheme!r}.")
    return DynamicQuantizer(**fields) if scheme == "dynamic" else ActivationQuantizer(**fields)


def install_quantizers(module: nn.Module, activations: Mapping[str, InputQuantizer]) -> None:
    """Hook every named submodule so that its input is quantized as an integer kernel would see it."""
    for name, quantizer in activations.items():
        module.get_submodule(name).register_forward_pre_hook(quantizer)
