"""The ONNX form of a model: what runs outside torch.

Input ``images``: float32 [N, C, H, W], normalised; output ``logits``: float32 [N, K]; N is free.
"""

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import nn

from components.artifacts.dataset import Dataset
from components.artifacts.files import ArtifactError
from components.artifacts.fold import fold_batch_norms
from components.artifacts.integer_layers import replace_layers, replace_quantizers
from components.artifacts.integer_storage import separate_zero_points, store_packed
from components.artifacts.model import Model

FORMAT_VERSION = 1
OPSET = 21  # the first whose DequantizeLinear and Cast take 4-bit integers


def export_onnx(model: Model, dataset: Dataset) -> bytes:
    """Return ``model`` as an ONNX file, batch norms folded.

    Statically quantized layers become QuantizeLinear/DequantizeLinear pairs with the artifact's own
    scales around int8 weights and int32 biases, which onnxruntime fuses into integer kernels. Weights
    quantized alone are stored as integers of 4 or 8 bits under Cast and Mul, which any runtime folds
    into float weights while it loads: the file is small and runs as fast as a float one.

    Args:
        model: any model; it is left as it was.
        dataset: gives the image shape and, as metadata, the labels and the normalisation.

    Raises:
        ArtifactError: the exporter cannot express the network; the text says what it stumbled over.
    """
    # A quantized model's norms are folded already, or else belong to float layers.
    module = copy.deepcopy(model.module).eval() if model.quantized else fold_batch_norms(model.module)
    module = module.cpu()
    replace_quantizers(module, model.activations)
    replace_layers(module, model.quantized, model.activations)
    proto = _export(module, dataset.shape)
    if model.activations:
        separate_zero_points(proto)
    else:
        store_packed(proto)
    _describe(proto, model, dataset)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def read_metadata(content: bytes) -> dict[str, object]:
    """Return the metadata of an ONNX file that ``export_onnx`` wrote: labels, normalisation, shape and network.

    Raises:
        ArtifactError: it is no such file.
    """
    try:
        proto = onnx.load_model_from_string(content)
        metadata = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    except Exception as error:  # protobuf's DecodeError has no public home that stays the same over its versions
        raise ArtifactError(f"the file must be an ONNX model, but: {error}.") from None
    if metadata.get("format_version") != FORMAT_VERSION:
        found = metadata.get("format_version")
        raise ArtifactError(f"the ONNX file must have format_version {FORMAT_VERSION}, but got {found}.")
    return metadata


def _export(module: nn.Module, shape: tuple[int, int, int]) -> onnx.ModelProto:
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (torch.zeros(2, *shape),),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ArtifactError(f"the network must consist of operators that ONNX has, but: {_cause(error)}") from error
    assert program is not None
    return program.model_proto


def _describe(proto: onnx.ModelProto, model: Model, dataset: Dataset) -> None:
    """Write metadata as JSON values, and take out what names the machine that exported."""
    metadata = {
        "format_version": FORMAT_VERSION,
        "classes": list(dataset.classes),
        "shape": list(dataset.shape),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "network": model.network.name,
    }
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in metadata.items()})
    proto.producer_name, proto.doc_string = "kondense", ""
    for node in proto.graph.node:  # the exporter leaves stack traces with source paths, several times the graph's size
        del node.metadata_props[:]
        node.name, node.doc_string = "", ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    _shorten_names(proto.graph)
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]  # shapes between layers; runtimes infer them


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Number the values between layers and the exporter's unnamed constants; weights keep their names."""
    public = {value.name for value in (*graph.input, *graph.output)}
    unnamed = [constant for constant in graph.initializer if "lifted_tensor" in constant.name]
    names = [constant.name for constant in unnamed] + [name for node in graph.node for name in node.output]
    short = {name: f"_{number}" for number, name in enumerate(name for name in names if name not in public)}
    for constant in unnamed:
        constant.name = short[constant.name]
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [short.get(name, name) for name in values]


def _cause(error: BaseException) -> str:
    """Return the innermost message of ``error`` in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:500]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its notes to developers off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
