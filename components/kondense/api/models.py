"""Load, save and export models."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from kondense.api.given import check_model
from kondense.artifacts.model import Model, load_model, save_model
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.export.onnx import export_onnx as onnx_bytes
from kondense.files import check_file, write_file
from kondense.networks.allowed import allowing
from kondense.networks.build import NetworkSpec, build
from kondense.networks.memory import network_spec_of
from kondense.networks.names import output_of
from kondense.scratch import scratch_directory
from kondense.store.open import open_store


def load(source: str | Path, *, allow_network: str = "") -> Model:
    """Read and verify a model artifact; it is in evaluation mode and on the CPU.

    Loading runs no code that only the artifact names: a network of your own is imported only if you allow its module.

    Args:
        source: a directory, such as ``runs/latest/chosen``, or ``minio://bucket/prefix`` or ``s3://bucket/prefix``.
        allow_network: module or package of a network of your own, such as ``package.module``.

    Raises:
        ArtifactError: a missing or damaged file, an unknown format version, or a network that is not allowed.

    Example:
        >>> kd.save(model, "saved")
        >>> kd.load("saved").network.name
        'lenet300'
    """
    with allowing(modules=[allow_network] if allow_network else []):
        if "://" not in str(source):
            return load_model(Path(source))
        with scratch_directory("load") as scratch:
            directory = scratch / "model"
            open_store(str(source)).download_artifact(directory)
            return load_model(directory)


def save(
    model: Model,
    directory: str | Path,
    *,
    network: str | Callable[..., nn.Module] = "",
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as an artifact: ``model.json``, ``weights.safetensors``; whole or not at all.

    Args:
        model: the model.
        directory: its place; replaced if it exists.
        network: the code that builds the network that the model was first made of, if it was given in memory: a name,
            such as ``package.module:factory``, or a factory (see ``kd.Model``).
        arguments: the factory's keyword arguments, JSON values.

    Raises:
        InputError: the network differs from the one that its name builds in a way that ``model.json`` cannot express,
            or nothing is named that builds it.
        OSError: the disk is full or not writable.

    Example:
        >>> kd.save(model, "saved")
    """
    check_model("model", model)
    save_model(Path(directory), named(model, network, arguments))


def named(
    model: Model, network: str | Callable[..., nn.Module] = "", arguments: Mapping[str, Any] | None = None
) -> Model:
    """Return ``model`` with another name of the code that builds its base network; the arguments are ``save``'s.

    Raises:
        InputError: that code builds another base.
    """
    if not network:
        return model
    output = output_of(model.network.name)
    spec = network_spec_of(build(model.network), network, arguments)
    if output and not output_of(spec.name):
        spec = NetworkSpec(f"{spec.name}#{output}", spec.arguments)
    return dataclasses.replace(model, network=spec)


def export_onnx(model: Model, path: str | Path, data: Dataset | None = None, *, uint8_input: bool = False) -> None:
    """Write a model as an ONNX file of opset 21, ready for ``kondense infer`` and onnxruntime.

    Args:
        model: any model.
        path: the file.
        data: gives the labels, the image shape and the normalisation; by default the data that the model was made with.
        uint8_input: let the graph take pixels and normalise them.

    Raises:
        InputError: the model does not know its data, because it was loaded (pass ``data``), or ``path`` is a directory.
        ArtifactError: ONNX cannot express the network; the text names the module.

    Example:
        >>> kd.export_onnx(model, "model.onnx", data)
    """
    check_model("model", model)
    described = data or model.images
    if described is None:
        raise InputError("export_onnx needs the data's labels and normalisation: pass the Dataset as data.")
    check_file(Path(path))
    write_file(Path(path), onnx_bytes(model, described, uint8_input=uint8_input))
