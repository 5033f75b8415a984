"""Heads of attentions are removed like channels: what is left computes what the network does when nobody reads them."""

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
from kondense.artifacts.equivalence import outputs, probes
from kondense.artifacts.model import Model, load_model, save_model
from kondense.artifacts.separation import separate_attention
from kondense.artifacts.structure import apply_edits
from kondense.channels.dependencies import find_dependencies
from kondense.channels.surgery import remove
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import Dataset, Split
from kondense.distill.config import DistillConfig
from kondense.distill.stage import distill
from kondense.errors import InputError
from kondense.export.onnx import export_onnx
from kondense.files import read_json
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from torch import Tensor, nn

SIZES = {"image_size": 16, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
VIT = NetworkSpec("torchvision.models:VisionTransformer", {**SIZES, "num_classes": 4})
TIMM = NetworkSpec(
    "timm.models.vision_transformer:VisionTransformer",
    {"img_size": 16, "patch_size": 8, "depth": 2, "num_heads": 4, "embed_dim": 32, "num_classes": 4, "mlp_ratio": 2},
)
NORMED = NetworkSpec(TIMM.name, {**TIMM.arguments, "qk_norm": True})
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Separate(nn.Module):
    """An attention with a layer for each of query, key and value, of 4 heads, between convolution and classifier."""

    def __init__(self, num_heads: int = 4) -> None:
        super().__init__()
        self.patches, self.classifier = nn.Conv2d(3, 32, 4, stride=4), nn.Linear(32, 4)
        self.attention = nn.Module()
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.num_heads, self.head_dim = num_heads, 8

    def forward(self, images: Tensor) -> Tensor:
        places = self.patches(images).flatten(2).transpose(1, 2)

        def heads(layer: nn.Module) -> Tensor:
            return layer(places).view(len(places), -1, self.num_heads, self.head_dim).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(heads(self.query), heads(self.key), heads(self.value))
        return self.classifier((places + self.out(mixed.transpose(1, 2).flatten(2))).mean(1))


def loud(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
    return module.eval()


NETWORKS = {
    "torchvision": (lambda: build(VIT), "encoder.layers.encoder_layer_1.self_attention", "in_proj", "out_proj"),
    "timm": (lambda: build(TIMM), "blocks.1.attn", "qkv", "proj"),
    "timm, normed": (lambda: build(NORMED), "blocks.1.attn", "qkv", "proj"),
    "three layers": (Separate, "", "query", "out"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rest_computes_what_the_network_does_without_the_heads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", "torchvision,timm")
    make, attention, producer, reader = NETWORKS[name]
    module, prefix = loud(make()), attention and f"{attention}."
    separate_attention(module, probes((3, 16, 16)))
    found = find_dependencies(module, (3, 16, 16))
    group = found.groups[f"{prefix}{producer}"]
    assert (group.channels, group.width) == (4, 8)
    silent = copy.deepcopy(module)
    columns = torch.arange(32).view(4, 8)[[0, 2]].flatten()
    with torch.no_grad():
        silent.get_submodule(f"{prefix}{reader}").weight[:, columns] = 0.0
    remove(module, found.groups, {group.name: torch.tensor([0, 2])})
    assert module.get_submodule(attention).num_heads == 2
    assert module.get_submodule(f"{prefix}{reader}").in_features == 16
    torch.testing.assert_close(outputs(module, IMAGES)[0], outputs(silent, IMAGES)[0])
    assert not torch.allclose(outputs(module, IMAGES)[0], outputs(loud(make()), IMAGES)[0], rtol=1e-2, atol=1e-2)


def make_dataset() -> Dataset:
    pixels = torch.randint(0, 256, (16, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(pixels, torch.arange(16) % 4)
    half = (0.5, 0.5, 0.5)
    return Dataset("noise", ("a", "b", "c", "d"), half, half, 0, "this test", split, split, split)


@pytest.mark.parametrize("spec", [VIT, TIMM], ids=["torchvision", "timm"])
def test_a_pruned_transformer_is_quantized_exported_and_loaded(
    spec: NetworkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", "torchvision,timm")
    dataset = make_dataset()
    images = dataset.normalise(dataset.test.images)
    config = PruneConfig(method="l1", sparsity=0.4, epochs=1, batch_size=16, layers="Linear=0.5")
    result = prune(Model(loud(build(spec)), spec), dataset, config)
    assert {
        part.num_heads for part in result.model.module.modules() if hasattr(part, "in_proj") or hasattr(part, "qkv")
    } == {2}
    assert result.metrics["macs"] < 0.65 * result.metrics["macs_before"]
    quantized = quantize(result.model, dataset, QuantizeConfig(calibration_images=16)).model
    session = onnxruntime.InferenceSession(export_onnx(quantized, dataset))
    logits = session.run(None, {"images": images.numpy()})[0]
    expected = outputs(quantized.module, images)[0].numpy()
    assert np.abs(logits - expected).max() <= 0.05 * np.abs(expected).max()
    for model, version in ((result.model, 4), (quantized, 6)):  # the convolution of the patches has a quantized output
        save_model(tmp_path / "model", model)
        assert read_json(tmp_path / "model" / "model.json", format_version=version)
        for again in (load_model(tmp_path / "model"), unpack_model(pack_model(model))):
            assert torch.equal(outputs(again.module, images)[0], outputs(model.module, images)[0])


@pytest.mark.parametrize(
    "values",
    [{"method": "greedy"}, {"method": "fpgm", "reconstruct": True}, {"method": "taylor_channel"}],
    ids=str,
)
def test_methods_of_channels_remove_heads(values: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", "torchvision")
    config = PruneConfig(**{"method": "l1", "sparsity": 0.4, "epochs": 1, "batch_size": 16, **values})
    result = prune(Model(loud(build(VIT)), VIT), make_dataset(), config)
    counts = [len(part.weight) // 24 for name, part in result.model.module.named_modules() if name.endswith("in_proj")]
    assert all(0 < count <= 4 for count in counts)
    assert sum(counts) < 8


@pytest.mark.parametrize("start", ["auto", "random"])
@pytest.mark.parametrize("spec", [VIT, TIMM], ids=["torchvision", "timm"])
def test_a_student_of_half_the_width_has_half_the_heads(
    spec: NetworkSpec, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", "torchvision,timm")
    dataset, teacher = make_dataset(), Model(loud(build(spec)), spec)
    config = DistillConfig(width=0.5, start=start, epochs=1, batch_size=16)
    student = distill(None, dataset, config, teachers={"teacher": teacher}).model
    attentions = [part for part in student.module.modules() if hasattr(part, "in_proj") or hasattr(part, "qkv")]
    assert [part.num_heads for part in attentions] == [2, 2]
    assert not any(isinstance(part, nn.MultiheadAttention) for part in student.module.modules())
    save_model(tmp_path / "student", student)
    images = dataset.normalise(dataset.test.images)
    loaded = load_model(tmp_path / "student")
    assert torch.equal(outputs(loaded.module, images)[0], outputs(student.module, images)[0])


def test_round_to_counts_the_outputs_of_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", "torchvision")
    config = PruneConfig(method="l1", sparsity=0.5, round_to=32)
    with pytest.raises(InputError, match=r"encoder_layer_0.self_attention.in_proj: 4 channels are too few to prune"):
        prune(Model(loud(build(VIT)), VIT), make_dataset(), config)


@pytest.mark.parametrize(("name", "count"), [("blocks.0.attn", 0), ("blocks.0.attn", True), ("blocks.0", 2)])
def test_heads_that_are_none_are_refused(name: str, count: int) -> None:
    module = timm.models.vision_transformer.VisionTransformer(**TIMM.arguments)
    with pytest.raises(InputError, match="cannot set the heads"):
        apply_edits(module, {name: {"num_heads": count}})
