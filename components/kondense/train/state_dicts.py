"""Read weights that were saved elsewhere, and find those of a network among them.

Only tensors are read: torch's weights-only loader refuses whatever would run code.
"""

import argparse
import dataclasses
import difflib
import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.failure import one_line
from kondense.logging import LOG
from kondense.networks.state import load_state
from kondense.printable import printable

SAFETENSORS = ".safetensors"
SUFFIXES = (SAFETENSORS, ".pt", ".pth", ".ckpt", ".pth.tar", ".bin")
# What DataParallel, torch.compile, FSDP and the recomputation of activations put into names, anywhere.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module")
UNUSED = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")  # entries that change no output
DEPTH = 4  # of dictionaries within a checkpoint
PARTS = 16  # of a list or tuple in it that are looked at
SCALAR: Any = np.float64(0).__reduce__()[0]
# Beside tensors, what training scripts leave in checkpoints and what runs no code: arguments, and numbers of NumPy.
HARMLESS = (
    argparse.Namespace,
    SCALAR,
    (SCALAR, "numpy.core.multiarray.scalar"),  # as before NumPy 2
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.float16, np.float32, np.float64)),
)
TYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip
SHOWN = 3  # names in a message
GROWTH, FREE_BYTES = 2, 2**24
# What downloads leave instead of weights, by how it begins, in lower case.
TEXTS: Mapping[bytes, str] = {
    b"version https://git-lfs": "a pointer of Git LFS; git lfs pull fetches the weights",
    b"<!doctype": "a web page, such as that of an error",
    b"<html": "a web page, such as that of an error",
    b"<?xml": "an XML document, such as a store's error",
}

State = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a state dict fits a network, by names of tensors: ``unlike`` have other shapes in the two."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    unlike: tuple[str, ...]


def is_weights(name: str) -> bool:
    """Return whether a file's name is that of saved weights."""
    return name.lower().endswith(SUFFIXES)


def read_weights(place: str, content: bytes) -> Any:
    """Return the content of a file of weights: tensors in dictionaries and lists.

    Args:
        place: the file's name, for messages; its ending tells the format.
        content: of the file.

    Raises:
        InputError: the file is empty, damaged, or holds more than tensors.
    """
    if not content:
        raise InputError(f"{place} must hold the weights of a network, but is empty.")
    for beginning, kind in TEXTS.items():
        if content.lstrip()[: len(beginning)].lower() == beginning:
            raise InputError(f"{place} must hold the weights of a network, but is {kind}.")
    if place.lower().endswith(SAFETENSORS):
        try:
            return load(content)
        except SafetensorError as error:
            raise InputError(
                f"{place} must be a safetensors file, but is damaged or of another kind: {one_line(error)}"
            ) from None
    _check_size(place, content)
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the loader raises much, and with it its own advice, which is to trust the file
        reason = str(error)
        if "TorchScript" in reason:
            raise InputError(
                f"{place} must hold tensors, but is a TorchScript program; save its weights:"
                f" torch.save(torch.jit.load({place!r}).state_dict(), 'weights.pt')."
            ) from None
        if "weights_only" in reason or "Unsupported" in reason or "GLOBAL" in reason:
            raise InputError(
                f"{place} must hold tensors only, but holds pickled objects, whose loading would run code. If you trust"
                f" the file, convert it where it was made: checkpoint = torch.load({place!r}, weights_only=False);"
                " torch.save(checkpoint['state_dict'], 'weights.pt'), or the state_dict() of a whole module."
            ) from None
        raise InputError(f"{place} must be a file of torch.save, but is damaged or truncated.") from None


def _check_size(place: str, content: bytes) -> None:
    """Raise InputError if a ZIP archive grows: torch.save compresses nothing, but its loader would decompress."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # torch's older format, or one that it refuses
        return
    if size > GROWTH * len(content) + FREE_BYTES:
        raise InputError(f"{place} must not decompress to much more than itself, but grows to {size:,} bytes.")


def weights_for(place: str, content: Any, module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict within a checkpoint that fits a network best, with the names of the network.

    Dictionaries such as ``state_dict`` or ``params_ema`` and prefixes such as ``model.`` or ``module.`` are looked
    through. Averaged weights (ema) go before others that fit as well.

    Raises:
        InputError: there is none, or a tensor of it is not dense or has a type that no network has.
    """
    wanted = module.state_dict()
    found: list[tuple[int, bool, str, dict[str, Tensor]]] = []
    for path, state in _states(content, set()):
        plain = {_unwrapped(name, wanted): tensor for name, tensor in state.items()}
        for prefix in _prefixes(plain, wanted):
            chosen = {name[len(prefix) :]: tensor for name, tensor in plain.items() if name.startswith(prefix)}
            label = ".".join(filter(None, (path, prefix.rstrip("."))))
            found.append((len(chosen.keys() & wanted.keys()), "ema" in label.lower(), label, chosen))
    if not found:
        raise InputError(f"{place} must hold the weights of a network by name, but holds {_kind(content)}.")
    _, _, label, state = max(found, key=lambda one: one[:2])
    if label:
        LOG.info(f"the weights of {place} are those in {printable(label)}")
    for name in wanted.keys() & state.keys():
        _check_plain(place, name, state[name])
    return state


def _check_plain(place: str, name: str, tensor: Tensor) -> None:
    """Raise InputError unless a tensor has values of its own, as sparse and nested ones do not."""
    dense = tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_meta or tensor.is_quantized)
    if dense and tensor.dtype in TYPES:
        return
    kind: object = tensor.dtype
    if tensor.layout is not torch.strided:
        kind = tensor.layout
    elif tensor.is_nested or tensor.is_meta:
        kind = "nested" if tensor.is_nested else "meta"
    raise InputError(
        f"{place} must hold dense tensors of real numbers, but {name} is of {str(kind).removeprefix('torch.')}; convert"
        " it where it was made."
    )


def fit_of(state: State, module: nn.Module) -> Fit:
    """Return how a state dict fits a network."""
    wanted = module.state_dict()
    return Fit(
        tuple(name for name in wanted if name not in state and not name.endswith(UNUSED)),
        tuple(name for name in state if name not in wanted and not name.endswith(UNUSED)),
        tuple(name for name in wanted if name in state and wanted[name].shape != state[name].shape),
    )


def check_fit(place: str, network: str, state: State, module: nn.Module) -> None:
    """Raise InputError unless a state dict is the network's; names are counted, and the first ones compared."""
    fit, wanted = fit_of(state, module), module.state_dict()
    if fit.missing or fit.unexpected:
        pairs = []
        for name in fit.missing[:SHOWN]:
            near = difflib.get_close_matches(name, fit.unexpected or tuple(state), n=1, cutoff=0.3)
            pairs.append(f"{name} (nearest: {near[0]})" if near else name)
        missing = f"{len(fit.missing)} of {len(wanted)} tensors are missing" + _shown(pairs, len(fit.missing))
        extra = f"{len(fit.unexpected)} are unexpected" + _shown(list(fit.unexpected[:SHOWN]), len(fit.unexpected))
        raise InputError(f"{place} must hold the weights of {network}, but {missing}; {extra}.")
    if fit.unlike:
        shapes = [
            f"{name} {list(state[name].shape)} instead of {list(wanted[name].shape)}" for name in fit.unlike[:SHOWN]
        ]
        raise InputError(
            f"{place} must hold the weights of {network}, but {len(fit.unlike)} of {len(wanted)} tensors have other"
            f" shapes{_shown(shapes, len(fit.unlike))}."
        )
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{place} must hold finite weights, but {name} holds NaN or infinity.")


def fill(module: nn.Module, state: State) -> None:
    """Copy a state dict that fits into a network, in the network's types, and log what is converted."""
    own = module.state_dict()
    kinds = Counter(
        (str(state[name].dtype).removeprefix("torch."), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in own.items()
        if name in state and tensor.is_floating_point() and state[name].dtype != tensor.dtype
    )
    for (given, taken), count in sorted(kinds.items()):
        LOG.info(f"{count} of {len(own)} tensors are converted from {given} to {taken}")
    load_state(module, {name: state.get(name, tensor) for name, tensor in own.items()})


def _states(content: Any, seen: set[int], path: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Yield every dictionary of tensors in a checkpoint once, with its path; one may stand in many places."""
    if id(content) in seen or depth > DEPTH:
        return
    seen.add(id(content))
    if isinstance(content, list | tuple):  # (weights, epoch)
        content = dict(enumerate(content[:PARTS]))
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in content.items():
        if isinstance(value, Mapping | list | tuple):
            yield from _states(value, seen, f"{path}.{name}" if path else str(name), depth + 1)


def _unwrapped(name: str, wanted: State) -> str:
    if name in wanted:
        return name
    return ".".join(part for part in name.split(".") if part not in WRAPPERS or _uses(part, wanted))


def _uses(part: str, wanted: State) -> bool:
    return any(part in name.split(".") for name in wanted)


def _prefixes(state: State, wanted: State) -> list[str]:
    """Return the prefixes under which names of the network are found most often; none if nothing is found."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for index in range(len(parts)):
            if ".".join(parts[index:]) in wanted:
                counts[".".join(parts[:index]) + "." * bool(index)] += 1
    most = max(counts.values(), default=0)
    return [prefix for prefix, count in counts.items() if count == most] or [""]


def _kind(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary without tensors ({', '.join(map(str, list(content)[:SHOWN]))})"
    return f"a {type(content).__name__}"


def _shown(texts: list[str], count: int) -> str:
    more = f" and {count - len(texts)} more" if count > len(texts) else ""
    return printable(f" ({', '.join(texts)}{more})") if texts else ""
