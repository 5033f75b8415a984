"""The ONNX form of a model: what runs outside torch.

Input ``images``: float32 [N, C, H, W], normalised, or uint8 [N, C, H, W], pixels as they are; output ``logits``:
float32 [N, K]; N is free.
"""

import copy

import onnx
import torch
from torch import nn

from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import DescribesImages, Model, model_identity
from kondense.export.integer_layers import replace_layers, replace_quantizers
from kondense.export.integer_storage import drop_quantizers, separate_zero_points, store_packed
from kondense.export.metadata import FLOAT, FORMAT_VERSION, UINT8, Metadata, metadata_entries, parse_metadata
from kondense.export.pixel_input import take_pixels
from kondense.export.trace import capture, cause, quiet, translated_module
from kondense.files import ArtifactError

OPSET = 21  # the first whose DequantizeLinear and Cast take 4-bit integers


def export_onnx(model: Model, dataset: DescribesImages, *, uint8_input: bool = False) -> bytes:
    """Return ``model`` as an ONNX file of opset 21, batch norms folded.

    Statically quantized layers become QuantizeLinear/DequantizeLinear pairs with the artifact's own
    scales around int8 weights and int32 biases, which onnxruntime fuses into integer kernels. Weights
    quantized alone are stored as integers of 4 or 8 bits under Cast and Mul, which any runtime folds
    into float weights while it loads: the file is small and runs as fast as a float one.

    Args:
        model: any model; it is left as it was.
        dataset: a Dataset or the model's ``images``: gives the image shape and, as metadata, the labels and the normalisation.
        uint8_input: whether the graph normalises by itself, so that it takes pixels as they are.

    Raises:
        ArtifactError: the exporter cannot express the network; the text names the module.
        ValueError: as ``save_model``.
    """
    # A quantized model's norms are folded already, or else belong to float layers.
    module = copy.deepcopy(model.module).eval() if model.quantized else fold_batch_norms(model.module)
    module = module.cpu()
    replace_quantizers(module, model.activations)
    replace_layers(module, model.quantized, model.activations)
    proto = _translate(capture(module, dataset.shape))
    if model.activations:
        separate_zero_points(proto)
    else:
        store_packed(proto)
    if uint8_input:
        take_pixels(proto, dataset.mean, dataset.std)
    _tidy(proto)
    metadata: Metadata = {
        "format_version": FORMAT_VERSION,
        "classes": list(dataset.classes),
        "shape": list(dataset.shape),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "network": model.network.name,
        "input": UINT8 if uint8_input else FLOAT,
        "arithmetic": "integer" if model.activations else "float",
        "opset": OPSET,
        "digest": model_identity(model),
    }
    onnx.helper.set_model_props(proto, metadata_entries(metadata))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def compute_in_float(content: bytes, model: Model) -> bytes:
    """Return the file that ``export_onnx`` wrote of a model with quantized inputs, computing in float instead.

    Weights and biases stay the integers that they are, so the file is no larger; what rounds the layers' inputs
    is gone, so its layers run on float kernels.

    Args:
        content: the file.
        model: the model that the new file is of: the old one without its input quantizers.
    """
    proto = onnx.load_model_from_string(content)
    drop_quantizers(proto)
    store_packed(proto)
    _shorten_names(proto.graph)
    metadata = read_metadata(content) | {"arithmetic": "float", "digest": model_identity(model)}
    onnx.helper.set_model_props(proto, metadata_entries(metadata))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def read_metadata(content: bytes, place: str = "the ONNX file") -> Metadata:
    """Return the metadata of an ONNX file that ``export_onnx`` wrote.

    Raises:
        ArtifactError: it is no such file.
    """
    try:
        proto = onnx.load_model_from_string(content)
        entries = {entry.key: entry.value for entry in proto.metadata_props}
    except Exception as error:  # protobuf's DecodeError has no public home that stays the same over its versions
        raise ArtifactError(f"{place} must be an ONNX model, but: {error}.") from None
    return parse_metadata(entries, place)


def warm_up() -> None:
    """Export a tiny network, so that processes forked from this one find the exporter's tables built."""
    _translate(capture(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()).eval(), (1, 8, 8)))


def _translate(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    try:
        with quiet():
            translated = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        place = translated_module(error) or "the network"
        raise ArtifactError(
            f"the network must consist of operators that ONNX has, but {place} does not: {cause(error)}"
        ) from error
    assert translated is not None
    return translated.model_proto


def _tidy(proto: onnx.ModelProto) -> None:
    """Take out what names the machine that exported, and shapes that runtimes infer; name the free dimension."""
    proto.producer_name, proto.doc_string = "kondense", ""
    for node in proto.graph.node:  # the exporter leaves stack traces with source paths, several times the graph's size
        del node.metadata_props[:]
        node.name, node.doc_string = "", ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _shorten_names(proto.graph)
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]


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
