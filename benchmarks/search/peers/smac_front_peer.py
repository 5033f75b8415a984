"""SMAC's ParEGO with random forests, at the maximum resource. Runs in its own environment; see `process`.

Its Hyperband ends with an assertion where it compares trials of several objectives at two resources.
"""

import tempfile
from pathlib import Path
from typing import Any

from ConfigSpace import ConfigurationSpace, Float
from serve import evaluate, serve
from smac import HyperparameterOptimizationFacade, Scenario
from smac.multi_objective.parego import ParEGO
from smac.runhistory.dataclasses import TrialValue


def run(problem: dict[str, Any]) -> None:
    space = ConfigurationSpace(seed=problem["seed"])
    for p in problem["parameters"]:
        space.add(Float(p["name"], (p["low"], p["high"])))
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            objectives=["first", "second"],
            deterministic=True,
            n_trials=1_000_000,
            seed=problem["seed"],
            output_directory=Path(folder),
        )
        facade = HyperparameterOptimizationFacade(
            scenario,
            lambda config, seed: [0.0, 0.0],
            multi_objective_algorithm=ParEGO(scenario),
            overwrite=True,
            logging_level=False,
        )
        while True:
            trial = facade.ask()
            losses = [float(loss) for loss in evaluate(dict(trial.config), problem["max"])]
            facade.tell(trial, TrialValue(cost=losses), save=False)


serve(run)
