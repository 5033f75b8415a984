"""Optuna: multivariate TPE with HyperbandPruner. Runs in its own environment; see `process`."""

from typing import Any

import optuna
from serve import evaluate, serve

optuna.logging.set_verbosity(optuna.logging.ERROR)


def draw(trial: optuna.Trial, p: dict[str, Any]) -> object:
    if p["values"]:
        return trial.suggest_categorical(p["name"], p["values"])
    return (trial.suggest_int if p["whole"] else trial.suggest_float)(p["name"], p["low"], p["high"])


def run(problem: dict[str, Any]) -> None:
    def objective(trial: optuna.Trial) -> float:
        values = {p["name"]: draw(trial, p) for p in problem["parameters"]}
        resource = problem["min"]
        while True:
            loss = float(evaluate(values, resource))
            trial.report(loss, resource)
            if resource == problem["max"]:
                return loss
            if trial.should_prune():
                raise optuna.TrialPruned
            resource *= 3

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=problem["seed"], multivariate=True),
        pruner=optuna.pruners.HyperbandPruner(problem["min"], problem["max"], reduction_factor=3),
        study_name=f"seed-{problem['seed']}",  # by default it is random, and brackets are drawn by its hash
    )
    study.optimize(objective, n_trials=1_000_000)


serve(run)
