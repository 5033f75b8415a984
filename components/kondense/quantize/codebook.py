"""Weight sharing: the weights of a layer take a few values, which can be trained.

Shapes: weight [O, I, ...]; codebook [K]; N values, B bins, K centroids.
"""

import copy
import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kondense.artifacts.model import Model
from kondense.artifacts.quantized import CodebookTensor, codebook_offset
from kondense.artifacts.reparametrized import bake
from kondense.artifacts.ties import tie, tied_names
from kondense.quantize.context import Context
from kondense.quantize.layers import owned, quantizable_layers, with_weights

METHOD = {
    "name": "codebook",
    "kind": "weights",
    "summary": "shares 2^bits values among the weights of a layer",
    "function": "apply",
    "fine_tune": True,
    "step": "pack_weights",
}
BINS = 512  # distinct values up to which k-means is exact; more are first gathered in as many quantile bins
Floats = NDArray[np.float64]


def apply(model: Model, context: Context) -> Model:
    """Quantize ``model`` with the config's parameters; ``fine_tune`` trains the centroids."""
    config = context.config
    context.summary = f"share {2**config.bits} values per layer" + (" and train them" if config.fine_tune else "")
    shared = quantize(model, bits=config.bits)
    return _fine_tune(shared, context) if config.fine_tune else shared


def quantize(model: Model, *, bits: int = 4) -> Model:
    """Return ``model`` with at most 2^bits values in the weights of each convolution and linear layer.

    The values are the centroids of k-means, optimal for layers with few distinct weights. Zeros remain zeros: a layer
    that has some keeps zero as one of its values, and k-means runs on the others.

    Args:
        model: a float model; it is not changed.
        bits: bits per weight, 2 to 8.

    Source: Han et al. 2016 (Deep Compression), section 3. Deviation: the optimum in one dimension instead of
    Lloyd's iteration from linear initialisation.
    """
    names = [f"{name}.weight" for name in quantizable_layers(model.module)]
    return with_weights(model, {name: _share(model.module.get_parameter(name), bits) for name in names})


def _share(weight: Tensor, bits: int) -> CodebookTensor:
    values_N = weight.detach().double().reshape(-1).numpy()
    kept_N = values_N[values_N != 0]
    zeros = len(kept_N) < len(values_N)
    centroids_K = torch.from_numpy(optimal_centroids(kept_N, 2**bits - zeros)) if len(kept_N) else torch.zeros(0)
    codebook_K = tidy(torch.cat([centroids_K, torch.zeros(int(zeros))]))
    indices_N = torch.from_numpy(nearest(values_N, codebook_K.double().numpy()))
    # A non-zero weight may be nearest to the codebook's zero.
    integers = (indices_N - codebook_offset(codebook_K)).to(torch.int8).reshape(weight.shape)
    return CodebookTensor(integers, codebook_K, bits)


def tidy(codebook_K: Tensor) -> Tensor:
    """Return the distinct values in ascending order, at least two, in bfloat16 (2 bytes in a kz file)."""
    values_K = torch.unique(codebook_K.to(torch.bfloat16).float()) + 0.0  # -0.0 becomes 0.0
    missing = torch.tensor([0.0, 1.0])[~torch.isin(torch.tensor([0.0, 1.0]), values_K)]
    return values_K if len(values_K) > 1 else torch.cat([values_K, missing])[:2].sort().values


class SharedWeight(nn.Module):
    """A parametrization: the weight is looked up in trained centroids; zero remains zero."""

    indices: Tensor

    def __init__(self, tensor: CodebookTensor) -> None:
        super().__init__()
        self.register_buffer("indices", tensor.integers.long() + tensor.offset)

    def forward(self, codebook_K: Tensor) -> Tensor:
        """Return the weight [O, I, ...] of the codebook [K]."""
        weight: Tensor = Gather.apply(codebook_K, self.indices)
        return weight


class Gather(torch.autograd.Function):
    """Look values up; the gradient of a value is the mean over its weights, and 0 for the value zero.

    Deviation from Han et al. 2016, section 3.3, who sum: with the mean, one learning rate fits clusters of any size.
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


def _fine_tune(model: Model, context: Context) -> Model:
    """Train the centroids and the parameters that are not shared."""
    module = copy.deepcopy(model.module)
    trained: dict[int, nn.Parameter] = {}  # by tensor: tied layers train one codebook
    for layer_name, tensor in owned(model, module).items():
        assert isinstance(tensor, CodebookTensor)
        layer = module.get_submodule(layer_name)
        # Unsafe: the codebook has another shape than the weight.
        layer.weight = trained.setdefault(id(tensor), nn.Parameter(tensor.codebook.clone()))
        parametrize.register_parametrization(layer, "weight", SharedWeight(tensor), unsafe=True)
    context.train(module, "codebook")
    quantized = {}
    for name, tensor in model.quantized.items():
        layer = module.get_submodule(name.removesuffix(".weight"))
        parametrization = layer.get_submodule("parametrizations.weight")
        indices = parametrization.get_buffer("0.indices")
        codebook_K = parametrization.get_parameter("original").detach()
        quantized[name] = _renumbered(indices, codebook_K, tensor.bits)
    bake(module)
    tie(module, {name: first for name, first in tied_names(model.module).items() if name in quantized})
    return with_weights(dataclasses.replace(model, module=module), quantized)


def _renumbered(indices: Tensor, trained_K: Tensor, bits: int) -> CodebookTensor:
    """Return the weight for trained centroids, whose order may have changed and which may coincide."""
    codebook_K = tidy(trained_K)
    places_K = torch.searchsorted(codebook_K, trained_K.to(torch.bfloat16).float() + 0.0)
    integers = (places_K[indices] - codebook_offset(codebook_K)).to(torch.int8)
    return CodebookTensor(integers, codebook_K, bits)


def optimal_centroids(values_N: Floats, count: int) -> Floats:
    """Return the at most ``count`` centroids of k-means in one dimension, ascending.

    They are optimal for up to BINS distinct values. More values are first gathered in bins of neighbours, and Lloyd's
    iteration then refines the centroids on the values themselves.

    Source: Wang and Song 2011 (Ckmeans.1d.dp), the dynamic program, vectorised over the start of the last cluster.
    """
    distinct_B, weight_B = np.unique(values_N, return_counts=True)
    if len(distinct_B) <= count:
        return distinct_B
    if len(distinct_B) <= BINS:
        return _optimum(distinct_B, weight_B.astype(np.float64), count)
    parts = np.array_split(np.sort(values_N), BINS)
    means_B = np.array([part.mean() for part in parts])
    sizes_B = np.array([len(part) for part in parts], np.float64)
    return _refined(values_N, np.unique(_optimum(means_B, sizes_B, count)))


def nearest(values_N: Floats, centroids_K: Floats) -> NDArray[np.int64]:
    """Return the index of the centroid nearest to each value; ``centroids_K`` ascends."""
    return np.searchsorted((centroids_K[1:] + centroids_K[:-1]) / 2, values_N).astype(np.int64)


def _optimum(values_B: Floats, weight_B: Floats, count: int) -> Floats:
    """Return the centroids of the best split of ascending, weighted values into ``count`` runs."""
    size = len(values_B)
    values_B = values_B - (offset := float(np.average(values_B, weights=weight_B)))
    mass, first, second = (np.concatenate(([0.0], np.cumsum(weight_B * values_B**power))) for power in range(3))
    # cost_SE[s, e]: squared error of the run of values s..e-1 about its mean.
    starts, ends = np.arange(size)[:, None], np.arange(1, size + 1)[None, :]
    run_mass = np.where(ends > starts, mass[ends] - mass[starts], 1.0)
    cost_SE = second[ends] - second[starts] - (first[ends] - first[starts]) ** 2 / run_mass
    cost_SE = np.where(ends > starts, np.maximum(cost_SE, 0.0), np.inf)
    best_E = cost_SE[0]
    choices = []
    for _ in range(1, count):
        # The last run starts at s >= 1, and the runs before it end there.
        total_SE = np.concatenate(([np.inf], best_E[:-1]))[:, None] + cost_SE
        choices.append(total_SE.argmin(0))
        best_E = total_SE.min(0)
    end, bounds = size, [size]
    for choice_E in reversed(choices):
        end = int(choice_E[end - 1])
        bounds.append(end)
    edges = np.array([0, *reversed(bounds)])
    return (first[edges[1:]] - first[edges[:-1]]) / (mass[edges[1:]] - mass[edges[:-1]]) + offset


def _refined(values_N: Floats, centroids_K: Floats, rounds: int = 20) -> Floats:
    """Improve centroids by at most ``rounds`` of Lloyd's iteration."""
    for _ in range(rounds):
        chosen_N = nearest(values_N, centroids_K)
        mass_K = np.bincount(chosen_N, minlength=len(centroids_K))
        means_K = np.bincount(chosen_N, weights=values_N, minlength=len(centroids_K)) / np.maximum(mass_K, 1)
        moved_K = np.where(mass_K > 0, means_K, centroids_K)
        if np.array_equal(moved_K, centroids_K):
            break
        centroids_K = moved_K
    return np.unique(centroids_K)
