"""The picture of two fronts of compressed models: bytes and latency across, accuracy up, both of the same models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed
from kondense.candidates import TEACHER
from matplotlib import pyplot as plt
from matplotlib import ticker

INK, MUTED, GRID, ACCENT = "#1d2733", "#8793a1", "#e6eaee", "#0b62a8"
AXES = {"bytes": ("size of weights.kz, kB", 1e-3), "latency_ms": ("latency of one image, µs", 1e3)}
GROUPS = {"candidates": ("the run's candidates", MUTED, "s"), "search": ("the front of the search", ACCENT, "o")}
SLANT, LINE = 40, 13.0  # of the names: degrees; points between two of them
ROOM = 0.45  # above the models, for the names: share of the height below
STYLE = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture: a row per network, a column per cost."""
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(len(report), 2, figsize=(11, 4.4 * len(report)), squeeze=False, sharey="row")
        for row, (network, found) in zip(grid, report.items(), strict=True):
            for axis, cost in zip(row, AXES, strict=True):
                _front(axis, found, cost)
            row[0].set_ylabel("accuracy on the test split, %")
            row[0].text(0, 1.11, network, transform=row[0].transAxes, fontsize=13, fontweight="bold")
            row[0].text(0, 1.04, _sentence(found), transform=row[0].transAxes, color=MUTED)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncol=3, frameon=False)
        figure.tight_layout(h_pad=3)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _sentence(found: Mapping[str, Any]) -> str:
    epochs, volumes = found["epochs"], found["hypervolume"]
    return (
        f"{found['ratio']:.2f} times the hypervolume ({volumes['search']:.1f} to {volumes['candidates']:.1f}), "
        f"{epochs['search']} epochs of training to {epochs['candidates']}"
    )


def _front(axis: plt.Axes, found: Mapping[str, Any], cost: str) -> None:
    """Draw the models of both, what each group reaches at each cost, and the teacher."""
    title, factor = AXES[cost]
    figures, teacher = found["figures"], found["figures"][TEACHER]
    shown = [each["accuracy"] for each in figures.values()]
    bottom = max(min(shown), teacher["accuracy"] - 10) - 0.6
    edge = factor * max(each[cost] for each in figures.values())
    for group, (label, color, marker) in GROUPS.items():
        models = {name: (factor * figures[name][cost], figures[name]["accuracy"]) for name in found["groups"][group]}
        points = zip(*models.values(), strict=True)
        axis.scatter(*points, s=34, c=color, marker=marker, edgecolors="white", label=label, zorder=3)
        across, up = zip(*_stair(sorted(models.values()), edge), strict=True)
        axis.step(across, up, where="post", color=color, lw=1.4, zorder=2)
        axis.fill_between(across, bottom, up, step="post", color=color, alpha=0.06, lw=0, zorder=1)
    axis.scatter(factor * teacher[cost], teacher["accuracy"], s=90, c=INK, marker="*", label="the teacher", zorder=4)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(ticker.LogLocator(base=2, subs=(1.0, 1.5) if cost == "latency_ms" else (1.0,)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel(title)
    axis.set_ylim(bottom, max(shown) + ROOM * (max(shown) - bottom))
    candidates = found["groups"]["candidates"]
    _name(axis, {name: (factor * figures[name][cost], figures[name]["accuracy"]) for name in candidates})
    axis.grid(color=GRID, lw=0.6)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)


def _stair(points: list[tuple[float, float]], edge: float) -> list[tuple[float, float]]:
    """Return the best accuracy up to each cost, to the right edge."""
    stair: list[tuple[float, float]] = []
    for point in points:
        if not stair or point[1] > stair[-1][1]:
            stair.append(point)
    return [*stair, (edge, stair[-1][1])]


def _name(axis: plt.Axes, models: Mapping[str, tuple[float, float]]) -> None:
    """Write the names above the points, slanted and moved to the right where they would cover each other."""
    scale = 72 / axis.figure.dpi  # points of type for each pixel
    taken = -LINE
    for name, point in sorted(models.items(), key=lambda each: each[1]):
        at = scale * axis.transData.transform(point)[0]
        taken = max(at, taken + LINE)
        offset, line = (taken - at + 1, 6), {"arrowstyle": "-", "color": MUTED, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
        axis.annotate(
            name,
            point,
            xytext=offset,
            textcoords="offset points",
            rotation=SLANT,
            rotation_mode="anchor",
            fontsize=7,
            color=MUTED,
            arrowprops=line if taken > at else None,
        )
