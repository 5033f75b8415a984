"""Optuna's samplers of several objectives. Runs in its own environment; see `process`."""

from typing import Any

import optuna
from serve import evaluate, serve

optuna.logging.set_verbosity(optuna.logging.ERROR)


def run(problem: dict[str, Any]) -> None:
    sampler = getattr(optuna.samplers, problem["sampler"])(seed=problem["seed"])
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)

    def objective(trial: optuna.Trial) -> list[float]:
        values = {p["name"]: trial.suggest_float(p["name"], p["low"], p["high"]) for p in problem["parameters"]}
        losses: list[float] = evaluate(values, problem["max"])
        return losses

    study.optimize(objective, n_trials=1_000_000)


serve(run)
