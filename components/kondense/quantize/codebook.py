"""Weight sharing: each layer's weights take a few values, which are then trained.

Shapes: weight [O, I, ...]; codebook [K].
"""

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kondense.artifacts.model import Model
from kondense.artifacts.quantized import CodebookTensor, codebook_offset
from kondense.errors import InputError
from kondense.quantize.kmeans import nearest, optimal_centroids
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.request import Request


def apply(model: Model, request: Request) -> Model:
    """Quantize ``model`` as the request's config says; its centroids are trained when ``fine_tune`` is on."""
    shared = quantize(model, bits=request.config.bits)
    return _fine_tune(shared, request) if request.config.fine_tune else shared


def quantize(model: Model, *, bits: int = 4) -> Model:
    """Return ``model`` with at most 2^bits values in the weights of each convolution and linear layer.

    They are the centroids of k-means, exact where that is cheap. Zeros stay zeros: a layer that has some
    keeps zero as one of its values, and k-means runs over the others.

    Args:
        model: a float model; it is left as it was.
        bits: of a weight, 2 to 8.

    Raises:
        ValueError: the model is quantized already.

    Source: Han et al. 2016 (Deep Compression), section 3. Deviation: the optimum in one dimension instead of
    Lloyd's iteration from linear initialisation.
    """
    if model.quantized or model.activations:
        raise InputError("a model must be quantized once, but this one is quantized already.")
    module = copy.deepcopy(model.module).eval()
    quantized = {
        f"{name}.weight": _share(module.get_parameter(f"{name}.weight"), bits) for name in quantizable_layers(module)
    }
    return _with_values(dataclasses.replace(model, module=module), quantized)


def _share(weight: Tensor, bits: int) -> CodebookTensor:
    values_N = weight.detach().double().reshape(-1).numpy()
    kept_N = values_N[values_N != 0]
    zeros = len(kept_N) < len(values_N)
    centroids_K = torch.from_numpy(optimal_centroids(kept_N, 2**bits - zeros)) if len(kept_N) else torch.zeros(0)
    codebook_K = tidy(torch.cat([centroids_K, torch.zeros(int(zeros))]))
    indices_N = torch.from_numpy(nearest(values_N, codebook_K.double().numpy()))
    # What is not zero may lie nearest to the zero of the codebook, and is then better off there.
    integers = (indices_N - codebook_offset(codebook_K)).to(torch.int8).reshape(weight.shape)
    return CodebookTensor(integers, codebook_K, bits)


def tidy(codebook_K: Tensor) -> Tensor:
    """Return the values ascending, without repetitions, at least two, as bfloat16 holds them (2 bytes in a kz file)."""
    values_K = torch.unique(codebook_K.to(torch.bfloat16).float()) + 0.0  # -0.0 becomes 0.0
    missing = torch.tensor([0.0, 1.0])[~torch.isin(torch.tensor([0.0, 1.0]), values_K)]
    return values_K if len(values_K) > 1 else torch.cat([values_K, missing])[:2].sort().values


def _with_values(model: Model, quantized: dict[str, CodebookTensor]) -> Model:
    with torch.no_grad():
        for name, tensor in quantized.items():
            model.module.get_parameter(name).copy_(tensor.dequantize())
    return dataclasses.replace(model, quantized=quantized)


class SharedWeight(nn.Module):
    """A parametrization: the weight of trained centroids; zero stays zero."""

    indices: Tensor

    def __init__(self, tensor: CodebookTensor) -> None:
        super().__init__()
        self.register_buffer("indices", tensor.integers.long() + tensor.offset)

    def forward(self, codebook_K: Tensor) -> Tensor:
        """Return the weight [O, I, ...] of the codebook [K]."""
        weight: Tensor = Gather.apply(codebook_K, self.indices)
        return weight


class Gather(torch.autograd.Function):
    """Look values up; a value's gradient is the mean of its weights', and that of zero is none.

    Deviation from Han et al. 2016, section 3.3, which sums: the mean makes one learning rate fit clusters of any size.
    """

    @staticmethod
    def forward(ctx: Any, codebook_K: Tensor, indices: Tensor) -> Tensor:
        """Return codebook_K[indices]."""
        ctx.save_for_backward(codebook_K, indices)
        return codebook_K[indices]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the codebook."""
        codebook_K, indices = ctx.saved_tensors
        flat_N = indices.reshape(-1)
        total_K = torch.zeros_like(codebook_K).index_add_(0, flat_N, gradients[0].reshape(-1).to(codebook_K.dtype))
        count_K = torch.bincount(flat_N, minlength=len(codebook_K)).clamp(min=1)
        return total_K / count_K * (codebook_K != 0), None


def _fine_tune(model: Model, request: Request) -> Model:
    """Train the centroids, and the parameters that are not shared, through the shared loop."""
    module = copy.deepcopy(model.module)
    for name, tensor in model.quantized.items():
        assert isinstance(tensor, CodebookTensor)
        layer = module.get_submodule(name.removesuffix(".weight"))
        # Unsafe: the codebook has another shape than the weight.
        layer.weight = nn.Parameter(tensor.codebook.clone())
        parametrize.register_parametrization(layer, "weight", SharedWeight(tensor), unsafe=True)
    request.train(module, "codebook")
    quantized = {}
    for name, tensor in model.quantized.items():
        layer = module.get_submodule(name.removesuffix(".weight"))
        parametrization = layer.get_submodule("parametrizations.weight")
        indices = parametrization.get_buffer("0.indices")
        codebook_K = parametrization.get_parameter("original").detach()
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        quantized[name] = _renumbered(indices, codebook_K, tensor.bits)
    return _with_values(dataclasses.replace(model, module=module.eval()), quantized)


def _renumbered(indices: Tensor, trained_K: Tensor, bits: int) -> CodebookTensor:
    """Return the weight of trained centroids, which may have changed places or met."""
    codebook_K = tidy(trained_K)
    places_K = torch.searchsorted(codebook_K, trained_K.to(torch.bfloat16).float() + 0.0)
    integers = (places_K[indices] - codebook_offset(codebook_K)).to(torch.int8)
    return CodebookTensor(integers, codebook_K, bits)
