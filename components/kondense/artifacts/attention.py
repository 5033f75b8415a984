"""Self-attention whose projections are layers, so that what works on linear layers works on them.

``nn.MultiheadAttention`` holds the projections of query, key and value as one bare parameter and reads the weight of
the last projection itself, so that neither has an input that could be quantized.

Shapes: B sequences of S positions of E values, in H heads of D values; values [B, S, E] or, if not ``batch_first``,
[S, B, E].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.errors import InputError


class SelfAttention(nn.Module):
    """An ``nn.MultiheadAttention`` of a sequence with itself, without masks: two linear layers around the heads."""

    _qkv_same_embed_dim = False  # tells nn.TransformerEncoderLayer that its fused form does not apply

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if not is_separable(attention):
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
            InputError: query, key and value are not the same, or weights or a mask are asked for.
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


def is_separable(module: nn.Module) -> bool:
    """Return whether a module is an attention whose projections a SelfAttention can hold."""
    return (
        type(module) is nn.MultiheadAttention
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
    )


def takes_itself(
    query: Tensor, key: Tensor, value: Tensor, *further: Any, need_weights: bool = True, **masks: Any
) -> bool:
    """Return whether the arguments of an ``nn.MultiheadAttention`` ask for what a SelfAttention computes."""
    masked = any(masks.get(name) is not None for name in ("key_padding_mask", "attn_mask")) or masks.get("is_causal")
    return query is key is value and query.dim() == 3 and not (further or need_weights or masked)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer that holds these very parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=torch.device("meta"))
    layer.weight = weight
    layer.bias = bias  # type: ignore[assignment]
    return layer
