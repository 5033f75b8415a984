"""Structural edits: differences in shape between a network's layers and those that its factory builds.

An edit holds, by module name, the changed constructor attributes: channel and feature counts, a bias gained by folding
a batch norm, the number of heads of an attention, or that the module became an Identity or, of an attention or a SiLU,
one of SEPARATED; of a module of the network's own, the shapes of the parameters and buffers that it holds itself and
the numbers of channels among its attributes and in its code. Applied to a new base network, the edits give modules with
the shapes of the weights.
"""

import contextlib
import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kondense.artifacts.attention import ATTENTIONS, CrossAttention, is_separable
from kondense.artifacts.gates import SigmoidProduct, is_silu
from kondense.artifacts.literals import changed_literals, lower_literals
from kondense.artifacts.numbers import numbers_held, set_number
from kondense.errors import InputError
from kondense.networks.layers import CONVOLUTIONS, TRANSPOSED

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
ATTRIBUTES: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys(CONVOLUTIONS, ("in_channels", "out_channels", "groups")),
    nn.Linear: ("in_features", "out_features"),
    **dict.fromkeys(NORMS, ("num_features",)),
    nn.PReLU: ("num_parameters",),
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm), ("normalized_shape",)),
    nn.GroupNorm: ("num_channels", "num_groups"),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell), ("input_size", "hidden_size")),
}
LAYERS = (*CONVOLUTIONS, nn.Linear)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
Edits = dict[str, dict[str, Any]]
HEADS = "num_heads"  # the attribute in which attentions of libraries hold the number of their heads
WIDTHS = ("attn_dim", "all_head_dim", "inner_dim")  # of all heads together, likewise
OWN, NUMBERS = "tensors", "numbers"  # of modules of the network's own: shapes by tensor, numbers by attribute
LITERALS = "literals"  # likewise: numbers in their code, by method and the number that the class has
# What a module may become that has layers or modules where the base's computes by itself.
SEPARATED: Mapping[str, type[nn.Module]] = {**ATTENTIONS, SigmoidProduct.__name__: SigmoidProduct}
WIDTH_EDITS = {OWN, NUMBERS, LITERALS, "normalized_shape", "num_channels", "hidden_size", "input_size", "embedding_dim"}


def kind_of(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of ATTRIBUTES that a module is edited as, or None if it cannot be.

    A class of a library's own that adds no tensor to a layer of torch's, such as timm's Conv2dSame and BatchNormAct2d,
    is edited as that layer; so are convolutions and fully connected layers with further tensors that are saved.
    """
    kind = next((kind for kind in type(module).__mro__ if kind in ATTRIBUTES), None)
    tensors = module._parameters.keys() | module._buffers.keys()
    if kind is not None and issubclass(kind, RECURRENT):
        return kind if type(module) is kind and not getattr(module, "proj_size", 0) else None
    if kind in LAYERS:
        return kind if not (tensors - TENSORS) & module._non_persistent_buffers_set else None
    return kind if kind is not None and tensors <= TENSORS else None


def find_edits(base: nn.Module, changed: nn.Module) -> Edits:
    """Return the edits that turn ``base`` into the structure of ``changed``.

    Raises:
        InputError: a difference that edits cannot express; the text names the module.
    """
    with _counted_by_weights(changed):
        return _edits(base, changed)


def _edits(base: nn.Module, changed: nn.Module) -> Edits:
    edits = _separated(base, changed)
    apply_edits(base, edits)
    originals = dict(base.named_modules())
    for name, module in changed.named_modules():
        if name not in originals:
            raise InputError(f"module {name!r} is not part of the base network; only shapes may change.")
        edit = _edit(name, originals[name], module)
        if edit:
            edits[name] = edits.get(name, {}) | edit
    apply_edits(base, {name: _without_type(edit) for name, edit in edits.items() if _without_type(edit)})
    _check_same_shapes(base, changed)
    _check_same_settings(base, changed)
    return edits


@contextlib.contextmanager
def _counted_by_weights(module: nn.Module) -> Iterator[None]:
    """Let layers have as many channels as their weights say, while the block runs.

    Some set these numbers in every forward, to compute with a part of their weight (slimmable networks).
    """
    changed: list[tuple[Any, dict[str, int]]] = []
    for layer in module.modules():
        if isinstance(layer, LAYERS) and isinstance(layer._parameters.get("weight"), nn.Parameter):
            counts = _counts_of_weight(layer)
            held = {name: getattr(layer, name) for name in counts}
            if held != counts:
                changed.append((layer, held))
                vars(layer).update(counts)
    try:
        yield
    finally:
        for layer, held in changed:
            vars(layer).update(held)


def _counts_of_weight(layer: Any) -> dict[str, int]:
    first, second = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        return {"out_features": first, "in_features": second}
    second *= layer.groups
    inputs, outputs = (first, second) if isinstance(layer, TRANSPOSED) else (second, first)
    return {"in_channels": inputs, "out_channels": outputs}


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
        if edit.keys() <= {OWN, NUMBERS, LITERALS}:
            _change_own(target, name, edit)
            continue
        if kind is None:
            raise InputError(f"a structural edit of {name!r} cannot change a {type(target).__name__}.")
        allowed = (*ATTRIBUTES[kind], "bias")
        shapes = {key: edit[OWN] for key in (OWN,) if key in edit and kind in LAYERS}
        for attribute, value in ((key, each) for key, each in edit.items() if key not in shapes):
            if attribute not in allowed or not _is_value(attribute, value):
                raise InputError(f"a structural edit of {name!r} must set {allowed}, but got {attribute}={value!r}.")
            if attribute != "bias":
                setattr(target, attribute, tuple(value) if isinstance(value, list) else value)
        _reshape(target, bias=edit.get("bias"))
        _change_own(target, name, shapes)


def _is_value(attribute: str, value: Any) -> bool:
    if attribute == "bias":
        return isinstance(value, bool)
    numbers = value if attribute == "normalized_shape" and isinstance(value, list) else [value]
    return all(type(number) is int and number > 0 for number in numbers)


def _change_own(target: nn.Module, name: str, edit: Mapping[str, Any]) -> None:
    """Give the tensors and numbers that a module of the network's own holds other shapes and values.

    Raises:
        InputError: the module has no such tensor or number, or one of another kind.
    """
    for key, shape in edit.get(OWN, {}).items():
        tensors: Any = next((held for held in (target._parameters, target._buffers) if held.get(key) is not None), None)
        if tensors is None or not _is_shape(shape, tensors[key].shape):
            raise InputError(f"a structural edit of {name!r} must give the shape of a tensor, but got {key}={shape!r}.")
        before: Any = tensors[key]
        tensor = torch.empty(shape, dtype=before.dtype, device=before.device)
        trained = isinstance(before, nn.Parameter)
        tensors[key] = nn.Parameter(tensor, before.requires_grad) if trained else tensor
    held = numbers_held(target) if NUMBERS in edit else {}
    for attribute, value in edit.get(NUMBERS, {}).items():
        if attribute not in held or type(value) is not int or value < 1:
            raise InputError(f"a structural edit of {name!r} must set a number, but got {attribute}={value!r}.")
        if value > held[attribute]:
            raise InputError(
                f"a structural edit of {name!r} must lower {attribute}={held[attribute]}, but got {value}."
            )
        set_number(target, attribute, value)
    lower_literals(target, name, edit.get(LITERALS, {}))


def _is_shape(shape: Any, before: Sequence[int]) -> bool:
    numbers = isinstance(shape, list) and len(shape) == len(before) and all(type(each) is int for each in shape)
    return numbers and all(0 < each <= most for each, most in zip(shape, before, strict=True))


def _changed_otherwise(module: nn.Module, name: str, edit: Mapping[str, Any]) -> bool:
    """Make an edit that changes no shape of a layer, and return whether it is one.

    Raises:
        InputError: the module is of another kind.
    """
    target = module.get_submodule(name)
    if edit.get("type") == "Identity":
        replace(module, name, nn.Identity())
    elif (kind := SEPARATED.get(str(edit.get("type")))) is not None:
        if not _becomes(target, kind):
            raise InputError(f"a structural edit of {name!r} cannot separate the layers of a {type(target).__name__}.")
        replace(module, name, kind(target))
        _change_own(module.get_submodule(name), name, edit)
    elif HEADS in edit and edit.keys() <= {HEADS, OWN, NUMBERS, LITERALS}:
        if not head_count(target) or type(edit[HEADS]) is not int or edit[HEADS] < 1:
            raise InputError(f"a structural edit of {name!r} cannot set the heads of a {type(target).__name__}.")
        set_heads(target, edit[HEADS])
        _change_own(target, name, edit)
    else:
        return False
    return True


def _becomes(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether ``kind``, one of SEPARATED, can stand in the place of ``module``."""
    if kind is SigmoidProduct:
        return is_silu(module)
    one_width = kind is CrossAttention or getattr(module, "in_proj_weight", None) is not None
    return is_separable(module) and one_width


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


def open_silus(module: nn.Module, names: Iterable[str]) -> None:
    """Put a SigmoidProduct in the place of the SiLUs ``names``, in place."""
    for name in names:
        if is_silu(module.get_submodule(name)):
            replace(module, name, SigmoidProduct())


def silus_opened(module: nn.Module) -> list[str]:
    """Return the names of the SigmoidProducts of ``module``."""
    return [name for name, part in module.named_modules() if type(part) is SigmoidProduct]


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


def _without_type(edit: Mapping[str, Any]) -> dict[str, Any]:
    """Return an edit without the separation into layers, which a base network may have already."""
    return {key: value for key, value in edit.items() if not (key == "type" and str(value) in SEPARATED)}


def _separated(base: nn.Module, changed: nn.Module) -> Edits:
    """Return the edits that separate the layers of attentions, and the sigmoids of SiLUs."""
    originals = dict(base.named_modules())
    return {
        name: {"type": type(module).__name__}
        for name, module in changed.named_modules()
        if type(module) in SEPARATED.values() and isinstance(originals.get(name), nn.MultiheadAttention | nn.SiLU)
    }


def _edit(name: str, original: nn.Module, module: nn.Module) -> dict[str, Any]:
    if isinstance(module, nn.Identity) and not isinstance(original, nn.Identity):
        return {"type": "Identity"}
    if not _same(_kind(module), _kind(original)):
        raise InputError(f"module {name!r} is a {type(module).__name__}, but the base has {type(original).__name__}.")
    if head_count(module) != head_count(original):
        return {HEADS: head_count(module)} | _own_edit(original, module, {HEADS, *WIDTHS})
    kind = kind_of(module)
    edit = {
        attribute: getattr(module, attribute)
        for attribute in (ATTRIBUTES[kind] if kind else ())
        if getattr(module, attribute) != getattr(original, attribute)
    }
    if isinstance(module, LAYERS) and (module.bias is None) != (original.bias is None):
        edit["bias"] = module.bias is not None
    edit = {attribute: list(value) if isinstance(value, tuple) else value for attribute, value in edit.items()}
    if not kind:
        return _own_edit(original, module)
    shapes = _shapes(original, module, TENSORS) if isinstance(module, LAYERS) else {}
    return edit | ({OWN: shapes} if shapes else {})


def _own_edit(original: nn.Module, module: nn.Module, known: Collection[str] = ()) -> dict[str, Any]:
    """Return the shapes of a module's own tensors, and the numbers among its attributes that became smaller.

    Numbers that grow, such as a count of passes, are none of channels; ``known`` attributes have edits of their own.
    """
    shapes, before, now = _shapes(original, module), numbers_held(original), numbers_held(module)
    numbers = {
        attribute: now[attribute]
        for attribute, most in before.items()
        if attribute not in known and 0 < now.get(attribute, 0) < most
    }
    literals = {
        method: {str(number): value for number, value in changes.items()}
        for method, changes in changed_literals(module).items()
    }
    return {key: value for key, value in ((OWN, shapes), (NUMBERS, numbers), (LITERALS, literals)) if value}


def _shapes(original: nn.Module, module: nn.Module, known: Collection[str] = ()) -> dict[str, list[int]]:
    """Return the shapes of a module's tensors that are others than the original's, but for the ``known`` ones."""
    shapes = {}
    for held, others in ((module._parameters, original._parameters), (module._buffers, original._buffers)):
        for key, tensor in held.items():
            before = others.get(key)
            if key not in known and tensor is not None and before is not None and tensor.shape != before.shape:
                shapes[key] = list(tensor.shape)
    return shapes


def _kind(module: nn.Module) -> type:
    """Return the class of ``module``, without the adapter of ``kondense.networks.outputs``."""
    kind = type(module)
    return kind.__bases__[0] if "_returns_logits" in vars(kind) else kind


def _same(one: type, other: type) -> bool:
    """Return whether two classes are one, or made alike by a factory that defines its classes at each call."""
    if one is other:
        return True
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__) and _code(one) == _code(other)


def _code(kind: type) -> dict[str, Any]:
    """Return the code of a class's own functions by name; equal code is of equal lines, names and constants."""
    return {name: value.__code__ for name, value in vars(kind).items() if inspect.isfunction(value)}


def _reshape(module: Any, *, bias: bool | None) -> None:
    if isinstance(module, RECURRENT):
        _reshape_recurrent(module)
        return
    shape = _weight_shape(module)
    if isinstance(module, NORMS):
        for buffer in ("running_mean", "running_var"):
            if getattr(module, buffer) is not None:
                setattr(module, buffer, torch.empty(shape))
    if module.weight is not None:
        module.weight = nn.Parameter(torch.empty(shape))
    if isinstance(module, nn.PReLU | nn.Embedding | nn.RMSNorm):
        return
    if bias if bias is not None else module.bias is not None:
        module.bias = nn.Parameter(torch.empty(module.out_channels if isinstance(module, TRANSPOSED) else shape[:1]))
    else:
        module.bias = None


def _weight_shape(module: Any) -> tuple[int, ...]:
    """Return the shape of the weight of a layer of ATTRIBUTES, as its settings say."""
    if isinstance(module, TRANSPOSED):
        return (module.in_channels, module.out_channels // module.groups, *module.kernel_size)
    if isinstance(module, CONVOLUTIONS):
        return (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return tuple(module.normalized_shape)
    kind = next(kind for kind in ATTRIBUTES if isinstance(module, kind))
    sizes = ATTRIBUTES[kind][:1] if kind is nn.GroupNorm else ATTRIBUTES[kind]
    shape = tuple(getattr(module, name) for name in sizes)
    return shape[::-1] if kind is nn.Linear else shape


def _reshape_recurrent(module: Any) -> None:
    """Give the tensors of a recurrent layer the shapes that its ``input_size`` and ``hidden_size`` say."""
    like = type(module)(
        module.input_size,
        module.hidden_size,
        bias=module.bias,
        device=torch.device("meta"),
        **(
            {"num_layers": module.num_layers, "bidirectional": module.bidirectional}
            if isinstance(module, nn.RNNBase)
            else {}
        ),
    )
    for key, parameter in like._parameters.items():
        module._parameters[key] = nn.Parameter(torch.empty(parameter.shape))
    relink(module)


def relink(module: nn.Module) -> None:
    """Let a recurrent layer compute with the parameters that it holds: it keeps a list of them."""
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


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
