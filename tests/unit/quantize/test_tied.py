"""Methods that train keep tied weights tied, and their files load with the same outputs."""

import dataclasses

import pytest
import torch
from kondense.artifacts.images import Images
from kondense.artifacts.model import Model
from kondense.artifacts.ties import tied_names
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import Dataset, Split
from kondense.networks.build import NetworkSpec, build
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize

SPEC = NetworkSpec("tests.support.factories:Tied", {})


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", "tests.support.factories")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("qat", {}),
        ("weight_only", {"fine_tune": True, "bits": 4}),
        ("codebook", {"fine_tune": True, "bits": 2}),
        ("mixed", {"arithmetic": "integer", "bits": 4}),
        ("fixed_point", {}),
        ("rate_distortion", {"max_validation_drop": 1.0}),
    ],
)
def test_tied_weights_stay_tied(method: str, options: dict[str, object]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 1, 6, 6), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(24) % 3)
    data = Dataset("x", ("a", "b", "c"), (0.5,), (0.25,), 0, "made by a test", split, split, split)
    model = Model(build(SPEC).eval(), SPEC, images=Images.of(data))
    config = QuantizeConfig(
        method=method, epochs=1, batch_size=12, calibration_images=24, learning_rate=0.1, device="cpu", **options
    )
    result = quantize(model, data, config).model
    assert result.quantized
    assert tied_names(result.module) == tied_names(model.module)
    loaded = unpack_model(pack_model(dataclasses.replace(result)))
    assert tied_names(loaded.module) == tied_names(model.module)
    batch = data.normalise(images)
    with torch.no_grad():
        assert torch.equal(loaded.module(batch), result.module(batch))
