"""DEHB. Runs in its own environment; see `process`."""

import json
import sys
import tempfile

from ConfigSpace import (
    CategoricalHyperparameter,
    ConfigurationSpace,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from dehb import DEHB

problem = json.loads(sys.stdin.readline())
channel, sys.stdout = sys.stdout, sys.stderr  # the package prints
space = ConfigurationSpace(seed=problem["seed"])
for p in problem["parameters"]:
    known = CategoricalHyperparameter(p["name"], p["values"]) if p["values"] else None
    numeric = UniformIntegerHyperparameter if p["whole"] else UniformFloatHyperparameter
    space.add(known or numeric(p["name"], p["low"], p["high"]))


def evaluate(config: object, fidelity: float) -> dict[str, float]:
    values = {name: value.item() if hasattr(value, "item") else value for name, value in dict(config).items()}
    print(json.dumps({"values": values, "resource": round(fidelity)}), file=channel, flush=True)
    return {"fitness": float(json.loads(sys.stdin.readline())["loss"]), "cost": fidelity}


optimizer = DEHB(
    f=evaluate,
    cs=space,
    min_fidelity=problem["min"],
    max_fidelity=problem["max"],
    eta=3,
    n_workers=1,
    seed=problem["seed"],
    output_path=tempfile.mkdtemp(),
)
optimizer.run(fevals=1_000_000)
