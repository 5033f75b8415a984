"""DEHB. Runs in its own environment; see `process`."""

import tempfile
from typing import Any

from ConfigSpace import (
    CategoricalHyperparameter,
    ConfigurationSpace,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from dehb import DEHB
from serve import evaluate, serve


def run(problem: dict[str, Any]) -> None:
    space = ConfigurationSpace(seed=problem["seed"])
    for p in problem["parameters"]:
        known = CategoricalHyperparameter(p["name"], p["values"]) if p["values"] else None
        numeric = UniformIntegerHyperparameter if p["whole"] else UniformFloatHyperparameter
        space.add(known or numeric(p["name"], p["low"], p["high"]))
    with tempfile.TemporaryDirectory() as folder:
        optimizer = DEHB(
            f=lambda config, fidelity: {"fitness": evaluate(dict(config), fidelity), "cost": fidelity},
            cs=space,
            min_fidelity=problem["min"],
            max_fidelity=problem["max"],
            eta=3,
            n_workers=1,
            seed=problem["seed"],
            output_path=folder,
        )
        optimizer.run(fevals=1_000_000)


serve(run)
