"""The picture of a part: every method's first figure by case, with the spread over the seeds."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed
from matplotlib import pyplot as plt

from benchmarks.compression.table import Row


def draw(part: str, rows: Sequence[Row], directory: Path) -> None:
    """Write PART.png from the rows of a part."""
    cases = list(dict.fromkeys((row["network"], row["case"]) for row in rows))
    figure, axes = plt.subplots(len(cases), 1, figsize=(9, 1 + 2.2 * len(cases)), squeeze=False)
    for axis, (network, case) in zip(axes[:, 0], cases, strict=True):
        _bars(axis, [row for row in rows if (row["network"], row["case"]) == (network, case)])
        axis.set_title(f"{network}: {case}", loc="left", fontsize=9)
    figure.tight_layout()
    figure.savefig(directory / f"{part}.png", dpi=120)
    plt.close(figure)


def _bars(axis: plt.Axes, rows: Sequence[Row]) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    name = "drop" if "drop" in rows[0]["figures"] else next(iter(rows[0]["figures"]))
    found = [[row["figures"][name] for row in rows if row["method"] == method] for method in methods]
    means = [statistics.fmean(numbers) for numbers in found]
    spreads = [statistics.stdev(numbers) if len(numbers) > 1 else 0.0 for numbers in found]
    colors = ["tab:blue" if method.startswith("kondense") else "tab:gray" for method in methods]
    axis.barh(methods, means, xerr=spreads, color=colors)
    axis.invert_yaxis()
    axis.set_xlabel("points below the teacher on the test split" if name == "drop" else name, fontsize=8)
    axis.tick_params(labelsize=8)
