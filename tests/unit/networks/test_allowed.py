"""A network that only an artifact names is not imported: neither its module nor one that lies beside the artifact."""

import json
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from kondense.artifacts.model import Model, load_model, save_model
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import save_dataset
from kondense.files import ArtifactError
from kondense.networks.allowed import VARIABLE, allowing, check_allowed, is_imported
from kondense.networks.build import NetworkSpec, _makes_modules, build, factory
from kondense.networks.skeleton import check_size
from torch import nn

from tests.support.factories import Linear
from tests.support.toy_training import toy_dataset

ARGUMENTS = {"classes": 10, "channels": 1, "image_size": 8}
NAME = f"{Linear.__module__}:Linear"


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def model() -> Model:
    spec = NetworkSpec(NAME, ARGUMENTS)
    return Model(build(spec).eval(), spec)


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    save_model(tmp_path / "m", model)
    return tmp_path / "m"


def test_what_an_artifact_names_needs_the_users_word(model: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "m", model)
    for load in (lambda: load_model(tmp_path / "m"), lambda: unpack_model(pack_model(model))):
        with pytest.raises(ArtifactError, match=f"{NAME}' is named by the artifact alone.*--allow-network"):
            load()
        for names in ({"networks": [NAME]}, {"modules": [Linear.__module__]}, {"modules": ["tests"]}):
            with allowing(**names):
                assert load().network.name == NAME
        with allowing(modules=["tests.unit.networks.fact"]), pytest.raises(ArtifactError, match="alone"):
            load()  # a part of a name is no package


def test_nothing_is_imported_before_the_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    """A module beside the artifact, in the working directory, runs when it is imported: it must not be."""
    (tmp_path / "beside.py").write_text("from pathlib import Path\nPath('marker').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    save_model(tmp_path / "m", model)
    text = (tmp_path / "m" / "model.json").read_text()
    (tmp_path / "m" / "model.json").write_text(text.replace(NAME, "beside:Net"))
    with pytest.raises(ArtifactError, match="'beside:Net' is named by the artifact alone"):
        load_model(tmp_path / "m")
    assert not (tmp_path / "marker").exists()
    assert "beside" not in sys.modules


@pytest.mark.parametrize("name", ["lenet5", "torchvision:resnet18", ""])
def test_names_that_mean_no_import_need_no_leave(name: str) -> None:
    assert not is_imported(name)
    check_allowed(name)
    with allowing(networks=[name]), pytest.raises(ValueError, match="alone"):
        check_allowed("lenet5:anything")


def factories_of(module: types.ModuleType) -> Iterator[str]:
    """Yield the names of what the guard of earlier versions took for factories of networks."""
    for attribute, candidate in list(vars(module).items()):
        try:
            if _makes_modules(candidate):
                yield f"{module.__name__}:{attribute}"
        except (TypeError, ValueError, AttributeError):  # signatures and annotations that cannot be read
            continue


def test_no_factory_of_any_library_is_admitted(tmp_path: Path, model: Model) -> None:
    """All that is imported in this process, of torch, torchvision, timm and others, and all names of their lists."""
    for module in ("timm", "torchvision.models", "torch.hub", "torch.jit", "torch.fx", "torch.export", "torch.package"):
        pytest.importorskip(module)
    modules = [module for module in list(sys.modules.values()) if isinstance(module, types.ModuleType)]
    names = {name for module in modules for name in factories_of(module)}
    tops = {name.partition(".")[0].partition(":")[0] for name in names}
    assert len(names) > 2000
    assert {"torch", "torchvision", "timm", "kondense"} <= tops
    for name in names:
        with pytest.raises(ValueError, match="alone|network must be one of"):
            check_allowed(name)
            factory(name)  # a library's own name is a prefix of networks, which only its list names
    save_model(tmp_path / "m", model)
    text = (tmp_path / "m" / "model.json").read_text()
    for name in [*sorted(names)[:: len(names) // 5], "torch.hub:load", "torch.jit:load", "timm.models:create_model"]:
        (tmp_path / "m" / "model.json").write_text(text.replace(NAME, name))
        with pytest.raises(ArtifactError, match="is named by the artifact alone"):
            load_model(tmp_path / "m")


@pytest.mark.parametrize(
    "name",
    [
        "timm:hf-hub:someone/model",
        "timm:hf_hub:someone/model",
        "timm:local-dir:/tmp/model",
        "timm:create_model",
        "timm:../../model",
        "torchvision:get_model",
        "torchvision:fasterrcnn_resnet50_fpn",
        "torchvision:quantized_resnet18",
        "torchvision:__class__",
        "torchvision:hub.load",
    ],
)
def test_libraries_build_what_their_lists_name(name: str, tmp_path: Path, model: Model) -> None:
    save_model(tmp_path / "m", model)
    text = (tmp_path / "m" / "model.json").read_text()
    (tmp_path / "m" / "model.json").write_text(text.replace(NAME, name))
    with pytest.raises(ArtifactError, match="network must be one of [0-9]+, such as"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "arguments", "rule"),
    [
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "must take .*unexpected keyword argument 'weights'"),
        ("torchvision:resnet18", {"pretrained": True}, "must take .*unexpected keyword argument 'pretrained'"),
        ("timm:resnet18", {"pretrained": True}, "must take .*unexpected keyword argument 'pretrained'"),
        ("timm:resnet18", {"checkpoint_path": "/x"}, "must take .*unexpected keyword argument 'checkpoint_path'"),
        ("timm:resnet18", {"classes": 10**9}, "classes of network 'timm:resnet18' must be a whole number"),
        ("lenet5", {"classes": True}, "classes of network 'lenet5' must be a whole number above 0"),
        ("lenet5", {"channels": 1e3}, "channels of network 'lenet5' must be a whole number above 0"),
        ("lenet5", {"width": 1e9}, "width of network 'lenet5' must be a number above 0 and at most 64"),
        ("lenet5", {"image_size": [28, 10**6]}, "image_size of network 'lenet5' must be a whole number"),
        ("lenet5", {"image_size": []}, "image_size of network 'lenet5' must be a whole number"),
        ("lenet300", {"width": 60}, "the weights must hold 'fc1.weight'"),
    ],
)
def test_arguments_of_an_artifact_are_bounded(name, arguments, rule, saved: Path, monkeypatch) -> None:
    content = json.loads((saved / "model.json").read_text())
    content["network"] = {"name": name, "arguments": ARGUMENTS | arguments}
    (saved / "model.json").write_text(json.dumps(content))
    monkeypatch.setattr("torch.nn.init.kaiming_uniform_", no_memory)
    with pytest.raises(ArtifactError, match=rule):
        load_model(saved)


def test_a_base_network_is_no_larger_than_pruning_explains():
    network = nn.Linear(2**14, 2**13, bias=False, device="meta")  # 2^27 weights
    check_size(network, 2**27 // 64)
    with pytest.raises(ValueError, match="the base network of 2097151 stored weights must have at most 134217664, but"):
        check_size(network, 2**27 // 64 - 1)
    check_size(nn.Linear(2**13, 2**13, bias=False, device="meta"), 1)  # a small one always may
    with pytest.raises(ValueError, match="at most 67108864, but has 67117056"):
        check_size(nn.Linear(2**13, 2**13, device="meta"), 1)


def no_memory(tensor, **_):
    assert tensor.is_meta, f"a network with {list(tensor.shape)} was built before its weights were compared"


def test_commands_import_no_library_from_the_working_directory(saved: Path) -> None:
    """Stages run where artifacts may lie, and an artifact may name a library that is not installed."""
    top = saved.parent
    save_dataset(top / "data", toy_dataset(train=8, size=8))
    (saved / "model.json").write_text((saved / "model.json").read_text().replace(NAME, "timm:resnet18"))
    for name in ("timm", "safetensors"):
        (top / name).mkdir()
        (top / name / "__init__.py").write_text(f"open('marker', 'a').write('{name} ')")
    flags = ["train", "--dataset-dir", "data", "--model-dir", "out", "--import-uri", "m"]
    command = [sys.executable, "-m", "kondense.cli", *flags]
    done = subprocess.run(command, cwd=top, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "does not describe a model: " in done.stderr
    assert not (top / "marker").exists()


def test_code_beside_a_model_is_refused(saved: Path) -> None:
    (saved / "extra.py").write_text("raise SystemExit")
    with pytest.raises(ArtifactError, match="must hold only files that it gives digests of, but holds 'extra.py' too"):
        load_model(saved)


@pytest.mark.parametrize("name", ["os:system", "torch.hub:load", "torch.jit:load", "builtins:exec"])
def test_no_library_is_open(name: str) -> None:
    with pytest.raises(ValueError, match="alone"):
        check_allowed(name)
