"""Export of a model to ONNX.

Input ``images``: float32 [N, C, H, W], normalised, or uint8 [N, C, H, W], pixels; output ``logits``: float32 [N, K]; N
is dynamic.
"""

import copy

import onnx
import torch
from torch import Tensor, nn

from kondense.artifacts.equivalence import probes
from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.images import DescribesImages
from kondense.artifacts.measurements import Runtimes
from kondense.artifacts.model import Model, model_identity
from kondense.artifacts.ties import tied_names
from kondense.export.integer_layers import replace_layers, replace_quantizers
from kondense.export.integer_storage import (
    drop_quantizers,
    merge_quantizers,
    merge_tied,
    separate_integers,
    store_packed,
)
from kondense.export.means import pool_globally
from kondense.export.metadata import FLOAT, FORMAT_VERSION, UINT8, Metadata, metadata_entries, parse_metadata
from kondense.export.operators import operators_kept
from kondense.export.pixel_input import take_pixels
from kondense.export.runtimes import runtimes
from kondense.export.trace import cause, quiet, trace_program, translated_module
from kondense.export.verification import check_file
from kondense.files import ArtifactError
from kondense.heap import uncollected

OPSET = 21  # the first with 4-bit integers in DequantizeLinear and Cast


def export_onnx(model: Model, dataset: DescribesImages, *, uint8_input: bool = False) -> bytes:
    """Return ``model`` as an ONNX file of opset 21 with folded batch norms.

    Statically quantized layers become QuantizeLinear/DequantizeLinear pairs with int8 weights, int32 biases and the
    artifact's scales, which onnxruntime fuses into integer kernels. With weight-only quantization, weights are integers
    of 8 bits with Cast and Mul, which runtimes fold into float weights while loading, or of 4 bits with
    DequantizeLinear. The file's outputs are compared with the network's.

    Args:
        model: any model; it is not changed.
        dataset: a Dataset, or the model's ``images``: shape, labels and normalisation.
        uint8_input: whether the graph takes pixels and normalises them.

    Raises:
        ArtifactError: the exporter cannot express the network, or expresses another; the text names the module.
        ValueError: as ``save_model``.
    """
    # The norms of a quantized model are folded already, or belong to float layers.
    batches = probes(dataset.shape)
    module = copy.deepcopy(model.module).eval() if model.quantized else fold_batch_norms(model.module, batches)
    module = module.cpu()
    replace_quantizers(module, model.activations)
    replace_layers(module, model.quantized, model.activations)
    proto = _translate(trace_program(module, dataset.shape))
    pool_globally(proto)
    if model.activations:
        merge_quantizers(proto)
        separate_integers(proto)
    else:
        _store(proto, model)
    _tidy(proto)
    check_file(proto, model.module, dataset.shape, translate_module, integer=bool(model.activations))
    if uint8_input:
        take_pixels(proto, dataset.mean, dataset.std)
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
        "resize": list(dataset.resize),
        "interpolation": dataset.interpolation,
        "runtimes": _runtimes(proto, model),
    }
    onnx.helper.set_model_props(proto, metadata_entries(metadata))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def compute_in_float(content: bytes, model: Model) -> bytes:
    """Return the file of a model with quantized inputs in float arithmetic.

    Weights and biases remain integers, so the file is not larger; the rounding of inputs is removed, so that layers run
    on float kernels.

    Args:
        content: the file from ``export_onnx``.
        model: the model of the new file: the old one without input quantizers.
    """
    proto = onnx.load_model_from_string(content)
    drop_quantizers(proto)
    _store(proto, model)
    _shorten_names(proto.graph)
    metadata = read_metadata(content)
    metadata |= {"arithmetic": "float", "digest": model_identity(model), "runtimes": _runtimes(proto, model)}
    onnx.helper.set_model_props(proto, metadata_entries(metadata))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _store(proto: onnx.ModelProto, model: Model) -> None:
    """Store the weights of a file in float arithmetic: tied ones once, integers packed; in place."""
    if tied_names(model.module):
        merge_tied(proto.graph)
    store_packed(proto)


def read_metadata(content: bytes, place: str = "the ONNX file") -> Metadata:
    """Return the metadata of an ONNX file from ``export_onnx``.

    Raises:
        ArtifactError: it is not such a file.
    """
    try:
        proto = onnx.load_model_from_string(content)
        entries = {entry.key: entry.value for entry in proto.metadata_props}
    except Exception as error:  # protobuf's DecodeError has no stable public name
        raise ArtifactError(f"{place} must be an ONNX model, but: {error}.") from None
    return parse_metadata(entries, place)


def translate_module(module: nn.Module, inputs: Tensor) -> onnx.ModelProto | None:
    """Return a part of a network as ONNX for inputs [N, ...], or None if it is none of its own."""
    try:
        return _translate(trace_program(module, tuple(inputs.shape[1:])))
    except ArtifactError:
        return None


def _runtimes(proto: onnx.ModelProto, model: Model) -> Runtimes:
    filters = {
        name.removesuffix(".weight"): len(tensor.integers)
        for name, tensor in model.quantized.items()
        if name.removesuffix(".weight") in model.activations
    }
    four_bits = any(constant.data_type == onnx.TensorProto.INT4 for constant in proto.graph.initializer)
    return runtimes(filters, four_bits=four_bits)


def warm_up() -> None:
    """Export a tiny network, so that the exporter's tables exist in processes forked from this one."""
    with uncollected():
        _translate(trace_program(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()).eval(), (1, 8, 8)))


def _translate(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    try:
        with quiet(), operators_kept():
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
            f"the network must consist of ONNX operators, but {place} does not: {cause(error)}"
        ) from error
    assert translated is not None
    return translated.model_proto


def _tidy(proto: onnx.ModelProto) -> None:
    """Remove data about the exporting machine and inferred shapes; name the dynamic dimension."""
    proto.producer_name, proto.doc_string = "kondense", ""
    for node in proto.graph.node:  # stack traces with source paths, several times the graph's size
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
    """Rename intermediate values and unnamed constants to numbers; weights keep their names."""
    public = {value.name for value in (*graph.input, *graph.output)}
    unnamed = [constant for constant in graph.initializer if "lifted_tensor" in constant.name]
    names = [constant.name for constant in unnamed] + [name for node in graph.node for name in node.output]
    short = {name: f"_{number}" for number, name in enumerate(name for name in names if name not in public)}
    for constant in unnamed:
        constant.name = short[constant.name]
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [short.get(name, name) for name in values]
