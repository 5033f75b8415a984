"""Names and descriptions for Kubeflow's pages."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kondense import version
from kondense_pipelines.cluster import naming
from kondense_pipelines.cluster.package import Package

NOW = datetime(2026, 11, 28, 18, 20)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    file = tmp_path / "compress.yaml"
    file.write_text("content")
    defaults: dict[str, Any] = {"dataset": "fashion_mnist", "network": "lenet5", "seed": 0, "space": []}
    declared = {name: {"defaultValue": value} for name, value in defaults.items()}
    root = {"inputDefinitions": {"parameters": declared}}
    return Package(file, {"pipelineInfo": {"name": "compress"}, "root": root}, {})


@pytest.mark.parametrize(
    ("revision", "short"),
    [
        ("0506b60c7a12", "0506b60"),
        ("0506b60c7a12-dirty", "0506b60-dirty"),
        ("v0.1.0-5-g0506b60c7a12", "0506b60"),
        ("v0.1.0-5-g0506b60c7a12-dirty", "0506b60-dirty"),
        ("v0.1.0", "v0.1.0"),
        ("unknown", "unknown"),
        ("8" * 64, "8888888"),
    ],
)
def test_a_short_revision(revision: str, short: str) -> None:
    assert naming.short_revision(revision) == short


def test_versions(package: Package) -> None:
    assert naming.version_name(package, "V0.1.0-5-gabc") == f"compress-v0-1-0-5-gab-{package.digest}"
    title = naming.version_title(package, "0506b60c7a12", ())
    assert title == f"{version.__version__} (0506b60)"
    second = naming.version_title(package, "0506b60c7a12", {title})
    assert second == f"{title[:-1]}, package {package.digest[:7]})"


def test_runs(package: Package) -> None:
    assert naming.run_title(package, {}, NOW) == "fashion_mnist lenet5 2026-11-28 18:20"
    assert naming.run_title(package, {"network": "resnet20"}, NOW) == "fashion_mnist resnet20 2026-11-28 18:20"
    assert naming.run_description(package, {"seed": 0}, "0506b60c7a12") == "source revision 0506b60; all defaults"
    told = naming.run_description(package, {"seed": 3, "network": "resnet20"}, "0506b60c7a12", caching=False)
    assert told == (f"source revision 0506b60, package {package.digest}, without the cache; network=resnet20, seed=3")
    long = naming.run_description(package, {"space": ["x" * 400]}, "0506b60c7a12")
    assert len(long) == naming.LONGEST
    assert long.endswith("...")


def test_the_source_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONDENSE_REVISION", "of the image")
    assert naming.source_revision() == "of the image"
    monkeypatch.setattr(version, "source_revision", lambda: "")
    assert len(naming.source_revision()) == 64
