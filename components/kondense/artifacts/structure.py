"""Structural edits: differences in shape between a network's layers and those that its factory builds.

An edit holds, by module name, the changed constructor attributes: channel and feature counts, a bias gained by folding
a batch norm, the number of heads of an attention, or that the module became an Identity or, of an attention, a
SelfAttention. Applied to a new base network,
the edits give modules with the shapes of the weights.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from kondense.artifacts.attention import SelfAttention, is_separable
from kondense.errors import InputError
from kondense.networks.layers import CONVOLUTIONS

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
ATTRIBUTES: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys(CONVOLUTIONS, ("in_channels", "out_channels", "groups")),
    nn.Linear: ("in_features", "out_features"),
    **dict.fromkeys(NORMS, ("num_features",)),
    nn.PReLU: ("num_parameters",),
}
LAYERS = (*CONVOLUTIONS, nn.Linear)
TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
Edits = dict[str, dict[str, Any]]
HEADS = "num_heads"  # the attribute in which attentions of libraries hold the number of their heads
WIDTHS = ("attn_dim", "all_head_dim", "inner_dim")  # of all heads together, likewise
SEPARATED = "SelfAttention"  # the type of an attention whose projections became layers


def kind_of(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of ATTRIBUTES that a module is edited as, or None if it cannot be.

    A class of a library's own that adds no tensor to a layer of torch's, such as timm's Conv2dSame and BatchNormAct2d,
    is edited as that layer.
    """
    kind = next((kind for kind in type(module).__mro__ if kind in ATTRIBUTES), None)
    tensors = module._parameters.keys() | module._buffers.keys()
    return kind if kind is not None and tensors <= TENSORS else None


def find_edits(base: nn.Module, changed: nn.Module) -> Edits:
    """Return the edits that turn ``base`` into the structure of ``changed``.

    Raises:
        InputError: a difference that edits cannot express; the text names the module.
    """
    edits = _separated(base, changed)
    apply_edits(base, edits)
    originals = dict(base.named_modules())
    for name, module in changed.named_modules():
        if name not in originals:
            raise InputError(f"module {name!r} is not part of the base network; only shapes may change.")
        edit = _edit(name, originals[name], module)
        if edit:
            edits[name] = edit
    apply_edits(base, {name: edit for name, edit in edits.items() if edit.get("type") != SEPARATED})
    _check_same_shapes(base, changed)
    _check_same_settings(base, changed)
    return edits


def apply_edits(module: nn.Module, edits: Mapping[str, Mapping[str, Any]]) -> None:
    """Change the shapes of the named submodules in place; their weights are uninitialised.

    Raises:
        InputError: an edit names a module or an attribute that the network does not have.
    """
    for name, edit in edits.items():
        try:
            target = module.get_submodule(name)
        except AttributeError:
            raise InputError(f"a structural edit names module {name!r}, which the network does not have.") from None
        if _changed_otherwise(module, name, edit):
            continue
        kind = kind_of(target)
        if kind is None:
            raise InputError(f"a structural edit of {name!r} cannot change a {type(target).__name__}.")
        allowed = (*ATTRIBUTES[kind], "bias")
        for attribute, value in edit.items():
            if attribute not in allowed or isinstance(value, bool) != (attribute == "bias"):
                raise InputError(f"a structural edit of {name!r} must set {allowed}, but got {attribute}={value!r}.")
            if attribute != "bias":
                setattr(target, attribute, value)
        _reshape(target, bias=edit.get("bias"))


def _changed_otherwise(module: nn.Module, name: str, edit: Mapping[str, Any]) -> bool:
    """Make an edit that changes no shape of a layer, and return whether it is one.

    Raises:
        InputError: the module is of another kind.
    """
    target = module.get_submodule(name)
    if edit.get("type") == "Identity":
        replace(module, name, nn.Identity())
    elif edit.get("type") == SEPARATED:
        if not isinstance(target, nn.MultiheadAttention) or not is_separable(target):
            raise InputError(f"a structural edit of {name!r} cannot separate the layers of a {type(target).__name__}.")
        replace(module, name, SelfAttention(target))
    elif set(edit) == {HEADS}:
        if not head_count(target) or type(edit[HEADS]) is not int or edit[HEADS] < 1:
            raise InputError(f"a structural edit of {name!r} cannot set the heads of a {type(target).__name__}.")
        set_heads(target, edit[HEADS])
    else:
        return False
    return True


def replace(module: nn.Module, name: str, new: nn.Module) -> None:
    """Replace the submodule ``name`` by ``new``, in place, wherever the network holds it.

    The module may stand under several names, and in lists, tuples and dictionaries that are attributes.
    """
    old = module.get_submodule(name)
    for part in list(module.modules()):
        for leaf, child in part._modules.items():
            if child is old:
                part._modules[leaf] = new
        for attribute, value in list(vars(part).items()):
            if attribute[0] != "_":
                changed = _replaced(value, old, new)
                if changed is not value:
                    setattr(part, attribute, changed)


def head_count(module: nn.Module) -> int:
    """Return the number of heads that a module holds as a number; 0 if it holds none."""
    count = vars(module).get(HEADS)
    return count if type(count) is int and not isinstance(module, nn.MultiheadAttention) else 0


def set_heads(module: nn.Module, count: int) -> None:
    """Set the number of heads of a module that holds it, and the width of all of them."""
    before = head_count(module)
    for name in WIDTHS:
        width = vars(module).get(name)
        if type(width) is int and width % before == 0:
            setattr(module, name, width // before * count)
    setattr(module, HEADS, count)


def _replaced(value: Any, old: nn.Module, new: nn.Module) -> Any:
    """Return an attribute with ``new`` for ``old``: itself, unless it is a container of modules that holds ``old``."""
    if isinstance(value, list | tuple) and any(item is old for item in value):
        return type(value)([new if item is old else item for item in value])
    if isinstance(value, dict) and any(item is old for item in value.values()):
        return type(value)((key, new if item is old else item) for key, item in value.items())
    return value


def _separated(base: nn.Module, changed: nn.Module) -> Edits:
    """Return the edits that separate the layers of attentions."""
    originals = dict(base.named_modules())
    return {
        name: {"type": SEPARATED}
        for name, module in changed.named_modules()
        if isinstance(module, SelfAttention) and isinstance(originals.get(name), nn.MultiheadAttention)
    }


def _edit(name: str, original: nn.Module, module: nn.Module) -> dict[str, Any]:
    if isinstance(module, nn.Identity) and not isinstance(original, nn.Identity):
        return {"type": "Identity"}
    if _kind(module) is not _kind(original):
        raise InputError(f"module {name!r} is a {type(module).__name__}, but the base has {type(original).__name__}.")
    if head_count(module) != head_count(original):
        return {HEADS: head_count(module)}
    kind = kind_of(module)
    edit = {
        attribute: getattr(module, attribute)
        for attribute in (ATTRIBUTES[kind] if kind else ())
        if getattr(module, attribute) != getattr(original, attribute)
    }
    if isinstance(module, LAYERS) and (module.bias is None) != (original.bias is None):
        edit["bias"] = module.bias is not None
    return edit


def _kind(module: nn.Module) -> type:
    """Return the class of ``module``, without the adapter of ``kondense.networks.outputs``."""
    kind = type(module)
    return kind.__bases__[0] if "_returns_logits" in vars(kind) else kind


def _reshape(module: nn.Module, *, bias: bool | None) -> None:
    if isinstance(module, CONVOLUTIONS):
        shape: tuple[int, ...] = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
    elif isinstance(module, nn.Linear):
        shape = (module.out_features, module.in_features)
    elif isinstance(module, nn.PReLU):
        module.weight = nn.Parameter(torch.empty(module.num_parameters))
        return
    else:
        assert isinstance(module, NORMS)
        shape = (module.num_features,)
        for buffer in ("running_mean", "running_var"):
            if getattr(module, buffer) is not None:
                setattr(module, buffer, torch.empty(shape))
    if module.weight is not None:
        module.weight = nn.Parameter(torch.empty(shape))
    if bias if bias is not None else module.bias is not None:
        module.bias = nn.Parameter(torch.empty(shape[:1]))
    else:
        module.bias = None


def _check_same_shapes(edited: nn.Module, changed: nn.Module) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in edited.state_dict().items()}
    lost = sorted(shapes.keys() - changed.state_dict().keys())
    if lost:
        raise InputError(f"tensor {lost[0]!r} of the base network is missing, which no edit can express.")
    for name, tensor in changed.state_dict().items():
        if shapes.get(name) != tuple(tensor.shape):
            raise InputError(
                f"tensor {name!r} has shape {list(tensor.shape)}, which no edit of the base network gives"
                f" ({shapes.get(name)})."
            )


def _check_same_settings(edited: nn.Module, changed: nn.Module) -> None:
    # A stride or a pooling size changes the function, but no tensor's shape.
    expected = {name: _settings(module) for name, module in edited.named_modules()}
    for name, module in changed.named_modules():
        if _settings(module) != expected[name]:
            raise InputError(
                f"module {name!r} has the settings {_settings(module)!r}, which no edit of the base network gives"
                f" ({expected[name]!r})."
            )


def _settings(module: nn.Module) -> str:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        # Without the momentum, which only training uses.
        return f"{module.num_features}, eps={module.eps}, running={module.running_mean is not None}"
    return module.extra_repr().replace("inplace=True", "").strip(", ")
