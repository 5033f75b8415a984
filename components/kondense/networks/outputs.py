"""The logits among what a network returns: a tensor, or a tuple, dictionary or dataclass that holds more.

``build`` returns networks that give their logits alone in evaluation mode, so that whatever measures, changes or
exports a network need not know. In training mode they return all, for the losses of auxiliary heads. Their ``train``
and ``eval`` return the network, as torch's do, where those of its class return nothing. The module stays
as it is, names of weights included: only its class is replaced, by a subclass of the same name.

Shapes: N images, K classes.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kondense.errors import InputError

NAMES = ("logits", "out", "output", "pred", "preds", "prediction", "predictions", "scores")  # as people call them
MATRIX = 2  # dimensions of logits
SOFTMAX = "it returns probabilities, not logits: training and distillation take a softmax once more; leave its own out"
SIGMOID = "its last operation is a sigmoid: training and distillation take a softmax of it; return what comes before"
CHANGING = (
    "its logits change from call to call in evaluation mode: F.dropout needs training=self.training, or use nn.Dropout"
)
MIXING = "an image's logits depend on the other images of its batch, and so do accuracies and what is served"
SHOWN = 3  # names of parameters
CLOSE = 1e-3  # of the largest logit; rounding differs by less with the size of a batch


OWN_FORWARD = "_own_forward"  # attribute of a module whose forward is another than that of its class


def with_logits(module: nn.Module, key: str = "", classes: int = 0) -> nn.Module:
    """Let ``module`` return its logits alone in evaluation mode, in place, and return it.

    Args:
        module: the network.
        key: name or index of the logits in its output, with dots within nested ones; empty: they are found.
        classes: number of classes; 0: unknown.
    """
    kind = type(module)
    plain = kind.__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential)
    if plain or isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule) or hasattr(kind, "_returns_logits"):
        return module
    module._output_key, module._output_classes = key, classes  # type: ignore[assignment]
    module.__class__ = _returning_logits(kind)  # type: ignore[arg-type]
    return module


def copied_with_logits(module: nn.Module, key: str = "") -> nn.Module:
    """Return a module with the weights of ``module``, which stays as it is, that returns its logits alone."""
    return with_logits(copy.copy(module), key)


def output_key(module: nn.Module) -> str:
    """Return the name or index of the logits that the user gave, or an empty string."""
    return str(getattr(module, "_output_key", ""))


def are_probabilities(output_NK: Tensor) -> bool:
    """Return whether outputs are those of a softmax: no image's is negative, and each sums to 1."""
    sums_N = output_NK.float().sum(1)
    return len(sums_N) > 1 and bool((output_NK >= 0).all() and torch.allclose(sums_N, torch.ones_like(sums_N)))


def doubts(module: nn.Module, images_NCHW: Tensor) -> list[str]:
    """Return what is wrong with a network's logits though it can be trained; the network is in evaluation mode."""
    with torch.inference_mode():
        logits_NK, again_NK, alone_NK = module(images_NCHW), module(images_NCHW), module(images_NCHW[:1])
    found = [SOFTMAX] if are_probabilities(logits_NK) else [SIGMOID] if _ends_in_sigmoid(module, images_NCHW) else []
    if not _close(logits_NK, again_NK):
        return [*found, CHANGING]
    return found if _close(logits_NK[:1], alone_NK) else [*found, MIXING]


def untrained(module: nn.Module, images_NCHW: Tensor) -> str:
    """Return that parameters get no gradient, neither in training nor in evaluation mode, and which; "" if all do.

    Args:
        module: the network; it stays as it is.
        images_NCHW: a few images.
    """
    parameters = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    left, was_training = dict(parameters), module.training
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        for training in (False, True):  # layers may be left out at random in the one, auxiliary heads in the other
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                arguments = (module.train(training), buffers, (images_NCHW.clone(),))
                outputs = [output for _, output in leaves(torch.func.functional_call(*arguments, tie_weights=False))]
                losses = [output.square().sum() for output in outputs if output.requires_grad]
            if left and losses:
                found = torch.autograd.grad(sum(losses, torch.zeros(())), list(left.values()), allow_unused=True)
                left = {name: left[name] for name, grad in zip(left, found, strict=True) if grad is None}
    except Exception:  # from the network's own code, whose form in evaluation mode need not have gradients
        return ""
    finally:
        module.train(was_training)
    if not left:
        return ""
    named = ", ".join(list(left)[:SHOWN]) + (f" and {len(left) - SHOWN} others" if len(left) > SHOWN else "")
    return (
        f"{len(left)} of {len(parameters)} parameters get no gradient and stay as they are: {named}"
        " (is a part of forward under no_grad, detached, or not called?)"
    )


def _ends_in_sigmoid(module: nn.Module, images_NCHW: Tensor) -> bool:
    with torch.enable_grad():
        made = module(images_NCHW[:2]).grad_fn
    return made is not None and made.name().lower().removeprefix("hard").startswith("sigmoid")


def _close(first_NK: Tensor, second_NK: Tensor) -> bool:
    scale = float(first_NK.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return bool(torch.allclose(first_NK, second_NK, rtol=0.0, atol=CLOSE * scale, equal_nan=True))


def logits_of(output: Any, *, key: str = "", classes: int = 0) -> Tensor:
    """Return the logits, [N, K], in a network's output; see ``logits_path``."""
    if isinstance(output, Tensor | torch.fx.Proxy) and not key:
        return output  # type: ignore[return-value]
    return dict(leaves(output))[logits_path(output, key=key, classes=classes)]


def logits_path(output: Any, *, key: str = "", classes: int = 0) -> str:
    """Return where the logits are in a network's output: keys, names and indices joined by dots.

    Raises:
        InputError: there are none, or several tensors may be the logits and ``key`` names none of them.
    """
    found = dict(leaves(output))
    if key:
        if key not in found:
            raise InputError(f"the network's output has no {key!r}; it has {_listed(found)}.")
        return key
    fitting = candidates(found, classes)
    if len({id(tensor) for tensor in fitting.values()}) == 1:
        return next(iter(fitting))
    for name in NAMES:
        named = [path for path in fitting if path.rpartition(".")[2] == name]
        if len(named) == 1:
            return named[0]
    rule = f"logits [N, {classes}]" if classes else "logits [N, classes]"
    if not fitting:
        raise InputError(f"the network must return {rule}, but returned {_listed(found) or type(output).__name__}.")
    raise InputError(
        f"the network must return {rule}, but returned {_listed(fitting)}; say which with its name or index, as in"
        f" package.module:factory#{next(iter(fitting))}."
    )


def auxiliary_of(output: Any, logits_NK: Tensor) -> list[Tensor]:
    """Return the logits of the auxiliary heads in an output: the other tensors of the same shape."""
    others = candidates(dict(leaves(output)), logits_NK.shape[1]).values()
    return [tensor for tensor in others if tensor is not logits_NK and tensor.requires_grad]


def candidates(found: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
    """Return those of the tensors of an output that may be logits."""
    return {
        path: tensor
        for path, tensor in found.items()
        if isinstance(tensor, torch.fx.Proxy)  # its shape is not known
        or tensor.ndim == MATRIX
        and tensor.is_floating_point()
        and classes in (0, tensor.shape[1])
    }


def leaves(output: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an output with their paths: keys, names and indices joined by dots."""
    if isinstance(output, Tensor | torch.fx.Proxy):
        yield path, output  # type: ignore[misc]
        return
    for name, part in _parts(output):
        yield from leaves(part, f"{path}.{name}" if path else name)


def _parts(output: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(output, Mapping):
        yield from ((str(name), part) for name, part in output.items())
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))  # of a named tuple
        yield from ((str(name), part) for name, part in zip(names, output, strict=True))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        yield from ((field.name, getattr(output, field.name)) for field in dataclasses.fields(output))


def _listed(found: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{path or 'a tensor'} {list(tensor.shape)}" for path, tensor in found.items())


@functools.cache
def _returning_logits(kind: type[nn.Module]) -> type[nn.Module]:
    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        own = vars(self).get(OWN_FORWARD)
        output = own(*arguments, **options) if own else kind.forward(self, *arguments, **options)
        if self.training or isinstance(output, Tensor | torch.fx.Proxy):
            return output
        # The place is kept for a symbolic trace, which knows no shapes.
        key = str(self._output_key or self.__dict__.get("_output_path", ""))
        self.__dict__["_output_path"] = key or logits_path(output, classes=int(self._output_classes))  # type: ignore[arg-type]
        return logits_of(output, key=str(self._output_path))

    def reduced(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        return _unfilled, (kind,), self.__getstate__()

    def itself(self: nn.Module, *mode: Any, method: Any) -> nn.Module:
        method(self, *mode)
        return self

    names = ("__module__", "__qualname__", "__doc__")
    attributes: dict[str, Any] = {name: getattr(kind, name) for name in names}
    # The defaults are for a network that its own code makes of its class, such as a copy.
    attributes |= {"forward": forward, "_returns_logits": True, "_output_key": "", "_output_classes": 0}
    for name in ("train", "eval"):  # people's own often return nothing
        if (method := getattr(kind, name)) is not getattr(nn.Module, name):
            attributes[name] = functools.partialmethod(itself, method=method)
    if kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__:
        attributes["__reduce_ex__"] = reduced  # pickle looks the class up by its name, where the user's own stands
    return type(kind.__name__, (kind,), attributes)


def _unfilled(kind: type[nn.Module]) -> nn.Module:
    """Return a network of an adapted class without attributes, which pickle and copy fill."""
    adapted = _returning_logits(kind)  # type: ignore[arg-type]
    return adapted.__new__(adapted)
