"""syne-tune's BOHB: kernel densities with asynchronous halving that stops trials. See `process`."""

import datetime
import random
from itertools import count
from typing import Any

import numpy as np
from serve import evaluate, serve
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, randint, uniform
from syne_tune.optimizer.baselines import BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision


def run(problem: dict[str, Any]) -> None:
    random.seed(problem["seed"])
    np.random.seed(problem["seed"])  # the package draws from the global generator
    space = {}
    for p in problem["parameters"]:
        numeric = randint if p["whole"] else uniform
        space[p["name"]] = choice(p["values"]) if p["values"] else numeric(p["low"], p["high"])
    scheduler = BOHB(
        space,
        metric="loss",
        time_attr="resource",
        max_t=problem["max"],
        grace_period=problem["min"],
        random_seed=problem["seed"],
    )
    for number in count():
        trial = Trial(number, scheduler.suggest().config, datetime.datetime.now())
        scheduler.on_trial_add(trial)
        resource = problem["min"]
        while True:
            result = {"loss": float(evaluate(trial.config, resource)), "resource": resource}
            if resource == problem["max"]:
                scheduler.on_trial_complete(trial, result)
                break
            if scheduler.on_trial_result(trial, result) != SchedulerDecision.CONTINUE:
                scheduler.on_trial_remove(trial)
                break
            resource *= 3


serve(run)
