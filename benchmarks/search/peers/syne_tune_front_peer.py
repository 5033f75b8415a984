"""syne-tune's MO-ASHA: random configurations, stopped by their place among non-dominated ones. See `process`."""

import datetime
import random
from itertools import count
from typing import Any

import numpy as np
from serve import evaluate, serve
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import uniform
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

OBJECTIVES = ["first", "second"]


def run(problem: dict[str, Any]) -> None:
    random.seed(problem["seed"])
    np.random.seed(problem["seed"])  # the package draws from the global generator
    scheduler = MOASHA(
        {p["name"]: uniform(p["low"], p["high"]) for p in problem["parameters"]},
        metrics=OBJECTIVES,
        time_attr="resource",
        max_t=problem["max"],
        grace_period=problem["min"],
        reduction_factor=3,
        random_seed=problem["seed"],
    )
    for number in count():
        trial = Trial(number, scheduler.suggest().config, datetime.datetime.now())
        scheduler.on_trial_add(trial)
        resource = problem["min"]
        while True:
            losses = evaluate(trial.config, resource)
            result = {"resource": resource, **dict(zip(OBJECTIVES, map(float, losses), strict=True))}
            if resource == problem["max"]:
                scheduler.on_trial_complete(trial, result)
                break
            if scheduler.on_trial_result(trial, result) != SchedulerDecision.CONTINUE:
                scheduler.on_trial_remove(trial)
                break
            resource *= 3


serve(run)
