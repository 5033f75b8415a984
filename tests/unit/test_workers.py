"""The memory of a test process is bounded, by the test's name; dear files come first."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from tests.support.workers import SECONDS, dearest_first

ROOT = Path(__file__).parents[2]
GROWS = """
import numpy as np

kept = []

def test_that_keeps_what_it_gets():
    for _ in range(80):
        kept.append(np.zeros(64 << 20, np.uint8))

def test_after_it():
    kept.clear()
"""


def test_a_test_that_keeps_what_it_gets_fails_by_its_name_and_the_next_one_passes(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.support.workers import limit_memory\n\nlimit_memory()\n")
    (tmp_path / "test_grows.py").write_text(GROWS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "test_grows.py::test_that_keeps_what_it_gets - numpy._core._exceptions._ArrayMemoryError" in done.stdout
    assert "1 failed, 1 passed" in done.stdout, done.stdout


def test_the_files_that_take_most_come_first_and_all_are_there() -> None:
    assert not [name for name in SECONDS if not (ROOT / name).is_file()]
    dear = sorted(SECONDS, key=lambda name: SECONDS[name])
    items = [SimpleNamespace(path=ROOT / name, name=name) for name in ("tests/a.py", *dear, "tests/b.py")]
    found = [item.name for item in dearest_first(items, ROOT)]  # type: ignore[arg-type]
    assert found[-2:] == ["tests/a.py", "tests/b.py"]
    assert found[0] == dear[-1]
