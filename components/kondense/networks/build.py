"""Build any network from its name (see ``names``).

A factory is a class of torch modules, a function annotated to return one, a function with a parameter for the classes
(see ``arguments``) that is not annotated to return something else, or any function that the user names as the network.
A name that only an artifact gives is not imported unless the user allows it (see ``allowed``).
"""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.networks.allowed import allowed_names, is_imported
from kondense.networks.arguments import PARAMETERS, arguments_for, takes_anything, takes_classes
from kondense.networks.held import held_factory, is_held, template
from kondense.networks.libraries import timm_factory, torchvision_factory
from kondense.networks.names import BUILT_IN, LIBRARIES, REGISTERED, check_form, network_of, output_of
from kondense.networks.outputs import leaves, with_logits

SIZES = (8, 16, 24, 28, 32, 48, 64, 96, 128, 160, 192, 224, 256, 299)  # pixels, that are tried to name those that fit

OURS = str(Path(__file__).parent)  # whose frames are left out where an error arose
TORCHS_OWN = frozenset(vars(nn.Module()))  # attributes of every module
REBUILT = 20_000_000  # parameters of networks up to which they are built again for other sizes


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """How to build a network: a name and JSON arguments (``classes``, ``channels``, ``image_size``, ``width``)."""

    name: str
    arguments: Mapping[str, Any]
    held: nn.Module | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if is_held(self.name):  # what it is built from lives as long as this
            object.__setattr__(self, "held", template(network_of(self.name)))


def check_network(name: str) -> None:
    """Raise InputError unless ``name`` names a network; builds nothing."""
    factory(name)


def build(spec: NetworkSpec, *, seed: int = 0) -> nn.Module:
    """Build a network with weights drawn from ``seed``; the global generator keeps its state.

    Raises:
        InputError: an unknown name, wrong arguments, or images that the network cannot take.
    """
    make = factory(spec.name)
    known = network_of(spec.name) in BUILT_IN or spec.name.partition(":")[0] in LIBRARIES
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = make(**spec.arguments) if known else _plain(make(**arguments_for(make, spec.arguments)))
            _initialise_lazy_layers(module, spec.arguments)
        except InputError as error:
            raise InputError(f"network {spec.name!r}: {error}") from error
        except (TypeError, AssertionError) as error:  # torchvision asserts its arguments
            way = "" if known else "; name a function of classes, channels and image_size that returns the network"
            raise InputError(f"network {spec.name!r} must take {dict(spec.arguments)}, but: {error}{way}.") from error
        except (Exception, SystemExit) as error:  # a factory may raise anything, such as for a layer of no size
            raise InputError(
                f"network {spec.name!r} cannot be built with {dict(spec.arguments)}: {_said(error)}."
            ) from error
    if not isinstance(module, nn.Module):
        gave = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise InputError(f"network {spec.name!r} must be a factory of torch modules, but gave {gave}.")
    _check_python(spec.name, module)
    if not known:
        check_registered(spec.name, module)
    if known and not output_of(spec.name):
        return module  # these return nothing else in evaluation mode
    return with_logits(module, output_of(spec.name), int(spec.arguments.get("classes", 0)))


def _check_python(name: str, module: nn.Module) -> None:
    """Raise InputError where a part is TorchScript, which torch can neither hook nor copy as a leaf of a graph."""
    part = next((name for name, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)), None)
    if part is not None:
        raise InputError(
            f"network {name!r} must be made of Python modules, but {part or 'all of it'} is TorchScript: leave"
            " torch.jit.script, trace or load out of the factory."
        )


def check_registered(name: str, module: nn.Module) -> None:
    """Raise InputError where a part holds weights in a plain list, tuple or dictionary, which torch does not know of.

    They would be neither trained nor saved.
    """
    known = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    for place, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute in TORCHS_OWN:
                continue
            found = [tensor for tensor in _weights(value) if tensor.requires_grad and id(tensor) not in known]
            if found:
                lists = "an nn.ModuleDict" if isinstance(value, dict) else "an nn.ModuleList"
                kind = "an nn.Parameter" if isinstance(value, Tensor) else lists
                raise InputError(
                    f"network {name!r} must hold its weights where torch finds them, but the {len(found)} tensors in"
                    f" {'.'.join(filter(None, (place, attribute)))!r}, a {type(value).__name__}, would be neither"
                    f" trained nor saved: make it {kind}, or give those that must stay as they are"
                    " requires_grad=False."
                )


def _weights(value: Any, levels: int = 3) -> Iterator[Tensor]:
    """Yield the tensors that an attribute holds, alone or in modules, lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield from [value] if value.is_leaf else []
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif levels and isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _weights(each, levels - 1)


def _said(error: BaseException) -> str:
    """Return an error of the user's code in one line, with the place in their file where it arose."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(".").removesuffix(": ")
    own = [each for each in traceback.extract_tb(error.__traceback__) if not _is_library(each.filename)]
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else text


def _is_library(file: str) -> bool:
    return file.startswith("<") or "site-packages" in file or file.startswith((OURS, sysconfig.get_path("stdlib")))


def _plain(module: Any) -> Any:
    """Return a network without what its author wrapped it in to run it, in float32 and on the processor.

    Raises:
        InputError: none of its weights can be trained.
    """
    module = _unwrapped(module)
    if not isinstance(module, nn.Module):
        return module
    for part in list(module.modules()):
        part._compiled_call_impl = None  # of Module.compile
        for name, child in part._modules.items():
            part._modules[name] = _unwrapped(child)
    weights = list(module.parameters())
    if weights and not any(weight.requires_grad for weight in weights):
        raise InputError(f"it must have a weight to train, but none of its {len(weights)} has requires_grad.")
    tensors = [*weights, *module.buffers()]
    if any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in tensors):
        module.float()
    return module.cpu() if any(tensor.is_cuda for tensor in tensors) else module


MAPS = 4  # axes of maps


def _unwrapped(module: Any) -> Any:
    """Return a module without DataParallel and torch.compile around it."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module


def check_images(
    role: str, module: nn.Module, shape: tuple[int, int, int], classes: int, spec: NetworkSpec | None = None
) -> None:
    """Raise InputError unless ``module`` takes images of ``shape`` (C, H, W) and returns one finite logit per class.

    The network keeps its mode.

    Args:
        role: names the network in the message.
        module: the network.
        shape: of one image.
        classes: their number.
        spec: builds it for images of other sizes, so that the message can say which ones it takes.
    """
    taken = "x".join(map(str, shape))
    try:
        output = _output(module, shape)
    except InputError as error:  # from ``with_logits``
        raise InputError(f"{role}: {error}") from error
    except Exception as error:  # a forward may raise anything on a wrong shape
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{role} must take images of {taken}, but: {first}{_sizes_taken(module, spec, shape)}"
        ) from error
    actual = list(output.shape) if isinstance(output, Tensor) else {name: list(x.shape) for name, x in leaves(output)}
    if not isinstance(output, Tensor) or actual != [2, classes]:
        why = _why_not_logits(actual, classes, spec)
        raise InputError(
            f"{role} must return logits [N, {classes}], one per class, but returned {actual} for N = 2{why}."
        )
    single = _output(module, shape, images=1)
    if list(single.shape) != [1, classes]:
        raise InputError(
            f"{role} must return logits [1, {classes}] for one image, but returned {list(single.shape)}: squeeze()"
            " removes the batch, too; name the axes instead."
        )
    if not torch.isfinite(output).all() and not torch.isfinite(_output(module, shape, noise=True)).all():
        raise InputError(f"{role} must return finite logits, but returned {_not_finite(module)}.")


def _why_not_logits(actual: object, classes: int, spec: NetworkSpec | None) -> str:
    """Return a known reason for outputs of another shape, and the way out; empty if there is none."""
    if classes == 2 and actual in ([2, 1], [2]):
        return ": two classes need two outputs, without a sigmoid"
    if isinstance(actual, list) and actual[:2] == [2, classes] and len(actual) == MAPS:
        alone = actual[2:] == [1, 1]
        return f": {'flatten(1)' if alone else 'mean((2, 3))'} makes one of the logits of all places"
    if spec is None or is_held(spec.name):
        return ""
    if is_imported(spec.name) and not takes_classes(factory(spec.name)):
        return ": its factory takes no number of classes (a parameter classes or num_classes)"
    if is_imported(spec.name) and takes_anything(factory(spec.name)):
        return ": its **kwargs got classes, channels and image_size; name one of its parameters num_classes"
    return ""


def _initialise_lazy_layers(module: Any, arguments: Mapping[str, Any]) -> None:
    """Give ``LazyConv2d`` and the like their shapes, by images of the size that the network is built for."""
    if not isinstance(module, nn.Module) or not any(map(torch.nn.parameter.is_lazy, module.parameters())):
        return
    size = arguments["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    _output(module, (arguments["channels"], height, width))


def _output(module: nn.Module, shape: tuple[int, int, int], images: int = 2, *, noise: bool = False) -> Any:
    """Return what a network makes of grey images, or of noise, in evaluation mode.

    Noise tells of a network that divides by a length or a spread, which grey images do not have.
    """
    was_training, device = module.training, next((weight.device for weight in module.parameters()), "cpu")
    module.eval()
    try:
        with torch.no_grad():
            images_NCHW = torch.zeros(images, *shape)
            if noise:
                images_NCHW.normal_(generator=torch.Generator().manual_seed(0))
            return module(images_NCHW.to(device))
    finally:
        module.train(was_training)


def _not_finite(module: nn.Module) -> str:
    names = [name for name, tensor in module.state_dict().items() if not torch.isfinite(tensor).all()]
    if not names:
        return "NaN or infinity for grey images and for noise, although all weights are finite"
    return f"NaN or infinity: {len(names)} of its tensors hold such values, the first is {names[0]}"


def _sizes_taken(module: nn.Module, spec: NetworkSpec | None, shape: tuple[int, int, int]) -> str:
    """Return in words which square images a network takes; an empty string if none of ``SIZES``."""
    channels = shape[0]
    if spec is None or "image_size" not in spec.arguments:
        return ""
    small = sum(weight.numel() for weight in module.parameters()) <= REBUILT

    def takes(size: int) -> bool:
        try:
            _output(module, (channels, size, size))
        except Exception:  # whatever it raises, it does not take them
            return small and built_for(size)
        return True

    def built_for(size: int) -> bool:
        try:
            _output(build(NetworkSpec(spec.name, {**spec.arguments, "image_size": size})), (channels, size, size))
        except Exception:
            return False
        return True

    first = next((index for index, size in enumerate(SIZES) if takes(size)), len(SIZES))
    if first == len(SIZES):
        return ""
    size = SIZES[first]
    words = f"sizes from {size} on" if all(map(takes, SIZES[first + 1 : first + 3])) else f"images of {size}x{size}"
    return f"; it takes {words} (--set data_prep.image_size={size})"


def factory(name: str) -> Callable[..., nn.Module]:
    """Return the factory of the network ``name``, without its weights; it takes classes, channels, image_size and more.

    Raises:
        InputError: there is none; the text lists the names and the other forms.
    """
    check_form(name)
    name = network_of(name)
    if name in BUILT_IN:
        return _imported_factory(BUILT_IN[name])
    prefix, _, rest = name.partition(":")
    if prefix == "torchvision":
        return torchvision_factory(rest)
    if prefix == "timm":
        return timm_factory(rest)
    if is_held(name):
        return held_factory(name)
    return _imported_factory(name) if rest else REGISTERED[name].load()


def _imported_factory(name: str) -> Callable[..., nn.Module]:
    module, _, attribute = name.partition(":")
    try:
        _see_working_directory(module.partition(".")[0])
        made: Callable[..., nn.Module] = getattr(_imported(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"network {name!r} must name an importable module and a factory in it: {error}.") from None
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise InputError(
            f"network {name!r} must name an importable module, but its import ends with {_said(error)}."
        ) from error
    if not (_makes_modules(made) or (inspect.isfunction(made) and name in map(network_of, allowed_names()))):
        way = ", but is a network already: name a function that returns it" if isinstance(made, nn.Module) else ""
        raise InputError(
            f"network {name!r} must be a class of torch modules, or a function annotated to return one or with a"
            f" parameter `classes`{way}."
        )
    return made


def _see_working_directory(package: str) -> None:
    """Let the user's own package be imported from the working directory, if it is installed nowhere.

    Commands start without it (``python -P``), because artifacts may lie there; it comes last, so that nothing in it
    takes the place of an installed package.
    """
    place = os.getcwd()
    if package in sys.modules or place in sys.path or "" in sys.path or importlib.util.find_spec(package):
        return
    sys.path.append(place)


def _imported(module: str) -> types.ModuleType:
    """Import a module and leave no bytecode: Python would take it for that of an edit in the same second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        importlib.invalidate_caches()
        return importlib.import_module(module)
    finally:
        sys.dont_write_bytecode = before


def _makes_modules(candidate: object) -> bool:
    """Return whether calling ``candidate`` makes a network: what else a module holds is never called."""
    if isinstance(candidate, functools.partial):
        return _makes_modules(candidate.func)
    if not inspect.isfunction(candidate):
        return isinstance(candidate, type) and issubclass(candidate, nn.Module)
    annotation = inspect.get_annotations(candidate).get("return")
    if annotation is None:
        return not {*PARAMETERS["classes"]}.isdisjoint(inspect.signature(candidate).parameters)
    stub = types.SimpleNamespace(__annotations__={"return": annotation})  # the others may exist for type checkers only
    try:
        result = typing.get_type_hints(stub, candidate.__globals__).get("return")
    except (NameError, TypeError):
        return False
    return isinstance(result, type) and issubclass(result, nn.Module)
