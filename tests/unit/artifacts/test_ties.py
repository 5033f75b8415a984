"""Tied and computed weights: kept tied, baked in, or refused, from the network to the loaded artifact."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kondense.artifacts.identity import directory_identity
from kondense.artifacts.model import Model, load_model, model_identity, save_model
from kondense.artifacts.reparametrized import baked_copy, reparametrized
from kondense.artifacts.tensors import read_tensors
from kondense.artifacts.ties import owners, shared_layers, tied_names
from kondense.codec.model_file import pack_model, unpack_model
from kondense.networks.build import NetworkSpec, build
from kondense.quantize import codebook, dynamic, weight_only
from kondense.quantize.static import static
from safetensors.torch import save_file
from torch import nn

HOME = "tests.support.factories"
TIED = NetworkSpec(f"{HOME}:Tied", {})
FIRST = {"b.weight": "a.weight", "c.weight": "a.weight", "head.weight": "embed.weight"}
IMAGES = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
WAYS = {
    "float": lambda model: model,
    "weight_only": lambda model: weight_only.quantize(model, bits=4),
    "codebook": lambda model: codebook.quantize(model, bits=2),
    "dynamic": dynamic.quantize,
    "static": lambda model: static.quantize(model, [IMAGES]),
    "learned": lambda model: static.quantize(model, [IMAGES], rounding_steps=3, bias_correction=True, equalize=True),
}


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONDENSE_ALLOW_NETWORK", HOME)


def tied() -> Model:
    return Model(build(TIED).eval(), TIED)


@pytest.mark.parametrize("way", WAYS)
def test_ties_are_kept_and_stored_once(way: str, tmp_path: Path) -> None:
    model = WAYS[way](tied())
    save_model(tmp_path / "model", model)
    stored = read_tensors(tmp_path / "model" / "weights.safetensors")
    assert not {*FIRST, "blocks.0.weight"} & stored.keys()
    assert directory_identity(tmp_path / "model") == model_identity(model)
    for loaded in (load_model(tmp_path / "model"), unpack_model(pack_model(model))):
        names = tied_names(loaded.module)
        assert FIRST.items() <= names.items() and names["blocks.0.weight"] == "again.weight"
        assert loaded.module.a.weight is loaded.module.c.weight
        assert loaded.quantized.keys() == model.quantized.keys()
        with torch.no_grad():
            assert torch.equal(loaded.module(IMAGES), model.module(IMAGES))


def test_a_fresh_process_loads_the_tied_model(tmp_path: Path) -> None:
    model = WAYS["static"](tied())
    save_model(tmp_path / "model", model)
    (tmp_path / "kz").write_bytes(pack_model(model))
    code = (
        "import sys, torch; from pathlib import Path; from kondense.codec.model_file import unpack_model;"
        "from kondense.artifacts.model import load_model; torch.manual_seed(0); torch.set_num_threads(1);"
        "x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0));"
        "a, b = load_model(Path('model')), unpack_model(Path('kz').read_bytes());"
        "assert torch.equal(a.module.eval()(x), b.module.eval()(x)); print(a.module(x).sum().item().hex())"
    )
    root = Path(__file__).parents[3]
    search = os.pathsep.join(map(str, (root, root / "components")))
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert float.fromhex(done.stdout.strip()) == pytest.approx(float(model.module(IMAGES).sum()), rel=1e-6)


def test_a_tie_that_the_user_made_after_the_factory_survives() -> None:
    model = Model(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), NetworkSpec(f"{HOME}:two_layers", {}))
    model.module[1].weight = model.module[0].weight
    loaded = unpack_model(pack_model(model)).module
    assert loaded[1].weight is loaded[0].weight


def test_what_the_factory_ties_and_the_model_does_not_is_untied() -> None:
    model = tied()
    model.module.b.weight = nn.Parameter(model.module.a.weight.detach() * 2)
    loaded = unpack_model(pack_model(model)).module
    assert torch.equal(loaded.b.weight, model.module.b.weight)
    assert torch.equal(loaded.a.weight, model.module.a.weight)


def test_an_artifact_from_before_ties_were_stored_is_readable(tmp_path: Path) -> None:
    import json

    model = tied()
    save_model(tmp_path / "model", model)
    state = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    save_file(state, tmp_path / "model" / "weights.safetensors")
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    del description["tied"]
    description["format_version"] = 1
    from kondense.files import sha256

    description["files"]["weights.safetensors"] = sha256(tmp_path / "model" / "weights.safetensors")
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    assert torch.equal(load_model(tmp_path / "model").module(IMAGES), model.module(IMAGES))


def test_memory_shared_by_different_parameters_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Linear(4, 4))
    module[1].weight = nn.Parameter(module[0].weight.data.flatten(1).t())
    with pytest.raises(ValueError, match="'0.weight' and '1.weight' share their memory"):
        Model(module, NetworkSpec("lenet5", {}))


def test_owners_and_holders() -> None:
    module = build(TIED)
    assert owners(module)["c"] == "a" and owners(module)["head"] == "embed"
    assert shared_layers(module) == {"a", "b", "c", "embed", "head"}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "new_weight_norm", "new_spectral_norm", "orthogonal"])
@pytest.mark.parametrize("trained", [False, True])
def test_computed_weights_are_baked_in(kind: str, trained: bool, tmp_path: Path) -> None:
    spec = NetworkSpec(f"{HOME}:Computed", {"kind": kind})
    module = build(spec).train()
    if trained:
        module(IMAGES).sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(0.1 * (parameter.grad if parameter.grad is not None else 0.0))
    module.eval()
    module(IMAGES)  # leaves a weight with a gradient's history behind
    model = Model(module, spec)
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model")
    assert reparametrized(module) and not reparametrized(loaded.module)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(IMAGES), module(IMAGES))
        for quantized in (dynamic.quantize(model), weight_only.quantize(loaded), static.quantize(model, [IMAGES])):
            assert torch.equal(unpack_model(pack_model(quantized)).module(IMAGES), quantized.module(IMAGES))


def test_pruned_by_torch_is_baked_in() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3))
    nn.utils.prune.l1_unstructured(module[0], "weight", 0.5)
    baked = baked_copy(module)
    assert list(baked.state_dict()) == ["0.bias", "0.weight"]
    assert (baked[0].weight == 0).float().mean() == pytest.approx(0.5)
    assert torch.equal(copy.deepcopy(baked)(IMAGES), module(IMAGES))
