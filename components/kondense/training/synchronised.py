"""Batch norms over the whole batch of which each process has a part.

torch's SyncBatchNorm replaces modules and works on GPUs only; here calls of ``torch.nn.functional.batch_norm`` that
normalise by the batch are replaced, whichever module makes them, on any device.

Shapes: P processes, C channels.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


class SynchronisedBatchNorms(TorchFunctionMode):
    """A context in which batch norms that train use the statistics of all processes' images."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, or its synchronised form."""
        if function is F.batch_norm:
            return batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def batch_norm(  # noqa: PLR0917  # torch's own arguments
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``torch.nn.functional.batch_norm``, in training of the values of all processes together."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    values: Tensor
    values, mean_C, var_C = Normalise.apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
            running_var.lerp_(var_C.to(running_var.dtype), momentum)
    return values


class Normalise(torch.autograd.Function):
    """Batch norm by the mean and the variance of each channel over all processes.

    Source: Ioffe and Szegedy 2015, with its gradient; Chan et al. 1979 for the variance of parts.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight_C: Tensor | None, bias_C: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalised values, the mean [C] and the unbiased variance [C]."""
        channels, inputs = values.shape[1], values.float()
        # torch's own kernels for batch norms read the values once; sums over axes take two to three times as long.
        mean_C, var_C = aten.batch_norm_update_stats(inputs, None, None, 0.0)
        packed = torch.cat([mean_C, var_C, mean_C.new_tensor([float(values.numel() // channels)])])
        parts = [torch.empty_like(packed) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, packed)
        means_PC, vars_PC, counts_P = torch.stack(parts).double().split([channels, channels, 1], dim=1)
        count, shares_P = counts_P.sum(), counts_P / counts_P.sum()  # tensors: a GPU need not be waited for
        mean_C = (shares_P * means_PC).sum(0)
        var_C = (shares_P * (vars_PC + (means_PC - mean_C).square())).sum(0)
        unbiased_C, mean_C, var_C = (var_C * count / (count - 1)).float(), mean_C.float(), var_C.float()
        ctx.save_for_backward(values, weight_C, mean_C, var_C, count.float())
        ctx.eps, ctx.biased = eps, bias_C is not None
        ctx.mark_non_differentiable(mean_C, unbiased_C)
        weight_C, bias_C = (None if each is None else each.float() for each in (weight_C, bias_C))
        return F.batch_norm(inputs, mean_C, var_C, weight_C, bias_C, eps=eps).to(values.dtype), mean_C, unbiased_C

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """Return the gradients of the values, of the weight and of the bias; the latter two of this process alone."""
        values, weight_C, mean_C, var_C, count = ctx.saved_tensors
        gradient, inputs, shape = gradients[0].float(), values.float(), (1, -1, *[1] * (values.ndim - 2))
        only_sums = (None, None, False, ctx.eps, [False, True, True])
        _, weighed_C, summed_C = aten.native_batch_norm_backward(gradient, inputs, None, mean_C, var_C, *only_sums)
        own_2C = torch.stack([summed_C, weighed_C])
        sums_2C = own_2C.clone()
        distributed.all_reduce(sums_2C)
        mean_gradient_C, slope_C = (sums_2C / count).unbind()
        scale_C = (var_C + ctx.eps).rsqrt()
        factor_C = scale_C if weight_C is None else scale_C * weight_C.float()
        # factor * (gradient - mean gradient - (values - mean) * scale * slope), by two passes over the values
        along_C = -slope_C * scale_C * factor_C
        constant_C = -mean_gradient_C * factor_C - along_C * mean_C
        result = torch.addcmul(constant_C.reshape(shape), gradient, factor_C.reshape(shape))
        result.addcmul_(inputs, along_C.reshape(shape))
        weight_gradient_C = None if weight_C is None else own_2C[1].to(weight_C.dtype)
        return result.to(values.dtype), weight_gradient_C, own_2C[0] if ctx.biased else None, None
