"""What must start fast or run without torch imports nothing heavy."""

import pkgutil
import subprocess
import sys

import kondense_pipelines
import pytest

FOUND = pkgutil.walk_packages(kondense_pipelines.__path__, "kondense_pipelines.")
MODULES = sorted(each.name for each in FOUND if not each.ispkg)
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "safetensors", "sklearn", "matplotlib")


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Return which of ``names`` a fresh interpreter has imported after ``code``."""
    script = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return result.stderr.splitlines()[-1].split()


def test_pipelines_import_no_torch() -> None:
    code = "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in MODULES)
    assert loaded(code, HEAVY) == []


def test_compiling_imports_no_torch() -> None:
    imports = "from kondense_pipelines.graphs.compress import make_compress\n"
    imports += "from kondense_pipelines.graphs.parameters import resolve, split"
    assert loaded(f"{imports}; make_compress(split(resolve('quick'))[0])", HEAVY) == []


@pytest.mark.parametrize(
    "code",
    ["import kondense_pipelines.cli.app", "from kondense_pipelines.graphs.parameters import resolve; resolve('quick')"],
)
def test_the_command_and_its_checks_import_no_kfp(code: str) -> None:
    assert loaded(code, (*HEAVY, "kfp", "grpc", "numpy")) == []


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["report", "--help"]])
def test_the_help_of_the_stages_command_imports_no_torch(arguments: list[str]) -> None:
    code = f"from kondense.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
    assert loaded(code, (*HEAVY, "kfp", "numpy")) == []
