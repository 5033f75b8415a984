"""Models: artifacts, imported weights, exported files."""

import contextlib
import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

from benchmarks.hardness.parsers.parser import SIDE, Parser, as_json, written


def _model(scratch: Path) -> Any:
    import torch
    from kondense.artifacts.images import Images
    from kondense.artifacts.model import Model, save_model
    from kondense.artifacts.quantized import ActivationQuantizer, QuantizedTensor, install_quantizers
    from kondense.artifacts.structure import apply_edits
    from kondense.networks.build import NetworkSpec, build

    spec = NetworkSpec("lenet300", {"classes": 3, "channels": 1, "image_size": SIDE, "width": 0.1})
    module = build(spec)
    apply_edits(module, {"fc2": {"out_features": 7}, "fc3": {"in_features": 7}})
    for tensor in module.state_dict().values():
        torch.nn.init.normal_(tensor)
    integers = torch.randint(-7, 8, module.fc1.weight.shape, dtype=torch.int8)
    quantized = QuantizedTensor(integers, torch.full((1,), 0.1), bits=4)
    module.fc1.weight.data = quantized.dequantize()
    activations = {"fc1": ActivationQuantizer(0.1, 3)}
    install_quantizers(module, activations)
    images = Images(("a", "b", "c"), (1, SIDE, SIDE), (0.5,), (0.2,), (9,), "bicubic")
    record = {"stage": "train", "summary": "train", "config": {}, "inputs": {}, "metrics": {"bytes": 1.0}, "curves": []}
    lineage = ({**record, "details": {}, "versions": {"torch": "2"}, "revision": ""},)
    model = Model(module.eval(), spec, {"fc1.weight": quantized}, activations, ("fc2.weight",), lineage, images)
    save_model(scratch / "model", model)
    return model


def _descriptions(scratch: Path) -> list[bytes]:
    _model(scratch)
    return [(scratch / "model/model.json").read_bytes()]


def _read_model(path: Path) -> object:
    import torch
    from kondense.artifacts.identity import directory_identity
    from kondense.artifacts.metadata import metadata_of
    from kondense.artifacts.model import load_model

    model = load_model(path.parent)
    metadata_of(path.parent)
    if model.images and math.prod(model.images.shape) <= SIDE**4:
        with contextlib.suppress(RuntimeError):  # images that the network was not made for, which its use will refuse
            model.module(torch.zeros(1, *model.images.shape))
    return directory_identity(path.parent)


def _weights(scratch: Path) -> list[bytes]:
    _model(scratch)
    return [(scratch / "model/weights.safetensors").read_bytes()]


def _read_weights(path: Path) -> object:
    from kondense.artifacts.model import load_model

    description = json.loads((path.parent / "model.json").read_bytes())
    description["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    (path.parent / "model.json").write_text(json.dumps(description))
    return load_model(path.parent)


def _packed(scratch: Path) -> list[bytes]:
    from kondense.codec.model_file import pack_model

    return [pack_model(_model(scratch))]


def _read_packed(content: bytes, _: Path) -> object:
    from kondense.codec import kz
    from kondense.codec.model_file import unpack_model

    start = kz.NUMBERS.size
    digest = hashlib.sha256(content[:start] + content[start + kz.DIGEST_BYTES :]).digest()
    return unpack_model(content[:start] + digest + content[start + kz.DIGEST_BYTES :], limit_bytes=2**24)


def _checkpoint_files(_: Path) -> list[bytes]:
    import torch

    contents = []
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        file = io.BytesIO()
        torch.save({"state_dict": {"w": torch.ones(4, 3), "b": torch.zeros(3)}, "epoch": 3}, file, **options)
        contents.append(file.getvalue())
    return contents


def _read_checkpoint_file(content: bytes, _: Path) -> object:
    from kondense.train.state_dicts import read_weights, weights_for
    from torch import nn

    return weights_for("a.pt", read_weights("a.pt", content), nn.Linear(4, 3))


def _imported_files(_: Path) -> list[bytes]:
    import torch
    from safetensors.torch import save

    return [save({"w": torch.ones(4, 3), "b": torch.zeros(3)}, {"format": "pt"})]


def _read_imported_file(content: bytes, _: Path) -> object:
    from kondense.train.state_dicts import read_weights, weights_for
    from torch import nn

    return weights_for("a.safetensors", read_weights("a.safetensors", content), nn.Linear(4, 3))


def _onnx_entries(_: Path) -> list[bytes]:
    metadata = {
        "format_version": 1, "classes": ["a", "b"], "shape": [1, SIDE, SIDE], "mean": [0.5], "std": [0.2],
        "network": "x", "input": "float32", "arithmetic": "float", "opset": 21, "digest": "0" * 64, "resize": [9],
        "interpolation": "bicubic",
    }  # fmt: skip
    return as_json({name: json.dumps(value) for name, value in metadata.items()})


def _read_onnx_entries(content: bytes, _: Path) -> object:
    from kondense.export.metadata import parse_metadata
    from kondense.json_text import json_object

    entries = json_object(content, "entries")
    return parse_metadata({name: text if isinstance(text, str) else json.dumps(text) for name, text in entries.items()})


PARSERS = (
    Parser("model.json", "json", _descriptions, written("model/model.json", _read_model), 0.6),
    Parser("weights.safetensors", "safetensors", _weights, written("model/weights.safetensors", _read_weights), 0.6),
    Parser("weights.kz", "bytes", _packed, _read_packed, 0.6, allowance=2**26),
    Parser("weights of torch.save", "bytes", _checkpoint_files, _read_checkpoint_file, 1),
    Parser("imported weights.safetensors", "safetensors", _imported_files, _read_imported_file, 0.5),
    Parser("metadata of ONNX files", "json", _onnx_entries, _read_onnx_entries, 2),
)
