"""Time of `import kondense` beside `import numpy`, each in a fresh interpreter, in turns.

python -m benchmarks.imports --repeats 15``.
"""

import argparse
import statistics
import subprocess
import sys
import time

MODULES = ("kondense", "numpy")


def seconds(module: str) -> float:
    """Return the wall time of an interpreter that imports ``module`` and ends."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="interpreters per module")
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(parser.parse_args().repeats):
        for module in MODULES:
            times[module].append(seconds(module))
    medians = {module: statistics.median(values) for module, values in times.items()}
    for module, value in medians.items():
        print(f"import {module}: {1000 * value:.0f} ms (median of {len(times[module])})")
    print(f"ratio {medians['kondense'] / medians['numpy']:.2f}")


if __name__ == "__main__":
    main()
