"""SMAC: random forest and Hyperband (MultiFidelityFacade). Runs in its own environment; see `process`."""

import tempfile
from pathlib import Path
from typing import Any

from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
from serve import evaluate, serve
from smac import MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialValue


def run(problem: dict[str, Any]) -> None:
    space = ConfigurationSpace(seed=problem["seed"])
    for p in problem["parameters"]:
        numeric = Integer if p["whole"] else Float
        known = Categorical(p["name"], p["values"]) if p["values"] else None
        space.add(known or numeric(p["name"], (p["low"], p["high"])))
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            deterministic=True,
            n_trials=1_000_000,
            min_budget=problem["min"],
            max_budget=problem["max"],
            seed=problem["seed"],
            output_directory=Path(folder),
        )
        facade = MultiFidelityFacade(scenario, lambda config, seed, budget: 0.0, overwrite=True, logging_level=False)
        while True:
            trial = facade.ask()
            loss = float(evaluate(dict(trial.config), trial.budget))
            facade.tell(trial, TrialValue(cost=loss), save=False)


serve(run)
