import dataclasses
import json
import pickle
import subprocess
import sys

import pytest
import torch
import torch_pruning
from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import Model, load_model, model_digest, read_description, save_model
from kondense.artifacts.quantized import ActivationQuantizer, QuantizedTensor, install_quantizers
from kondense.data_prep.config import DataPrepConfig
from kondense.files import ArtifactError, sha256
from kondense.networks.build import NetworkSpec, build
from kondense.networks.names import BUILT_IN
from safetensors.torch import load_file, save_file
from torch import nn

# A fresh process that knows nothing but the directories.
LOADER = """
import sys, torch
from pathlib import Path
from kondense.artifacts.model import load_model
from safetensors.torch import load_file, save_file
images = load_file(sys.argv[1])["images"]
outputs = {}
with torch.no_grad():
    for directory in sys.argv[3:]:
        outputs[Path(directory).name] = load_model(Path(directory)).module(images)
save_file(outputs, sys.argv[2])
"""

FULL_DISK = """
import resource, sys
from pathlib import Path
from kondense.artifacts.model import load_model, save_model
model = load_model(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))
try:
    save_model(Path(sys.argv[2]), model)
except OSError as error:
    print(error)
"""


def spec(name, image_size=16):
    return NetworkSpec(name, {"classes": 4, "channels": 1, "image_size": image_size})


def perturbed(name):
    """Return the network with statistics and weights unlike those it starts with."""
    module = build(spec(name), seed=5)
    generator = torch.Generator().manual_seed(1)
    for key, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator) * 0.1
            tensor.add_(noise if key.endswith("running_var") else noise - 0.05)
    return module.eval()


def prune_channels(module):
    head = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    importance = torch_pruning.importance.MagnitudeImportance()
    images = torch.zeros(1, 1, 16, 16)
    torch_pruning.MagnitudePruner(module, images, importance, pruning_ratio=0.5, ignored_layers=[head]).step()
    return module


def compressed(name):
    """Return the network with everything an artifact can say: fewer channels, zeros, integers, quantized inputs."""
    module = prune_channels(perturbed(name))
    state = module.state_dict()
    layers = {key: layer for key, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    quantized, masked = {}, []
    for index, key in enumerate(layers):
        weight = state[f"{key}.weight"]
        weight[weight.abs() < weight.abs().median()] = 0
        masked.append(f"{key}.weight")
        if index % 2 == 0:
            scale = (weight.flatten(1).abs().amax(1) / 127).clamp(min=1e-8)
            grid = torch.round(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).to(torch.int8)
            quantized[f"{key}.weight"] = QuantizedTensor(grid, scale, 8)
            weight.copy_(quantized[f"{key}.weight"].dequantize())
    activations = {key: ActivationQuantizer(scale=0.02, zero_point=3) for key in list(layers)[:2]}
    install_quantizers(module, activations)
    record = stage_record(
        "prune", DataPrepConfig(), inputs={"dataset": "0" * 64}, metrics={"accuracy": 0.5}, summary="prune half"
    )
    return Model(module, spec(name), quantized, activations, tuple(masked), (record,))


@pytest.fixture
def model():
    return compressed("resnet8")


@pytest.fixture
def directory(model, tmp_path):
    save_model(tmp_path / "model", model, {"model.onnx": b"onnx"})
    return tmp_path / "model"


def rewrite(directory, change):
    """Change model.json by ``change``, with digests that fit the files."""
    path = directory / "model.json"
    content = json.loads(path.read_text())
    content["files"] = {file.name: sha256(file) for file in directory.iterdir() if file != path}
    change(content)
    path.write_text(json.dumps(content))


def test_a_fresh_process_computes_the_very_same_logits(tmp_path):
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * 4 - 2
    save_file({"images": images}, tmp_path / "images")
    expected, directories = {}, []
    for name in BUILT_IN:
        for kind, made in (("plain", Model(perturbed(name), spec(name))), ("compressed", compressed(name))):
            directories.append(tmp_path / f"{name}-{kind}")
            save_model(directories[-1], made)
            with torch.no_grad():
                expected[directories[-1].name] = made.module.eval()(images)
    command = [
        sys.executable,
        "-c",
        LOADER,
        str(tmp_path / "images"),
        str(tmp_path / "outputs"),
        *map(str, directories),
    ]
    subprocess.run(command, check=True)
    found = load_file(tmp_path / "outputs")
    assert found.keys() == expected.keys()
    for key, logits in expected.items():
        assert torch.isfinite(logits).all()
        assert torch.equal(found[key], logits), key


def test_everything_comes_back(model, directory):
    found = load_model(directory)
    assert found.network == dataclasses.replace(model.network)
    assert found.masked == model.masked
    assert found.activations == model.activations
    assert [dict(record) for record in found.lineage] == [dict(record) for record in model.lineage]
    assert found.quantized.keys() == model.quantized.keys()
    for name, tensor in model.quantized.items():
        assert torch.equal(found.quantized[name].integers, tensor.integers)
        assert torch.equal(found.quantized[name].scale, tensor.scale)
    for name, mask in model.masks().items():
        assert torch.equal(found.masks()[name], mask)
        assert not mask.all()
    assert not found.module.training
    assert (directory / "model.onnx").read_bytes() == b"onnx"


def test_the_same_model_has_the_same_digest(model, directory, tmp_path):
    save_model(tmp_path / "again", model, {"model.onnx": b"onnx"})
    save_model(tmp_path / "loaded", load_model(directory), {"model.onnx": b"onnx"})
    save_model(tmp_path / "other", model, {"model.onnx": b"other"})
    assert model_digest(tmp_path / "again") == model_digest(tmp_path / "loaded") == model_digest(directory)
    assert model_digest(tmp_path / "other") != model_digest(directory)


def test_quantized_weights_are_stored_as_integers(model, directory):
    tensors = load_file(directory / "weights.safetensors")
    for name in model.quantized:
        assert tensors[name].dtype == torch.int8
        assert tensors[name + "::scale"].dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_must_be_finite(tmp_path, value):
    module = build(spec("lenet5"))
    module.fc2.bias.data[1] = value
    with pytest.raises(ValueError, match="every weight must be finite, but fc2.bias holds NaN or infinity"):
        save_model(tmp_path / "model", Model(module, spec("lenet5")))
    assert list(tmp_path.iterdir()) == []


def test_a_quantized_weight_that_was_changed_is_noticed(model, tmp_path):
    name = next(iter(model.quantized))
    model.module.state_dict()[name].mul_(1.5)
    with pytest.raises(ValueError, match=f"weight {name} was changed after it was quantized; quantize it again"):
        save_model(tmp_path / "model", model)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "../model.onnx", "sub/model.onnx", "..", ""])
def test_a_further_file_has_a_plain_name_of_its_own(model, tmp_path, name):
    with pytest.raises(ValueError, match="a further file must have a plain, unused name, but got"):
        save_model(tmp_path / "model", model, {name: b""})
    assert list(tmp_path.iterdir()) == []


def damages(whole):
    for position in range(0, len(whole), max(1, len(whole) // 30)):
        yield whole[:position]
        yield whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]


@pytest.mark.parametrize("name", ["weights.safetensors", "model.onnx"])
def test_every_truncation_and_change_of_a_file_is_noticed(directory, name):
    path = directory / name
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"{name} must have sha256 .*damaged or changed"):
            load_model(directory)


def test_a_damaged_description_loads_or_is_an_artifact_error(directory):
    path = directory / "model.json"
    refused = 0
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            load_model(directory)
        except ArtifactError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "model.onnx"])
def test_a_missing_file_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(ArtifactError, match=f"must hold a file {name}, but it is missing"):
        load_model(directory)


@pytest.mark.parametrize(
    "make", [lambda state: pickle.dumps(dict(state)), lambda state: b"", lambda state: b"\xff" * 100]
)
def test_a_pickle_in_place_of_weights_is_refused(model, directory, make):
    (directory / "weights.safetensors").write_bytes(make(model.module.state_dict()))
    rewrite(directory, lambda content: None)
    with pytest.raises(ArtifactError, match="weights.safetensors must be in the safetensors format"):
        load_model(directory)


def test_a_torch_checkpoint_in_place_of_weights_is_refused(model, directory):
    torch.save(model.module.state_dict(), directory / "weights.safetensors")
    rewrite(directory, lambda content: None)
    with pytest.raises(ArtifactError, match="weights.safetensors must be in the safetensors format"):
        load_model(directory)


def _set(*keys, value):
    def change(content):
        *parents, last = keys
        for key in parents:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_set("format_version", value=8), "must have format_version 1 or 2 or 3 or 4 or 5 or 6 or 7, but got 8"),
        (
            lambda content: content.pop("format_version"),
            "must have format_version 1 or 2 or 3 or 4 or 5 or 6 or 7, but got None",
        ),
        (lambda content: content.pop("files"), "must have a key 'files', but it is missing"),
        (_set("files", value={}), "must have a digest of its file weights.safetensors"),
        (_set("files", "../outside", value="0"), "names a file outside itself"),
        (_set("files", "/etc/hostname", value="0"), "names a file outside itself"),
        (_set("network", value="lenet5"), "network must be dict"),
        (_set("network", "name", value="lenet6"), "network must be one of"),
        (_set("network", "name", value="os:system"), "is named by the artifact alone"),
        (_set("network", "arguments", value={"command": "true"}), "must take"),
        (_set("network", "arguments", "classes", value=5), "fc"),
        (
            _set("network", "arguments", "classes", value=-5),
            "classes of network .resnet8. must be a whole number above 0",
        ),
        (_set("network", "arguments", "classes", value="many"), "does not describe a model"),
        (_set("edits", value=[]), "edits must be dict"),
        (_set("edits", value={}), r"conv1.weight. must be .16, 1, 3, 3. as the network has it"),
        (_set("edits", "conv9", value={"bias": True}), "names module 'conv9'"),
        (_set("edits", "relu", value={"bias": True}), "cannot change a ReLU"),
        (_set("edits", "conv1", "out_channels", value=-1), "must set .*, but got out_channels=-1"),
        (_set("edits", "conv1", "groups", value=0), "does not describe a model"),
        (_set("edits", "conv1", "out_channels", value="8"), "does not describe a model"),
        (_set("quantization", value={}), "must have a key 'weights'"),
        (_set("quantization", "weights", "conv1.weight", value={}), "bits"),
        (_set("quantization", "weights", "conv1.weight", "bits", value=2), "integers of 2 bits"),
        (_set("quantization", "weights", "conv1.weight", "bits", value=64), r"bits must be in \[2, 8\], but got 64"),
        (
            _set("quantization", "weights", "conv1.weight", "scheme", value="vector"),
            "must be codebook or uniform, but got",
        ),
        (_set("quantization", "weights", "conv1.weight", "scheme", value="codebook"), "conv1.weight::codebook"),
        (_set("quantization", "weights", "absent.weight", value={"bits": 8}), "absent.weight"),
        (_set("quantization", "activations", "absent", value={"scale": 1.0, "zero_point": 0}), "absent"),
        (_set("quantization", "activations", "conv1", value={"scale": "x", "zero_point": 0}), "not supported"),
        (_set("quantization", "activations", "conv1", value={"scale": 0.0, "zero_point": 0}), "scale must be in"),
        (_set("quantization", "activations", "conv1", value={"hook": "x"}), "unexpected keyword"),
        (_set("masked", value=["absent.weight"]), "masked must name tensors of the network, but got 'absent.weight'"),
        (_set("lineage", value=["x"]), "lineage.* must be dict"),
    ],
)
def test_a_description_that_does_not_fit_is_an_error(directory, change, text):
    rewrite(directory, change)
    with pytest.raises(ArtifactError, match=text):
        load_model(directory)


def test_weights_of_another_network_are_refused(directory):
    save_file(build(spec("lenet5")).state_dict(), directory / "weights.safetensors")
    rewrite(directory, lambda content: None)
    with pytest.raises(ArtifactError, match="does not describe a model"):
        load_model(directory)


def test_the_description_alone_can_be_read(model, directory):
    assert read_description(directory)["network"]["name"] == "resnet8"
    with pytest.raises(ArtifactError, match="must hold a file model.json, but it is missing"):
        read_description(directory.parent)


def test_a_full_disk_is_one_line_and_keeps_what_was_there(directory, tmp_path):
    digest = model_digest(directory)
    source = tmp_path / "large"
    save_model(source, Model(build(spec("lenet300")), spec("lenet300")))
    command = [sys.executable, "-c", FULL_DISK, str(source), str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"[Errno 27] File too large while writing {directory}; nothing was kept\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "model"]
    assert model_digest(directory) == digest
    load_model(directory)


def test_saving_leaves_the_model_as_it_was(model, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    save_model(tmp_path / "model", model)
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(before[name], tensor)
