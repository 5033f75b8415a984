"""The wheel and the images: what they hold, and that it is enough."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
PACKAGES = {"kondense": ROOT / "components" / "kondense", "kondense_pipelines": ROOT / "pipelines/kondense_pipelines"}

# Runs a module with the standard library, Kondense and the named packages only.
ALONE = """
import runpy, sys
allowed = {"kondense", "__main__", *sys.argv[1].split(","), *sys.stdlib_module_names}
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Only())
sys.argv = ["server", "--help"]
runpy.run_module("kondense.suggestion.server", run_name="__main__")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={"KONDENSE_REVISION": "0506b60c7a12"})
    return zipfile.ZipFile(next(directory.glob("*.whl")))


def test_the_wheel_holds_the_two_packages_and_their_data(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        f"{package}/{path.relative_to(directory)}"
        for package, directory in PACKAGES.items()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == expected | {"kondense/revision.txt"}
    assert wheel.read("kondense/revision.txt") == b"0506b60c7a12\n"


def test_the_wheel_has_the_version_and_the_command(wheel: zipfile.ZipFile) -> None:
    from kondense.version import __version__

    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    assert metadata == f"kondense-{__version__}.dist-info/METADATA"
    scripts = wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "kondense = kondense_pipelines.cli.app:main" in scripts


def test_only_the_extra_katib_conflicts_with_kfp() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    lines = {"": PROJECT["project"]["dependencies"], **extras}
    names = {extra: {Requirement(line).name for line in requirements} for extra, requirements in lines.items()}
    assert [extra for extra in names if "kubeflow-katib" in names[extra]] == ["katib"]
    assert not any("katib" in Requirement(line).extras for extra in ("", "run", "cluster") for line in lines[extra])


def requirements_of(names: list[str], pruned: set[str]) -> set[str]:
    """Return the installed distributions that ``names`` need, without the pruned ones."""
    pending, needed = list(names), set()
    while pending:
        name = canonicalize_name(pending.pop())
        if name in needed or name in pruned:
            continue
        needed.add(name)
        parsed = map(Requirement, importlib.metadata.requires(name) or [])
        pending += [each.name for each in parsed if not each.marker or each.marker.evaluate({"extra": ""})]
    return needed


def test_the_suggestion_image_has_all_that_the_server_imports() -> None:
    text = (ROOT / "images" / "suggestion" / "Dockerfile").read_text()
    assert "--only-group suggestion" in text
    pruned = set(re.findall(r"--prune (\S+)", text))
    needed = requirements_of(PROJECT["dependency-groups"]["suggestion"], pruned)
    assert not needed & {"torch", "kfp", "kubernetes"}
    modules = importlib.metadata.packages_distributions().items()
    allowed = [module for module, owners in modules if needed & {canonicalize_name(owner) for owner in owners}]
    command = [sys.executable, "-c", ALONE, ",".join(allowed)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--port" in result.stdout


def test_dockerfiles_pin_drop_root_and_have_no_entrypoint() -> None:
    for path in DOCKERFILES:
        text = path.read_text()
        assert text.count("FROM ${BASE_IMAGE} AS python") == 1
        assert "\nENTRYPOINT" not in text
        assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
        assert "org.opencontainers.image.revision" in text
        final = text[text.rindex("\nFROM ") :]
        assert "RUN" not in final and "secret" not in final  # nothing that a build needs is left in it
        assert "--frozen" in text
        assert "PYTHONPATH" not in text  # the wheel is installed


def test_images_build_from_what_dockerignore_lets_through() -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    for path in DOCKERFILES:
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.MULTILINE)
        sources = {source.partition("/")[0] for line in copied for source in line.split()}
        assert {"components", "pipelines", "uv.lock"} <= sources <= sent
