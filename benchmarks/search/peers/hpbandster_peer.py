"""HpBandSter's BOHB, driven without its name server. Runs in its own environment; see `process`."""

import json
import random
import sys

import ConfigSpace
import numpy as np
from hpbandster.core.dispatcher import Job
from hpbandster.optimizers.config_generators.bohb import BOHB

problem = json.loads(sys.stdin.readline())
random.seed(problem["seed"])
np.random.seed(problem["seed"])  # the package draws from the global generator
space = ConfigSpace.ConfigurationSpace(seed=problem["seed"])
for p in problem["parameters"]:
    known = ConfigSpace.CategoricalHyperparameter(p["name"], p["values"]) if p["values"] else None
    numeric = ConfigSpace.UniformIntegerHyperparameter if p["whole"] else ConfigSpace.UniformFloatHyperparameter
    space.add_hyperparameter(known or numeric(p["name"], p["low"], p["high"]))
generator = BOHB(space)
levels = 0
while problem["min"] * 3 ** (levels + 1) <= problem["max"]:
    levels += 1


def evaluate(config: dict[str, object], resource: int, number: tuple[int, int, int]) -> float:
    values = {name: value.item() if hasattr(value, "item") else value for name, value in config.items()}
    print(json.dumps({"values": values, "resource": resource}), flush=True)
    loss = float(json.loads(sys.stdin.readline())["loss"])
    job = Job(number, config=config, budget=float(resource))
    job.result, job.exception, job.timestamps = {"loss": loss}, None, {}
    generator.new_result(job)
    return loss


iteration = 0
while True:
    halvings = levels - iteration % (levels + 1)
    count = (levels + 1) // (halvings + 1) * 3**halvings  # the package's bracket sizes
    alive = []
    for rung in range(halvings + 1):
        resource = problem["max"] // 3 ** (halvings - rung)
        losses = []
        for config_number in range(count // 3**rung):
            config = generator.get_config(float(resource))[0] if rung == 0 else alive[config_number]
            losses.append((evaluate(config, resource, (iteration, rung, config_number)), config_number, config))
        alive = [config for _, _, config in sorted(losses, key=lambda entry: entry[:2])]
    iteration += 1
