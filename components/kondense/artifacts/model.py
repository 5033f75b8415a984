"""The Model artifact: a network with changed architecture and weights, as data.

Loading builds the base network, applies the structural edits, loads the weights strictly and installs the activation
quantizers. Nothing in the directory is ever executed.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors.torch import save
from torch import Tensor, nn

from kondense.artifacts.attention import CrossAttention
from kondense.artifacts.equivalence import probes
from kondense.artifacts.gates import SigmoidProduct
from kondense.artifacts.identity import (
    GATES_FORMAT,
    HEADS_FORMAT,
    MODEL_FORMAT,
    OUTPUTS_FORMAT,
    OWN_FILES,
    PLAIN_FORMAT,
    SEPARATED_FORMAT,
    TIED_FORMAT,
    WIDTHS_FORMAT,
    identity,
)
from kondense.artifacts.images import Images, ImagesDescription
from kondense.artifacts.quantized import (
    OUTPUT,
    CodebookTensor,
    InputQuantizer,
    QuantizedTensor,
    describe_quantizer,
    install_quantizers,
    read_quantizer,
    remove_quantizers,
)
from kondense.artifacts.reparametrized import bake, baked_copy, reparametrized
from kondense.artifacts.report import LineageRecord
from kondense.artifacts.schema import check_fields
from kondense.artifacts.structure import HEADS, SEPARATED, WIDTH_EDITS, Edits, apply_edits, find_edits
from kondense.artifacts.tensors import read_tensors, write_tensors
from kondense.artifacts.ties import check_ties, tie, tied_names, untie
from kondense.errors import InputError
from kondense.files import ArtifactError, json_bytes, new_directory, read_json, sha256, verify_files
from kondense.networks.allowed import check_allowed, is_imported
from kondense.networks.build import NetworkSpec, build
from kondense.networks.held import is_held
from kondense.networks.names import output_of
from kondense.networks.outputs import copied_with_logits
from kondense.networks.skeleton import check_arguments, check_shapes, check_size, is_whole, materialised, skeleton
from kondense.networks.state import load_state

SCALE = "::scale"  # suffix of the scale of a quantized weight in weights.safetensors
CODEBOOK = "::codebook"  # suffix of its codebook
WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
LONGEST_REASON = 500  # characters of the reason why a description is refused


class Network(TypedDict):
    """Factory and arguments of the base network."""

    name: str
    arguments: dict[str, Any]


class Quantization(TypedDict):
    """The quantization by tensor and by module."""

    weights: dict[str, dict[str, Any]]
    activations: dict[str, dict[str, Any]]


class Description(TypedDict):
    """The content of model.json without its format version."""

    network: Network
    edits: dict[str, dict[str, Any]]
    quantization: Quantization
    masked: list[str]
    tied: NotRequired[dict[str, str]]
    images: NotRequired[ImagesDescription]
    lineage: list[LineageRecord]
    files: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Model:
    """A network in memory with everything that its artifact needs.

    ``Model(net)`` takes any image classifier. To save it as an artifact, the code that builds it must be importable: a
    class without arguments, and networks of torchvision and timm, are recognised; else name what builds the network,
    ``Model(net, "package.module:factory", arguments={"width": 32})``, here or when you save it.

    Attributes:
        module: the network. Its parameters are float; where ``quantized`` names one, its value is the
            dequantized one. Where ``activations`` names a place, the quantizer is hooked in.
        network: how to build the base network: a NetworkSpec, or, when the model is made, a name or a factory.
        quantized: integer form of weights, by state-dict name.
        activations: quantizers of inputs by module name, of outputs by the name and ``:output``.
        masked: state-dict names of the weights whose zeros are pruned and must stay zero.
        lineage: one record per stage that made this model, oldest first (see ``stage_record``).
        images: the images and labels that it was made for; None if no stage has recorded them.
        arguments: when the model is made, the factory's keyword arguments, JSON values.

    Raises:
        InputError: the module is no ``nn.Module``, what is named does not build its architecture, or different
            parameters share memory.

    Example:
        >>> kd.Model(model.module, "lenet300", arguments={"classes": 10, "channels": 1, "image_size": 8}).network.name
        'lenet300'
    """

    module: nn.Module
    network: NetworkSpec = None  # type: ignore[assignment]  # __post_init__ finds it
    quantized: Mapping[str, QuantizedTensor | CodebookTensor] = dataclasses.field(default_factory=dict)
    activations: Mapping[str, InputQuantizer] = dataclasses.field(default_factory=dict)
    masked: tuple[str, ...] = ()
    lineage: tuple[Mapping[str, Any], ...] = ()
    images: Images | None = None
    arguments: dataclasses.InitVar[Mapping[str, Any] | None] = None

    def __post_init__(self, arguments: Mapping[str, Any] | None) -> None:
        if not isinstance(self.module, nn.Module):
            given = self.module
            kind = f"the class {given.__name__}: call it" if isinstance(given, type) else type(given).__name__
            raise InputError(f"a model must be made of an nn.Module, but got {kind}.")
        if any(map(nn.parameter.is_lazy, (*self.module.parameters(), *self.module.buffers()))):
            raise InputError(
                "a model must be made of layers with shapes, but some are lazy: call the network on images once first."
            )
        check_ties(self.module)
        if not isinstance(self.network, NetworkSpec):
            from kondense.networks.memory import network_spec_of  # only models made by users need it

            object.__setattr__(self, "network", network_spec_of(self.module, self.network or "", arguments))
            if is_imported(self.network.name):  # one of the user's, which may return more than logits
                object.__setattr__(self, "module", copied_with_logits(self.module, output_of(self.network.name)))

    def masks(self) -> dict[str, Tensor]:
        """Return the boolean masks of the pruned weights by name: True where a weight is kept."""
        state = self.module.state_dict()
        return {name: state[name] != 0 for name in self.masked}


def save_model(directory: Path, model: Model, files: Mapping[str, bytes] | None = None) -> None:
    """Write ``model`` to ``directory``, completely or not at all.

    Args:
        directory: the directory; replaced if it exists.
        model: the model.
        files: further files by name, such as ``model.onnx``; their digests are recorded too.

    Raises:
        InputError: the module differs from its base in a way that edits cannot express, no code is named that builds
            the base, a parameter is not finite, or a quantized weight differs from its integers.
        OSError: the disk is full or not writable.
    """
    for name in files or {}:
        if name in ("", "..", WEIGHTS, DESCRIPTION) or name != Path(name).name:
            raise InputError(f"a further file must have a plain, unused name, but got {name!r}.")
    if is_held(model.network.name):
        raise InputError(
            f"a saved network must be built by code that can be imported, but {model.network.name} was given in memory:"
            " put that code into a module and name it, as in kd.save(model, directory,"
            " network='package.module:factory', arguments={...})."
        )
    model = baked(model)
    edits = structure(model)
    tensors = encode_state(model)
    with new_directory(directory) as scratch:
        write_tensors(scratch / WEIGHTS, tensors)
        for name, content in (files or {}).items():
            (scratch / name).write_bytes(content)
        description = describe(model, edits)
        description["files"] = {path.name: sha256(path) for path in sorted(scratch.iterdir())}
        (scratch / DESCRIPTION).write_bytes(json_bytes(description))


def load_model(directory: Path) -> Model:
    """Read and verify the model in ``directory``; it is in evaluation mode and on the CPU.

    Raises:
        ArtifactError: a missing or damaged file, an unknown format version, or weights that do not fit.
    """
    description = read_description(directory)
    verify_files(directory, description["files"], required=[WEIGHTS], own=OWN_FILES)
    tensors = read_tensors(directory / WEIGHTS)
    try:
        return decode(description, tensors)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(f"{directory} does not describe a model: {in_short(error)}") from error


def in_short(error: Exception) -> str:
    """Return the error of a network that is no model's in one line of readable length; torch's have several."""
    return " ".join(str(error).split())[:LONGEST_REASON]


def read_description(directory: Path) -> dict[str, Any]:
    """Return the checked content of model.json of the model in ``directory``.

    Raises:
        ArtifactError: the file is missing or damaged, or has another format version.
    """
    description = read_json(directory / DESCRIPTION, format_version=MODEL_FORMAT)
    check_fields(str(directory / DESCRIPTION), description, Description)
    return description


def model_digest(directory: Path) -> str:
    """Return the digest that identifies this model: that of model.json, which contains all others."""
    return sha256(directory / DESCRIPTION)


def model_identity(model: Model) -> str:
    """Return the identity of ``model``, equal to that of its artifact (``kondense.artifacts.identity``).

    Raises:
        InputError: as ``save_model``.
    """
    model = baked(model)
    content = json.loads(json_bytes(describe(model, structure(model))))
    return identity(content, hashlib.sha256(save(encode_state(model))).hexdigest())


def without_input_quantizers(model: Model) -> Model:
    """Return a copy of ``model`` without quantizers of activations; its weights remain quantized."""
    module = copy.deepcopy(model.module)
    remove_quantizers(module, model.activations)
    return dataclasses.replace(model, module=module, activations={})


def baked(model: Model) -> Model:
    """Return ``model`` with ordinary parameters in place of weights that are computed from others (see ``bake``)."""
    return dataclasses.replace(model, module=baked_copy(model.module)) if reparametrized(model.module) else model


def structure(model: Model) -> Edits:
    """Return the structural edits of a ``baked`` model.

    Raises:
        InputError: edits cannot express the difference from the base network, or memory is shared by parameters.
    """
    outline = None if is_imported(model.network.name) else skeleton(model.network)
    base = outline if outline is not None and is_whole(outline) else build(model.network)
    check_ties(base)
    return find_edits(bake(base), model.module)


def model_probes(model: Model) -> list[Tensor]:
    """Return random images on which transformations of ``model`` are checked; none if their shape is not known."""
    if model.images:
        return probes(model.images.shape)
    arguments = model.network.arguments
    channels, size = arguments.get("channels"), arguments.get("image_size")
    return probes((channels, size, size)) if isinstance(channels, int) and isinstance(size, int) else []


def describe(model: Model, edits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of model.json without the digests of the files."""
    tied = tied_names(model.module)
    separated = {name: edit["type"] for name, edit in edits.items() if edit.get("type") in SEPARATED}
    fewer_heads = any(HEADS in edit for edit in edits.values()) or any(f"{name}.in_proj" in edits for name in separated)
    crossed = CrossAttention.__name__ in separated.values()
    return {
        "format_version": max(
            PLAIN_FORMAT,
            TIED_FORMAT * bool(tied),
            SEPARATED_FORMAT * bool(separated),
            HEADS_FORMAT * fewer_heads,
            WIDTHS_FORMAT * (crossed or any(WIDTH_EDITS & edit.keys() for edit in edits.values())),
            GATES_FORMAT * (SigmoidProduct.__name__ in separated.values()),
            OUTPUTS_FORMAT * any(place.endswith(OUTPUT) for place in model.activations),
        ),
        "network": {"name": model.network.name, "arguments": dict(model.network.arguments)},
        "edits": edits,
        "quantization": {
            "weights": {name: tensor.describe() for name, tensor in model.quantized.items()},
            "activations": {name: describe_quantizer(quantizer) for name, quantizer in model.activations.items()},
        },
        "masked": list(model.masked),
        **({"tied": tied} if tied else {}),
        **({"images": model.images.describe()} if model.images else {}),
        "lineage": [dict(record) for record in model.lineage],
    }


def encode_state(model: Model) -> dict[str, Tensor]:
    """Return the tensors of the artifact: integers with scales or codebooks for quantized weights, else the values.

    A tensor that stands under several names is stored under the first.
    """
    tensors = {}
    tied = tied_names(model.module)
    by_first = _quantized_by_first(model, tied)
    for name, value in model.module.state_dict().items():
        if name in tied:
            continue
        tensor = value.detach().cpu().contiguous()
        if not torch.isfinite(tensor).all():
            raise InputError(f"every weight must be finite, but {name} holds NaN or infinity.")
        quantized = by_first.get(name)
        if quantized is None:
            tensors[name] = tensor.clone()
            continue
        if not torch.equal(quantized.dequantize(), tensor):
            raise InputError(f"weight {name} was changed after it was quantized; quantize it again.")
        tensors[name] = quantized.integers.contiguous()
        if isinstance(quantized, CodebookTensor):
            tensors[name + CODEBOOK] = quantized.codebook.contiguous()
        else:
            tensors[name + SCALE] = quantized.scale.contiguous()
    return tensors


def _quantized_by_first(model: Model, tied: Mapping[str, str]) -> dict[str, QuantizedTensor | CodebookTensor]:
    """Return the quantized weights by the first name of their tensor; those of tied weights must be equal."""
    by_first: dict[str, QuantizedTensor | CodebookTensor] = {}
    for name, tensor in model.quantized.items():
        first = tied.get(name, name)
        other = by_first.setdefault(first, tensor)
        if other is not tensor and not torch.equal(other.dequantize(), tensor.dequantize()):
            raise InputError(f"tied weights must be quantized alike, but {name} and {first} are not.")
    return by_first


def decode(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Model:
    """Rebuild a model from the content of model.json and the stored tensors (the inverse of ``encode_state``)."""
    network = NetworkSpec(**description["network"])
    check_allowed(network.name)
    tied = description.get("tied", {})
    stored = {name: tensor for name, tensor in tensors.items() if not name.endswith((SCALE, CODEBOOK))}
    module, old = _base(network, description["edits"], tied, stored)
    weights = description["quantization"]["weights"]
    quantized = {name: _decode_tensor(tied.get(name, name), spec, tensors) for name, spec in weights.items()}
    state = dict(stored)
    state.update({tied.get(name, name): tensor.dequantize() for name, tensor in quantized.items()})
    state |= {name: state[first] for name, first in tied.items()}
    further = tied_names(module)
    untie(module, [name for name in further.keys() - tied.keys() if not torch.equal(state[name], state[further[name]])])
    load_state(module, state)
    if old:
        bake(module)
    activations = {name: read_quantizer(spec) for name, spec in description["quantization"]["activations"].items()}
    install_quantizers(module, activations)
    for name in description["masked"]:
        if name not in state:
            raise InputError(f"masked must name tensors of the network, but got {name!r}.")
    return Model(
        module=module.eval(),
        network=network,
        quantized=quantized,
        activations=activations,
        masked=tuple(description["masked"]),
        lineage=tuple(description["lineage"]),
        images=Images.read(description["images"]) if description.get("images") else None,
    )


def _base(
    network: NetworkSpec, edits: Edits, tied: Mapping[str, str], stored: Mapping[str, Tensor]
) -> tuple[nn.Module, bool]:
    """Return the edited network for the weights ``stored``, and whether they are from before they were baked.

    Its shapes are compared with the weights before it takes memory, and it takes none for the base network where that
    is possible.
    """
    check_arguments(network)
    outline = skeleton(network)
    completes = outline is not None and is_whole(outline) and not is_imported(network.name)
    if outline is not None and not completes:
        check_size(outline, sum(tensor.numel() for tensor in stored.values()))
    if outline is not None and not reparametrized(outline):
        with torch.device("meta"):
            apply_edits(outline, edits)
        tie(outline, tied)
        check_shapes(outline, {name: tensor.shape for name, tensor in stored.items()}, tied)
        if completes:
            return materialised(outline), False
    module = build(network)
    old = bool(reparametrized(module)) and set(module.state_dict()) <= stored.keys()  # stored before it was baked
    if not old:
        bake(module)
    apply_edits(module, edits)
    tie(module, tied)
    return module, old


def _decode_tensor(
    name: str, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> QuantizedTensor | CodebookTensor:
    integers, bits = tensors[name], int(spec["bits"])
    if spec["scheme"] == "codebook":
        return CodebookTensor(integers, tensors[name + CODEBOOK], bits)
    if spec["scheme"] != "uniform":
        raise InputError(f"the scheme of {name} must be codebook or uniform, but got {spec['scheme']!r}.")
    return QuantizedTensor(integers, tensors[name + SCALE], bits)
