"""One pass of a network under labels (see ``labels``)."""

import contextlib
import dataclasses
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kondense.artifacts.structure import RECURRENT
from kondense.channels import recurrent, statistics
from kondense.channels.computing import computing_layers, followed
from kondense.channels.groups import WEIGHTED
from kondense.channels.labels import OVER_CHANNELS, Labelled, Trace, tensors_of, unwrapped
from kondense.channels.layer_rules import LAYERS
from kondense.channels.own import watched
from kondense.channels.rules import follow, follow_own, seen_by
from kondense.channels.surgery import forget, restored
from kondense.errors import InputError
from kondense.export.trace import layer_by_layer

PRODUCERS = (*WEIGHTED, *RECURRENT)
RULES = LAYERS | statistics.STATISTICS | recurrent.RULES
IMAGES = 2  # networks may squeeze a batch of one


class Traced(Labelled):
    """A labelled tensor whose operations are followed."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run layers by their rules, everything else operation by operation."""
        with torch._C.DisableTorchFunctionSubclass():
            given = dict(kwargs or {})
            rule = RULES.get(function)
            if rule and "input" in given:  # by name, as some write
                args = (given.pop("input"), *args)
            result = rule(*args, **given) if rule else NotImplemented
            return function(*args, **given) if result is NotImplemented else result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it as an instance's method
        cls, function: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation on the values and its rule on the labels."""
        kwargs = kwargs or {}
        tensors = tensors_of((args, kwargs))
        known = {id(leaf.value): leaf for leaf in tensors if isinstance(leaf, Labelled)}
        trace = next(iter(known.values())).record
        _note_weights(trace, tensors)
        seen = seen_by(trace, function, args, kwargs) if trace.gone else args
        result = function(*unwrapped(seen), **unwrapped(kwargs))
        values, structure = ([result], None) if isinstance(result, Tensor) else pytree.tree_flatten(result)
        wrapped: list[Any] = []
        followed = follow(trace, function, args, kwargs, values, tensors=tensors)
        carried: list[dict[str, Tensor]] = [{}] * len(values)
        if not any(leaf.labels is not None for leaf in known.values()) and any(leaf.own for leaf in known.values()):
            carried = follow_own(trace, function, args, kwargs, values, tensors=tensors)
        for value, labels, own in zip(values, followed, carried, strict=True):
            if not isinstance(value, Tensor):
                wrapped.append(value)
            elif id(value) in known:  # an operation in place
                known[id(value)].labels = labels
                wrapped.append(known[id(value)])
            else:
                wrapped.append(cls(value, labels, trace))
                wrapped[-1].own = own
        return wrapped[0] if structure is None else pytree.tree_unflatten(wrapped, structure)


def trace_channels(module: nn.Module, image_shape: tuple[int, int, int]) -> Trace:
    """Return what a pass of random images shows of the channels; the network ends in evaluation mode.

    Layers that evaluation does not reach, such as auxiliary heads, are followed by a second pass in training mode.

    Raises:
        InputError: the network does not run on such images.
    """
    trace = Trace.of(module.eval())
    _run(trace, module, image_shape)
    if computing := computing_layers(trace):
        trace = dataclasses.replace(Trace.of(module), computing=computing)
        _run(trace, module, image_shape)
    if set(trace.layers) - trace.ran:
        with own_training(module), contextlib.suppress(InputError):  # what trains in another way is not needed here
            _run(trace, module, image_shape)
    return trace


def _run(trace: Trace, module: nn.Module, image_shape: tuple[int, int, int]) -> None:
    images_NCHW = torch.randn(IMAGES, *image_shape, generator=torch.Generator().manual_seed(0))
    ran: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, layer in trace.layers.items()
    ]
    random = torch.get_rng_state()
    try:
        with torch.no_grad(), layer_by_layer(), restored(module), labelled(module, trace):
            forget(module)
            outputs = module(Traced(images_NCHW, None, trace))
    except Exception as error:  # a network's own code may raise anything
        last = f"the last layer that ran was {ran[-1]!r}" if ran else "no layer ran"
        raise InputError(
            f"the network must run on images {'x'.join(map(str, image_shape))} to be traced, but {last}:"
            f" {type(error).__name__}: {error}"
        ) from error
    finally:
        torch.set_rng_state(random)
        for hook in hooks:
            hook.remove()
    trace.ran.update(ran)
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, Labelled):
            trace.pin(leaf.labels, "its outputs are the network's")


@contextlib.contextmanager
def labelled(module: nn.Module, trace: Trace) -> Iterator[None]:
    """Let a pass of labelled images know the tensors that the network holds itself, and which norm runs.

    Layers are followed on tensors that do not come from the images, too, such as a state of zeros.
    """
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs: tuple(
                Traced(each, None, trace) if isinstance(each, Tensor) and not isinstance(each, Labelled) else each
                for each in inputs
            )
        )
        for layer in trace.layers.values()
        if isinstance(layer, PRODUCERS)
    ]
    hooks += [
        layer.register_forward_pre_hook(lambda *_, name=name: setattr(trace, "running", name))
        for name, layer in trace.layers.items()
        if isinstance(layer, OVER_CHANNELS)
    ]
    try:
        with (
            watched(module, trace, lambda value: Traced(value, None, trace)),
            followed(trace, lambda value, labels: Traced(value, labels, trace)),
        ):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def trains_otherwise(module: nn.Module) -> bool:
    """Return whether code of a network's own asks whether it trains."""
    kinds = {kind for part in module.modules() for kind in type(part).__mro__ if not _is_torchs(kind)}
    functions = [value for kind in kinds for value in vars(kind).values() if isinstance(value, types.FunctionType)]
    return any("training" in function.__code__.co_names for function in functions)


def _is_torchs(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch"


@contextlib.contextmanager
def own_training(module: nn.Module) -> Iterator[None]:
    """Set training mode for what is not a layer of torch: no dropout, no new statistics of norms."""
    own = [part for part in module.modules() if not type(part).__module__.startswith("torch.nn.modules.")]
    for part in own:
        part.training = True
    try:
        yield
    finally:
        for part in own:
            part.training = False


def _note_weights(trace: Trace, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        if not isinstance(tensor, Labelled):
            base = tensor._base if tensor._base is not None else tensor
            for name in trace.owners.get(id(base), ()):
                trace.misused.setdefault(name, "its weights are used outside of the layer")
