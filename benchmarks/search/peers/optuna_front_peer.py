"""Optuna's samplers of several objectives. Runs in its own environment; see `process`."""

import json
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
problem = json.loads(sys.stdin.readline())
sampler = getattr(optuna.samplers, problem["sampler"])(seed=problem["seed"])
study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)


def objective(trial: optuna.Trial) -> list[float]:
    values = {p["name"]: trial.suggest_float(p["name"], p["low"], p["high"]) for p in problem["parameters"]}
    print(json.dumps({"values": values, "resource": problem["max"]}), flush=True)
    return json.loads(sys.stdin.readline())["losses"]


study.optimize(objective, n_trials=1_000_000)
