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


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture: a row per network, a column per cost."""
    style = {"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "xtick.color": MUTED, "ytick.color": MUTED}
    with plt.rc_context(style):
        figure, grid = plt.subplots(len(report), 2, figsize=(10.5, 4.2 * len(report)), squeeze=False, sharey="row")
        for row, (network, found) in zip(grid, report.items(), strict=True):
            for axis, cost in zip(row, AXES, strict=True):
                _front(axis, found, cost)
            row[0].set_ylabel("accuracy on the test split, %")
            epochs, volumes = found["epochs"], found["hypervolume"]
            row[0].set_title(
                f"{network}: the search's front has {found['ratio']:.2f} times the hypervolume of the run's candidates"
                f" ({volumes['search']:.0f} to {volumes['candidates']:.0f}), with {epochs['search']} epochs to"
                f" {epochs['candidates']}",
                loc="left",
                fontsize=10,
                pad=12,
            )
        grid[0, 1].legend(loc="lower right", frameon=False, fontsize=8)
        figure.tight_layout(h_pad=2.5)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _front(axis: plt.Axes, found: Mapping[str, Any], cost: str) -> None:
    """Draw the models of both, each group's staircase, and the teacher."""
    title, factor = AXES[cost]
    figures = found["figures"]
    teacher = figures[TEACHER]
    axis.axhline(teacher["accuracy"], color=GRID, zorder=0)
    for name, color, marker in (("candidates", MUTED, "s"), ("search", ACCENT, "o")):
        models = [figures[each] for each in found["groups"][name]]
        points = sorted((factor * each[cost], each["accuracy"]) for each in models)
        label = {"candidates": "the run's candidates", "search": "the front of the search"}[name]
        axis.scatter(
            *zip(*points, strict=True), s=30, c=color, marker=marker, edgecolors="white", label=label, zorder=3
        )
        stair: list[tuple[float, float]] = []
        for point in points:
            if not stair or point[1] > stair[-1][1]:
                stair.append(point)
        edge = factor * max(teacher[cost], *(each[cost] for each in figures.values()))
        axis.step(*zip(*[*stair, (edge, stair[-1][1])], strict=True), where="post", color=color, lw=1.4, zorder=2)
        if name == "candidates":
            for each in found["groups"][name]:
                point = (factor * figures[each][cost], figures[each]["accuracy"])
                axis.annotate(each, point, xytext=(5, -9), textcoords="offset points", fontsize=6.5, color=MUTED)
    axis.scatter(factor * teacher[cost], teacher["accuracy"], s=80, c=INK, marker="*", label="the teacher", zorder=4)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}" if value < 1 else f"{value:.0f}"))
    axis.set_xlabel(title)
    shown = [each["accuracy"] for each in figures.values()]
    axis.set_ylim(max(min(shown), teacher["accuracy"] - 10) - 0.4, max(shown) + 0.6)
    axis.grid(color=GRID, lw=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)
