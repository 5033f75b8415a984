"""Lottery tickets: what is rewound to an early epoch, against the same mask on another initialisation."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed
from kondense.artifacts.model import load_model
from kondense.prune.config import PruneConfig
from kondense.prune.stage import run
from matplotlib import pyplot as plt

from benchmarks.compression.setting import Entry, Setting
from benchmarks.compression.table import Row

EPOCHS, TICKETS, SPARSITY = 3, 4, 0.98


def kondense(setting: Setting) -> dict[str, float]:
    """Run the prune stage and return the validation accuracy, %, of every ticket and control by sparsity."""
    config = PruneConfig(
        method="lottery",
        sparsity=SPARSITY,
        steps=TICKETS,
        epochs=setting.epochs(EPOCHS),
        alpha=0.0,  # labels only, as in the papers
        seed=setting.seed,
        device=setting.profile.device,
    )
    pruned_dir = setting.directory / "pruned"
    run(config, dataset_dir=setting.dataset_dir, model_dir=setting.teacher_dir, pruned_dir=pruned_dir)
    tickets = load_model(pruned_dir).lineage[-1]["details"]["tickets"]
    return {
        f"{kind} {100 * entry['sparsity']:.1f} %": 100.0 * entry[kind]
        for entry in tickets
        for kind in ("ticket", "control")
    }


ENTRIES = [Entry("lenet300", f"{TICKETS} sparsities, {EPOCHS} epochs each, validation", "kondense lottery", kondense)]


def draw(rows: Sequence[Row], directory: Path) -> None:
    """Write lottery.png: accuracy over sparsity of tickets and controls, with the spread over the seeds."""
    figure, axis = plt.subplots(figsize=(7, 4))
    names = list(rows[0]["figures"])
    for kind, color in (("ticket", "tab:blue"), ("control", "tab:gray")):
        chosen = [name for name in names if name.startswith(kind)]
        found = [[row["figures"][name] for row in rows] for name in chosen]
        spreads = [statistics.stdev(numbers) if len(numbers) > 1 else 0.0 for numbers in found]
        sparsities = [float(name.split()[1]) for name in chosen]
        means = [statistics.fmean(numbers) for numbers in found]
        axis.errorbar(sparsities, means, yerr=spreads, label=kind, color=color, marker="o", capsize=3)
    axis.set_xlabel("sparsity, %")
    axis.set_ylabel("accuracy on the validation split, %")
    axis.legend()
    figure.tight_layout()
    figure.savefig(directory / "lottery.png", dpi=120)
    plt.close(figure)
