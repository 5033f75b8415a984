"""The exit codes and texts of a stage's command: bad input 2, shortfall 3, failure 1; a bug keeps its traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

STAGE = """
import sys, types
from kondense import cli, errors
from kondense.store.store import StoreError
stage = types.ModuleType("kondense.data_prep.stage")
def run(config, *, dataset_dir):
    raise {error}
stage.run = run
sys.modules["kondense.data_prep.stage"] = stage
sys.exit(cli.main(["data_prep", "--dataset-name", "digits", "--dataset-dir", sys.argv[1]]))
"""
BARE = """
import builtins, sys, types
from kondense_pipelines.errors import reported
with reported():
    raise {error}
"""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("errors.InputError('limit must be 1.')", 2),
        ("errors.ShortfallError('only 3 % were\\nreached.')", 3),
        ("errors.KondenseError('no luck.')", 1),
        ("StoreError('the store is full.')", 1),
        ("OSError(28, 'No space left on device')", 1),
    ],
)
def test_an_expected_error_is_one_line(error: str, code: int, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", STAGE.format(error=error), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == code
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("error", ["KeyError('weight')", "ValueError('a bug')", "RuntimeError('a bug')"])
@pytest.mark.parametrize("program", [STAGE, BARE], ids=["stage", "kondense"])
def test_a_bug_keeps_its_traceback(program: str, error: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", program.format(error=error), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr and error.partition("(")[0] in result.stderr


@pytest.mark.parametrize(("module", "extra"), [("kfp", "run"), ("kfp.kubernetes", "cluster"), ("minio", "run")])
def test_a_missing_extra_is_named(module: str, extra: str) -> None:
    error = f"ModuleNotFoundError('No module', name={module!r})"
    program = BARE.replace("with reported():", "from kondense.errors import extras_named\nwith extras_named():")
    result = subprocess.run(
        [sys.executable, "-c", program.format(error=error)], capture_output=True, text=True, check=False
    )
    assert f"the module {module} must be installed, but is not: pip install 'kondense[{extra}]'." in result.stderr
    assert result.returncode == 1
