"""The test processes of ``make test``: what memory each may take, and which files it is given first."""

import gc
import resource
from collections.abc import Iterable
from pathlib import Path

import pytest

# Of a worker and of each process that it starts; a worker with all libraries has 1.1 GiB. Linux counts what is private
# and can be written (VmData), so that maps of files are free. Who asks for more gets a MemoryError, in the test's name.
MEMORY_BYTES = 4 << 30

# Processor seconds of the files that take most, children included. With two workers the dear ones must not be left for
# the end, when one worker has nothing else to do.
SECONDS = {
    "tests/integration/test_compress.py": 54,
    "tests/integration/test_examples.py": 45,
    "tests/e2e/test_cluster_dry_run.py": 39,
    "tests/unit/prune/test_networks.py": 31,
    "tests/unit/quantize/rate_distortion/test_rate_distortion.py": 29,
    "tests/integration/test_strict_kfp.py": 26,
    "tests/unit/trial/test_trial.py": 25,
    "tests/integration/test_recipes.py": 21,
    "tests/unit/deploy/test_register.py": 19,
    "tests/integration/test_argo.py": 14,
    "tests/unit/prune/test_accuracy_bound.py": 10,
    "tests/unit/prune/test_constrained.py": 9,
    "tests/integration/test_refresh.py": 9,
}


def is_worker(config: pytest.Config) -> bool:
    """Tell whether this process is one of pytest-xdist's workers."""
    return hasattr(config, "workerinput")


def limit_memory() -> None:
    """Let this process and its children take at most MEMORY_BYTES each."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, most))


def collect_rarely() -> None:
    """Keep the garbage collector from what has been imported: a seventh of a worker's time went to looking it over."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def dearest_first(items: Iterable[pytest.Item], root: Path) -> list[pytest.Item]:
    """Return the tests, those of the files that take most first; all else keeps its order."""
    return sorted(items, key=lambda item: -SECONDS.get(item.path.relative_to(root).as_posix(), 0))
