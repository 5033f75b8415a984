"""Random configurations that have not been issued before."""

import zlib
from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from kondense.search.ledger import digest
from kondense.search.space import SearchSpace

ATTEMPTS = 64  # draws before a finite space is searched in order
SCANNED = 20_000  # points of a finite space that are tried in order


def generator(seed: int, experiment: str, bracket: int, config: int) -> np.random.Generator:
    """Return the random generator of one configuration, the same in every process."""
    return np.random.default_rng([seed, zlib.crc32(experiment.encode()), bracket, config])


def seed_of(settings: Mapping[str, str], seed: int) -> int:
    """Return the setting `random_state` if it is set, else `seed`."""
    return int(float(settings["random_state"])) if "random_state" in settings else seed


def draw_random(space: SearchSpace, rng: np.random.Generator, issued: Collection[str]) -> dict[str, str]:
    """Return a configuration drawn from the space's distributions, a new one while there are any.

    Args:
        space: the parameters to draw.
        rng: the random generator of this configuration.
        issued: digests of the issued configurations.
    """
    fresh = first_new(space, space.sample(rng, 1), issued)
    if fresh is None:
        fresh = first_new(space, space.sample(rng, ATTEMPTS), issued)
    return fresh if fresh is not None else _scan(space, rng, issued)


def first_new(
    space: SearchSpace,
    unit: NDArray[np.float64],
    issued: Collection[str],
    again: Callable[[str], bool] | None = None,
) -> dict[str, str] | None:
    """Return the first of unit-cube rows [N, D] whose configuration is new; None if none is.

    Args:
        space: the parameters.
        unit: the rows.
        issued: digests of configurations that are not new.
        again: returns whether an issued one counts as new nevertheless, by its digest.
    """
    for row in unit:
        configuration = space.from_unit(row[np.newaxis])[0]
        known = digest(configuration)
        if known not in issued or (again is not None and again(known)):
            return configuration
    return None


def _scan(space: SearchSpace, rng: np.random.Generator, issued: Collection[str]) -> dict[str, str]:
    """Return the next new point of a finite space in order; any point once all have been issued."""
    size = space.size
    start = int(rng.integers(min(size, 2**63 - 1))) if size is not None else 0
    if size is None:  # 65 draws of a continuous space are all known: its range has hardly any other numbers
        return space.from_unit(space.sample(rng, 1))[0]
    for offset in range(min(size, SCANNED)):
        point = space.point((start + offset) % size)
        if digest(point) not in issued:
            return point
    return space.point(start)
