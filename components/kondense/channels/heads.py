"""Attention heads as channels: what belongs to one head is removed together.

A head's channels are its outputs of the projections of query, key and value, and the inputs of the output projection
that read it.

Shapes: B sequences of S positions in H heads of D values; query, key and value [B, H, S, D].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kondense.artifacts.structure import head_count, set_heads
from kondense.channels.groups import ChannelGroup
from kondense.channels.labels import Labelled, Trace, collapse, unwrapped, varies


def attention(  # noqa: PLR0917  # as torch's
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **settings: Any,
) -> Any:
    """Run ``scaled_dot_product_attention``: the channels of a head are tied, and those of the value pass.

    What is not an attention of heads whose query, key and value are all channels is followed operation by operation.
    """
    operands = (query, key, value)
    heads = [_by_head(each) for each in operands]
    masked = isinstance(attn_mask, Labelled) and attn_mask.labels is not None
    if masked or settings.get("enable_gqa") or any(each is None or not bool(each.all()) for each in heads):
        return NotImplemented
    query_value, key_value, value_value = (each.value for each in operands)
    mixed = F.scaled_dot_product_attention(
        query_value, key_value, value_value, unwrapped(attn_mask), dropout_p, is_causal, **settings
    )
    value_HD = heads[2]
    assert value_HD is not None
    for head_HD in heads:
        assert head_HD is not None
        value.record.tie(head_HD, value_HD[:, :1].expand(head_HD.shape))
    return type(value)(mixed, value_HD[None, :, None].expand(mixed.shape), value.record)


def norm_of_heads(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Tensor | None] | None:
    """Follow a layer norm of the values of each head, [..., H, S, D] along D: the channels of a head are tied."""
    labels = args[0].labels if isinstance(args[0], Labelled) else None
    if labels is None or len(args[1]) != 1 or not any(varies(labels, axis) for axis in range(labels.ndim - 1)):
        return None
    if any(isinstance(other, Labelled) for other in args[1:]):
        return None
    compact = collapse(labels, keep=labels.ndim - 1)
    trace.tie(compact, compact[..., :1].expand(compact.shape))
    return [labels, None, None]


def _by_head(values: Any) -> Tensor | None:
    """Return the labels of each head, [H, D], or None if they depend on anything else."""
    if not isinstance(values, Labelled) or values.labels is None or values.ndim != 4:
        return None
    compact = collapse(values.labels)
    if compact.shape[0] > 1 or compact.shape[2] > 1:
        return None
    return compact[0, :, 0].expand(values.shape[1], values.shape[3])


def count_heads(module: nn.Module, groups: Mapping[str, ChannelGroup], removed: Mapping[str, Tensor]) -> None:
    """Write the new number of heads into the attentions that lose some and hold it as a number.

    Args:
        module: the network.
        groups: those before the removal.
        removed: the channels [n] to remove from each group, by name.
    """
    for name, channels in removed.items():
        group = groups[name]
        owners = {member.name.rpartition(".")[0] for member in group.members if member.output and len(channels)}
        for owner in owners if group.width > 1 else ():
            attention_module = module.get_submodule(owner)
            if head_count(attention_module) == group.channels:
                set_heads(attention_module, group.channels - len(channels))
