"""Quantized tensors: integers with scales or codebooks.

Shapes: weight [O, I, ...] with one scale per output channel [O] or one for the whole tensor [1]; codebook [K].
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kondense.errors import InputError

OUTPUT = ":output"  # behind a module's name: the place of its output instead of its input
LEAST_SCALE = 2.0**-126  # the least normal float32


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """A weight on a symmetric uniform grid: value = integer * scale.

    ``integers`` is int8 in [-(2^(bits-1) - 1), 2^(bits-1) - 1] with the shape of the weight: the grid is symmetric, so
    zero is exact. ``scale`` is float32, [O] or [1].
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
        """Return the float32 weight."""
        return self.integers.float() * self.scale.reshape(-1, *[1] * (self.integers.ndim - 1))

    def describe(self) -> dict[str, Any]:
        """Return the description for model.json."""
        granularity = "channel" if len(self.scale) > 1 or len(self.integers) == 1 else "tensor"
        return {"scheme": "uniform", "bits": self.bits, "granularity": granularity, "symmetric": True}


@dataclasses.dataclass(frozen=True)
class CodebookTensor:
    """A weight with few distinct values: value = codebook[integer + offset].

    ``integers`` is int8 with the weight's shape. ``codebook`` is float32 [K], strictly ascending, 2 <= K <= 2^bits.
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
        # NaN compares false, so this rejects it too.
        if not (self.codebook.diff() > 0).all() or not torch.isfinite(self.codebook).all():
            raise InputError("a codebook must be finite and strictly ascending, but is not.")
        low, high = -self.offset, len(self.codebook) - 1 - self.offset
        if self.integers.dtype != torch.int8 or self.integers.min() < low or self.integers.max() > high:
            raise InputError(f"integers into this codebook must be int8 within [{low}, {high}].")

    @property
    def offset(self) -> int:
        """The index in the codebook of the integer 0: that of the first value that is not negative.

        Hence zero, if it is a value, is the integer 0, unless more than 128 of 256 values are on one side of it.
        """
        return codebook_offset(self.codebook)

    def dequantize(self) -> Tensor:
        """Return the float32 weight."""
        return self.codebook[self.integers.long() + self.offset]

    def describe(self) -> dict[str, Any]:
        """Return the description for model.json."""
        return {"scheme": "codebook", "bits": self.bits}


def codebook_offset(codebook: Tensor) -> int:
    """Return the index of the integer 0 of a CodebookTensor in an ascending codebook."""
    return min(max(int((codebook < 0).sum()), len(codebook) - 128), 128)


@dataclasses.dataclass(frozen=True)
class ActivationQuantizer:
    """Simulate the quantized input of an integer kernel: a forward pre-hook that rounds a module's input.

    Integers are uint8 in [0, 2^bits - 1]; value = (integer - zero_point) * scale.
    """

    scale: float
    zero_point: int
    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise InputError(f"bits must be in [2, 8], but got {self.bits}.")
        if not LEAST_SCALE <= self.scale <= 1 / LEAST_SCALE:  # as a float32, and its inverse
            raise InputError(f"scale must be in (0, inf), but got {self.scale}.")
        if not 0 <= self.zero_point < 2**self.bits:
            raise InputError(f"zero_point must be in [0, {2**self.bits}), but got {self.zero_point}.")

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs of ``module``, the first rounded to the grid."""
        values, last = inputs[0], 2**self.bits - 1
        trained = torch.is_grad_enabled() and values.requires_grad
        if type(values) is not Tensor or values.dtype != torch.float32 or trained:
            first = torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, 0, last)
        else:  # the same values without the mask for a backward pass: an eighth of the time
            integers = torch.mul(values, self._inverse).round_().clamp_(-self.zero_point, last - self.zero_point)
            first = integers.mul_(self.scale)
        return (first, *inputs[1:])

    @functools.cached_property
    def _inverse(self) -> float:
        """The inverse of the scale as torch's operator computes it, in float32."""
        return float(1 / torch.tensor(self.scale, dtype=torch.float32))


@dataclasses.dataclass(frozen=True)
class DynamicQuantizer:
    """Simulate an input that is quantized at run time: a pre-hook that rounds it to a grid between its extremes.

    The grid is uint8, asymmetric and common to the batch, as in ONNX's DynamicQuantizeLinear. The output for an image
    therefore depends slightly on the other images of the batch.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if self.bits != 8:
            raise InputError(f"bits of an input quantized at run time must be 8, but got {self.bits}.")

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs of ``module``, the first rounded to its grid."""
        values = inputs[0]
        low, high = values.amin().clamp(max=0.0), values.amax().clamp(min=0.0)
        scale = (high - low) / 255.0
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero_point = torch.round(-low / scale).clamp(0, 255)
        first = (torch.round(values / scale) + zero_point).clamp(0, 255).sub(zero_point) * scale
        return (first, *inputs[1:])


InputQuantizer = ActivationQuantizer | DynamicQuantizer


def describe_quantizer(quantizer: InputQuantizer) -> dict[str, Any]:
    """Return the description of an input quantizer for model.json."""
    fields = dataclasses.asdict(quantizer)
    return fields | {"scheme": "dynamic"} if isinstance(quantizer, DynamicQuantizer) else fields


def read_quantizer(spec: Mapping[str, Any]) -> InputQuantizer:
    """Return the input quantizer of a description (the inverse of ``describe_quantizer``).

    Raises:
        TypeError: a field is missing or unknown.
        InputError: a value is out of its range.
    """
    fields = {name: value for name, value in spec.items() if name != "scheme"}
    for name, value in fields.items():
        if name in ("bits", "zero_point") and type(value) is not int:
            raise InputError(f"{name} of an input quantizer must be a whole number, but got {ascii(value)[:40]}.")
    scheme = spec.get("scheme", "static")
    if scheme not in ("static", "dynamic"):
        raise InputError(f"the scheme of an input quantizer must be static or dynamic, but got {scheme!r}.")
    return DynamicQuantizer(**fields) if scheme == "dynamic" else ActivationQuantizer(**fields)


@dataclasses.dataclass(frozen=True)
class OnOutput:
    """A forward hook that quantizes a module's output as ``quantizer``, a forward pre-hook, does the input."""

    quantizer: Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return ``output`` on the grid."""
        return self.quantizer(module, (output,))[0]


def install_quantizers(
    module: nn.Module, activations: Mapping[str, Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]]
) -> None:
    """Hook the places of ``activations`` so that these values are quantized.

    Args:
        module: the network, changed in place.
        activations: quantizers by place: a submodule's name for its input, the name and OUTPUT for its output.
    """
    for place, quantizer in activations.items():
        part = module.get_submodule(place.removesuffix(OUTPUT))
        if place.endswith(OUTPUT):
            part.register_forward_hook(OnOutput(quantizer))
        else:
            part.register_forward_pre_hook(quantizer)


def remove_quantizers(module: nn.Module, places: Iterable[str]) -> None:
    """Remove the hooks of ``install_quantizers`` at ``places``, in place."""
    for place in places:
        part = module.get_submodule(place.removesuffix(OUTPUT))
        # torch has no public access without the hook's handle
        hooks: dict[int, Any] = part._forward_hooks if place.endswith(OUTPUT) else part._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, InputQuantizer | OnOutput)]:
            del hooks[key]
