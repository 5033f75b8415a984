"""The projections of attentions are quantized like linear layers; onnxruntime and nn.MultiheadAttention judge."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from kondense.artifacts.attention import CrossAttention, SelfAttention
from kondense.artifacts.equivalence import outputs, probes
from kondense.artifacts.model import Model, load_model, save_model
from kondense.artifacts.separation import separate_attention
from kondense.artifacts.structure import apply_edits
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import Dataset, Split
from kondense.errors import InputError
from kondense.export.onnx import export_onnx
from kondense.files import read_json
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from torch import Tensor, nn

SIZES = {"image_size": 16, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 64, "mlp_dim": 128}
VIT = NetworkSpec("torchvision.models:VisionTransformer", {**SIZES, "num_classes": 4})


def make_dataset() -> Dataset:
    pixels = torch.randint(0, 256, (16, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(pixels, torch.arange(16) % 4)
    half = (0.5, 0.5, 0.5)
    return Dataset("noise", ("a", "b", "c", "d"), half, half, 0, "this test", split, split, split)


def make_vit() -> Model:
    module = build(VIT, seed=0)
    assert isinstance(module, torchvision.models.VisionTransformer)
    nn.init.normal_(module.heads.head.weight, std=0.1)  # torchvision's is zero
    return Model(module.eval(), VIT)


def test_a_vision_transformer_computes_on_integers_in_onnxruntime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", "torchvision")
    model, dataset = make_vit(), make_dataset()
    result = quantize(model, dataset, QuantizeConfig(calibration_images=16))
    assert result.details["float_reasons"] == {
        "class_token": "there is no integer kernel for the class_token of a VisionTransformer",
        "encoder.pos_embedding": "there is no integer kernel for the pos_embedding of a Encoder",
    }
    content = export_onnx(result.model, dataset)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 8  # of two blocks with two projections and two of the MLP each
    images = dataset.normalise(dataset.test.images)
    logits = session.run(None, {"images": images.numpy()})[0]
    for expected, tolerance in ((outputs(result.model.module, images), 0.05), (outputs(model.module, images), 0.2)):
        assert np.abs(logits - expected[0].numpy()).max() <= tolerance * np.abs(expected[0].numpy()).max()
    save_model(tmp_path / "model", result.model)
    assert read_json(tmp_path / "model" / "model.json", format_version=6)["edits"]
    for again in (load_model(tmp_path / "model"), unpack_model(pack_model(result.model))):
        assert torch.equal(outputs(again.module, images)[0], outputs(result.model.module, images)[0])


class Attending(nn.Module):
    """An attention, called as told."""

    def __init__(self, *, batch_first: bool, bias: bool, way: str) -> None:
        super().__init__()
        self.attention, self.way = nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=bias), way

    def forward(self, images: Tensor) -> Tensor:
        values = images.squeeze(1)
        key = values * 2 if self.way == "other keys" else values
        mask = torch.eye(values.shape[1], dtype=torch.bool) if self.way == "masked" else None
        mixed: Tensor = self.attention(values, key, key, need_weights=self.way == "weights", attn_mask=mask)[0]
        return mixed.flatten(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_separated_projections_compute_what_torch_computes(*, batch_first: bool, bias: bool) -> None:
    torch.manual_seed(0)
    module = Attending(batch_first=batch_first, bias=bias, way="itself").eval()
    nn.init.normal_(module.attention.out_proj.weight)
    batches = [torch.randn(8, 1, 8, 8), torch.randn(3, 1, 8, 8)]
    expected = [outputs(module, batch)[0] for batch in batches]
    assert separate_attention(module, batches) == ["attention"]
    assert [type(layer) for layer in module.attention.children()] == [nn.Linear, nn.Linear]
    for batch, wanted in zip(batches, expected, strict=True):
        torch.testing.assert_close(outputs(module, batch)[0], wanted)


class Crossing(nn.Module):
    """Reads one sequence from another, as told."""

    def __init__(self, way: str, *, batch_first: bool = True) -> None:
        super().__init__()
        sizes = {"kdim": 4, "vdim": 6} if way == "widths" else {}
        self.attention, self.way = (
            nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=way != "bias", **sizes),
            way,
        )
        nn.init.normal_(self.attention.out_proj.weight)
        if way != "bias":
            nn.init.normal_(self.attention.in_proj_bias)
        mask = torch.rand(4, 4) if way == "floats" else torch.rand(4, 4) < 0.5
        self.register_buffer("mask", mask.fill_diagonal_(False))

    def forward(self, images: Tensor) -> Tensor:
        values = images.squeeze(1)
        queries, keys = values[:, :4], values[:, 4:].flip(1) * 2
        mask = self.mask if self.way in ("mask", "floats") else None
        pair = (keys[..., :4], keys[..., 1:7]) if self.way == "widths" else (keys, keys)
        if not self.attention.batch_first:
            queries, *pair = (each.transpose(0, 1) for each in (queries, *pair))
        mixed, weights = self.attention(queries, *pair, attn_mask=mask, need_weights=self.way != "plain")
        if self.way == "trained" and self.training:
            return mixed.flatten(1) * weights.mean()
        if self.way == "weights":
            mixed = mixed * weights.mean()
        if self.way == "padding":
            mixed = self.attention(queries, *pair, key_padding_mask=torch.zeros(len(values), 4, dtype=torch.bool))[0]
        result: Tensor = (mixed if self.attention.batch_first else mixed.transpose(0, 1)).flatten(1)
        return result


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("way", ["plain", "unused", "bias", "widths", "mask", "floats"])
def test_separated_projections_of_two_sequences_compute_what_torch_computes(way: str, *, batch_first: bool) -> None:
    torch.manual_seed(0)
    module = Crossing(way, batch_first=batch_first).eval()
    batches = [torch.randn(8, 1, 8, 8), torch.randn(3, 1, 8, 8)]
    expected = [outputs(module, batch)[0] for batch in batches]
    assert separate_attention(module, batches) == ["attention"]
    assert [name for name, _ in module.attention.named_children()] == ["q_proj", "k_proj", "v_proj", "out_proj"]
    for batch, wanted in zip(batches, expected, strict=True):
        torch.testing.assert_close(outputs(module, batch)[0], wanted)


@pytest.mark.parametrize("way", ["weights", "trained", "padding"])
def test_an_attention_that_does_more_keeps_its_form(way: str) -> None:
    module = Crossing(way).eval()
    assert separate_attention(module, probes((1, 8, 8))) == []
    assert type(module.attention) is nn.MultiheadAttention


@pytest.mark.parametrize(
    ("way", "kind"), [("other keys", CrossAttention), ("masked", CrossAttention), ("weights", SelfAttention)]
)
def test_masks_and_other_keys_decide_the_form(way: str, kind: type[nn.Module]) -> None:
    module = Attending(batch_first=True, bias=True, way=way).eval()
    wanted = outputs(module, images := torch.randn(3, 1, 8, 8))[0]
    assert separate_attention(module, probes((1, 8, 8))) == ["attention"]
    assert type(module.attention) is kind
    torch.testing.assert_close(outputs(module, images)[0], wanted)


class CrossingMaps(nn.Module):
    """Reads the places of a map from those of another, with widths of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(3, 12, 8, 8)
        self.attention = nn.MultiheadAttention(16, 4, kdim=12, vdim=12, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        fine, coarse = (layer(images).flatten(2).transpose(1, 2) for layer in (self.fine, self.coarse))
        logits: Tensor = self.head((fine + self.attention(fine, coarse, coarse)[0]).mean(1))
        return logits


def test_heads_of_cross_attention_are_pruned_quantized_saved_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", __name__)
    dataset, spec = make_dataset(), NetworkSpec(f"{__name__}:CrossingMaps", {})
    config = PruneConfig(method="l1", sparsity=0.3, round_to=4, epochs=1, layers="attention.q_proj=0.5")
    pruned = prune(Model(build(spec, seed=0).eval(), spec), dataset, config).model
    attention = pruned.module.attention
    assert (attention.num_heads, attention.out_proj.in_features, attention.k_proj.out_features) == (2, 8, 8)
    model = quantize(pruned, dataset, QuantizeConfig(calibration_images=16)).model
    assert {f"attention.{name}_proj.weight" for name in ("q", "k", "v", "out")} <= model.quantized.keys()
    save_model(tmp_path / "model", model)
    assert read_json(tmp_path / "model" / "model.json", format_version=6)["edits"]["attention"] == {
        "type": "CrossAttention"
    }
    images = dataset.normalise(dataset.test.images)
    wanted = outputs(model.module, images)[0]
    for again in (load_model(tmp_path / "model"), unpack_model(pack_model(model))):
        assert torch.equal(outputs(again.module, images)[0], wanted)
    session = onnxruntime.InferenceSession(export_onnx(model, dataset))
    logits = session.run(None, {"images": images.numpy()})[0]
    assert np.abs(logits - wanted.numpy()).max() <= 0.05 * np.abs(wanted.numpy()).max()


def test_a_separated_attention_refuses_a_mask_and_other_keys() -> None:
    attention, values = SelfAttention(nn.MultiheadAttention(8, 2, batch_first=True)), torch.zeros(1, 3, 8)
    with pytest.raises(InputError, match="must be called on one sequence, without a mask"):
        attention(values, values + 1, values, need_weights=False)
    with pytest.raises(InputError, match="must be called on one sequence, without a mask"):
        attention(values, values, values, need_weights=False, attn_mask=torch.ones(3, 3, dtype=torch.bool))
    crossing = CrossAttention(nn.MultiheadAttention(8, 2, batch_first=True))
    with pytest.raises(InputError, match="at most one mask, for all sequences"):
        crossing(values, values, values, torch.zeros(1, 3, dtype=torch.bool))


@pytest.mark.parametrize("layer", [nn.Linear(8, 8), nn.MultiheadAttention(8, 2, kdim=4)])
def test_an_edit_cannot_separate_what_is_no_such_attention(layer: nn.Module) -> None:
    with pytest.raises(InputError, match=r"a structural edit of '0' cannot separate the layers of a "):
        apply_edits(nn.Sequential(layer), {"0": {"type": "SelfAttention"}})
