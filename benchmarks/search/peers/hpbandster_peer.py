"""HpBandSter's BOHB, driven without its name server. Runs in its own environment; see `process`.

Two functions of its libraries, of a point each, take nearly all of its time and are replaced: same numbers, sooner.
"""

import random
from typing import Any

import ConfigSpace
import numpy as np
import scipy.stats
from hpbandster.core.dispatcher import Job
from hpbandster.optimizers.config_generators.bohb import BOHB
from scipy.special import ndtr, ndtri
from serve import evaluate, serve
from statsmodels.nonparametric.kernel_density import KDEMultivariate


def density(kde: KDEMultivariate, point: list[float]) -> float:
    """Return the product kernel density at one point: Gaussian for ordered axes, Aitchison-Aitken for the others."""
    if not hasattr(kde, "known_axes"):
        ordered = np.array([kind == "c" for kind in kde.var_type])
        values = np.array([max(len(np.unique(column)) - 1, 1) for column in kde.data.T])
        kde.known_axes = ordered, values, (np.sqrt(2 * np.pi) * kde.bw[ordered]).prod()
    ordered, values, scale = kde.known_axes
    x = np.asarray(point, dtype=float)
    near = np.exp(-0.5 * (((kde.data[:, ordered] - x[ordered]) / kde.bw[ordered]) ** 2).sum(axis=1)) / scale
    width = kde.bw[~ordered]
    same = np.where(kde.data[:, ~ordered] == x[~ordered], 1 - width, width / values[~ordered])
    return float((near * same.prod(axis=1)).sum() / len(kde.data))


def truncated_normal(low: float, high: float, loc: float, scale: float) -> float:
    """Return a draw by the inverse distribution, as the library does; `low` is at most 0 and `high` at least 0 here."""
    below, above = ndtr(low), ndtr(high)
    return float(loc + scale * ndtri(below + np.random.uniform() * (above - below)))


KDEMultivariate.pdf = density
scipy.stats.truncnorm.rvs = truncated_normal


def run(problem: dict[str, Any]) -> None:
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
    iteration = 0
    while True:
        _bracket(generator, problem, levels, iteration)
        iteration += 1


def _bracket(generator: BOHB, problem: dict[str, Any], levels: int, iteration: int) -> None:
    halvings = levels - iteration % (levels + 1)
    count = (levels + 1) // (halvings + 1) * 3**halvings  # the package's bracket sizes
    alive: list[dict[str, object]] = []
    for rung in range(halvings + 1):
        resource = problem["max"] // 3 ** (halvings - rung)
        losses = []
        for config_number in range(count // 3**rung):
            config = generator.get_config(float(resource))[0] if rung == 0 else alive[config_number]
            loss = float(evaluate(config, resource))
            job = Job((iteration, rung, config_number), config=config, budget=float(resource))
            job.result, job.exception, job.timestamps = {"loss": loss}, None, {}
            generator.new_result(job)
            losses.append((loss, config_number, config))
        alive = [config for _, _, config in sorted(losses, key=lambda entry: entry[:2])]


serve(run)
