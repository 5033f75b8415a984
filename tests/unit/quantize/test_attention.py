"""The projections of attentions are quantized like linear layers; onnxruntime and nn.MultiheadAttention judge."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from kondense.artifacts.attention import SelfAttention
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
    assert read_json(tmp_path / "model" / "model.json", format_version=(1, 2, 3))["format_version"] == 3
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


@pytest.mark.parametrize("way", ["other keys", "masked", "weights"])
def test_an_attention_that_does_more_keeps_its_form(way: str) -> None:
    module = Attending(batch_first=True, bias=True, way=way).eval()
    assert separate_attention(module, probes((1, 8, 8))) == []
    assert type(module.attention) is nn.MultiheadAttention


def test_a_separated_attention_refuses_a_mask_and_other_keys() -> None:
    attention, values = SelfAttention(nn.MultiheadAttention(8, 2, batch_first=True)), torch.zeros(1, 3, 8)
    with pytest.raises(InputError, match="must be called on one sequence, without a mask"):
        attention(values, values + 1, values, need_weights=False)
    with pytest.raises(InputError, match="must be called on one sequence, without a mask"):
        attention(values, values, values, need_weights=False, attn_mask=torch.ones(3, 3, dtype=torch.bool))


@pytest.mark.parametrize("layer", [nn.Linear(8, 8), nn.MultiheadAttention(8, 2, kdim=4)])
def test_an_edit_cannot_separate_what_is_no_such_attention(layer: nn.Module) -> None:
    with pytest.raises(InputError, match=r"a structural edit of '0' cannot separate the layers of a "):
        apply_edits(nn.Sequential(layer), {"0": {"type": "SelfAttention"}})
