"""A network that only an artifact names is not imported: neither its module nor one that lies beside the artifact."""

import sys
from pathlib import Path

import pytest
from kondense.artifacts.model import Model, load_model, save_model
from kondense.codec.model_file import pack_model, unpack_model
from kondense.files import ArtifactError
from kondense.networks.allowed import VARIABLE, allowing, check_allowed, is_imported
from kondense.networks.build import NetworkSpec, build

from tests.support.factories import Linear

ARGUMENTS = {"classes": 10, "channels": 1, "image_size": 8}
NAME = f"{Linear.__module__}:Linear"


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def model() -> Model:
    spec = NetworkSpec(NAME, ARGUMENTS)
    return Model(build(spec).eval(), spec)


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


@pytest.mark.parametrize("name", ["os:system", "torch.hub:load", "torch.jit:load", "builtins:exec"])
def test_no_library_is_open(name: str) -> None:
    with pytest.raises(ValueError, match="alone"):
        check_allowed(name)
