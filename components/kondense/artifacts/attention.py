"""Attention whose projections are layers, so that what works on linear layers works on them.

``nn.MultiheadAttention`` holds the projections of query, key and value as one bare parameter and reads the weight of
the last projection itself, so that neither has an input that could be quantized.

Shapes: B sequences of S positions of E values, in H heads of D values; values [B, S, E] or, if not ``batch_first``,
[S, B, E].
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.errors import InputError


class SelfAttention(nn.Module):
    """An ``nn.MultiheadAttention`` of a sequence with itself, without masks: two linear layers around the heads.

    It returns no weights of the attention.
    """

    _qkv_same_embed_dim = False  # tells nn.TransformerEncoderLayer that its fused form does not apply

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if not is_separable(attention) or attention.in_proj_weight is None:
            raise InputError("an attention with separate layers must project query, key and value from one width.")
        self.embed_dim, self.head_dim = attention.embed_dim, attention.head_dim
        self.dropout, self.batch_first = attention.dropout, attention.batch_first
        self.in_proj = _linear(attention.in_proj_weight, attention.in_proj_bias)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)
        self.train(attention.training)

    @property
    def num_heads(self) -> int:
        """The number of heads, of which the projections hold as many as were not pruned."""
        return len(self.in_proj.weight) // (3 * self.head_dim)

    @property
    def in_proj_weight(self) -> Tensor:
        """The weight that ``nn.TransformerEncoderLayer`` asks for."""
        return self.in_proj.weight

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The bias, likewise."""
        return self.in_proj.bias

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = True, **masks: Any
    ) -> tuple[Tensor, None]:
        """Return the attention of a sequence with itself, and no weights.

        Raises:
            InputError: query, key and value are not the same, or there is a mask.
        """
        if not takes_itself(query, key, value, need_weights=need_weights, **masks):
            raise InputError("an attention with separate layers must be called on one sequence, without a mask.")
        values = query if self.batch_first else query.transpose(0, 1)
        batch, places, _ = values.shape
        projected = self.in_proj(values)
        count = projected.shape[-1] // (3 * self.head_dim)  # in training the layer may be one of another kind
        heads = projected.view(batch, places, 3, count, self.head_dim)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, S, D]
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if self.training else 0.0)
        mixed = self.out_proj(mixed.transpose(1, 2).reshape(batch, places, count * self.head_dim))
        return (mixed if self.batch_first else mixed.transpose(0, 1)), None

    def extra_repr(self) -> str:
        """Return what decides the function besides the weights."""
        return f"{self.embed_dim}, heads={self.num_heads}, batch_first={self.batch_first}"


class CrossAttention(nn.Module):
    """An ``nn.MultiheadAttention`` as four linear layers: of two sequences, of two widths, or with a mask [S, S'].

    It returns no weights of the attention.
    """

    _qkv_same_embed_dim = False  # as that of SelfAttention

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if not is_separable(attention):
            raise InputError("an attention with separate layers must have no keys of its own.")
        self.embed_dim, self.head_dim = attention.embed_dim, attention.head_dim
        self.dropout, self.batch_first = attention.dropout, attention.batch_first
        held = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        weights = held if attention.in_proj_weight is None else _thirds(attention.in_proj_weight)
        biases = (None,) * 3 if attention.in_proj_bias is None else _thirds(attention.in_proj_bias)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)
        self.train(attention.training)

    @property
    def num_heads(self) -> int:
        """The number of heads, of which the projections hold as many as were not pruned."""
        return len(self.q_proj.weight) // self.head_dim

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The bias that ``nn.TransformerEncoderLayer`` asks for."""
        return self.q_proj.bias

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *further: Any, **settings: Any) -> tuple[Tensor, None]:
        """Return the attention of the queries to the values by their keys, and no weights.

        Raises:
            InputError: keys are masked for each sequence, or places for each head.
        """
        if not takes_others(query, key, value, *further, **settings):
            raise InputError("an attention with separate layers must have at most one mask, for all sequences.")
        mask = _arguments(query, key, value, *further, **settings)["attn_mask"]
        if mask is not None and mask.dtype is torch.bool:
            mask = ~mask  # torch's layer names those that are left out, its function those that are not
        given = [each if self.batch_first else each.transpose(0, 1) for each in (query, key, value)]
        layers = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (self._heads(layer(each)) for layer, each in zip(layers, given, strict=True))
        share = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=share)
        mixed = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (mixed if self.batch_first else mixed.transpose(0, 1)), None

    def _heads(self, values: Tensor) -> Tensor:
        """Return values [B, S, H * D] by head, [B, H, S, D]."""
        return values.unflatten(2, (values.shape[2] // self.head_dim, self.head_dim)).transpose(1, 2)

    def extra_repr(self) -> str:
        """Return what decides the function besides the weights."""
        return f"{self.embed_dim}, heads={self.num_heads}, batch_first={self.batch_first}"


ATTENTIONS: Mapping[str, type[SelfAttention | CrossAttention]] = {
    "SelfAttention": SelfAttention,
    "CrossAttention": CrossAttention,
}


def is_separable(module: nn.Module) -> bool:
    """Return whether a module is an attention whose projections a CrossAttention can hold."""
    return type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn


def takes_itself(*args: Any, **settings: Any) -> bool:
    """Return whether the arguments of an ``nn.MultiheadAttention`` ask for what a SelfAttention computes."""
    given = _arguments(*args, **settings)
    masked = any(given[name] is not None for name in ("key_padding_mask", "attn_mask")) or given["is_causal"]
    return given["query"] is given["key"] is given["value"] and given["query"].dim() == 3 and not masked


def takes_others(*args: Any, **settings: Any) -> bool:
    """Return whether the arguments of an ``nn.MultiheadAttention`` ask for what a CrossAttention computes."""
    given = _arguments(*args, **settings)
    mask = given["attn_mask"]
    masked = (mask.dim() == 2 if mask is not None else not given["is_causal"]) and given["key_padding_mask"] is None
    return bool(masked) and all(given[name].dim() == 3 for name in ("query", "key", "value"))


def needs_weights(*args: Any, **settings: Any) -> bool:
    """Return whether the arguments of an ``nn.MultiheadAttention`` ask for the weights, as they do by default."""
    return bool(_arguments(*args, **settings)["need_weights"])


def _arguments(*args: Any, **settings: Any) -> dict[str, Any]:
    """Return the arguments of an ``nn.MultiheadAttention`` by name."""
    names = list(CALL)[: len(args)]
    return {name: each.default for name, each in CALL.items()} | dict(zip(names, args, strict=True)) | settings


CALL = {
    name: each for name, each in inspect.signature(nn.MultiheadAttention.forward).parameters.items() if name != "self"
}


def _thirds(tensor: Tensor) -> tuple[nn.Parameter, ...]:
    parts = tensor.detach().chunk(3)
    return tuple(nn.Parameter(part.clone(), requires_grad=tensor.requires_grad) for part in parts)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer that holds these very parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=torch.device("meta"))
    layer.weight = weight
    layer.bias = bias  # type: ignore[assignment]
    return layer
