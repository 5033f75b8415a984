"""The problems of the search benchmark: shipped learning curves against new trainings, Hartmann's known minima."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor

import benchmarks.search.tables
from benchmarks.search.problems import PROBLEMS, Table
from benchmarks.search.tables.grids import GRIDS, MAX_RESOURCE, STEPS, Grid

HERE = Path(benchmarks.search.tables.__path__[0])
TABLES = [problem for problem in PROBLEMS.values() if isinstance(problem, Table)]


def configuration(table: Table, number: int) -> dict[str, str]:
    """Return the strings that an optimizer would propose for a configuration."""
    chosen = table.grid.configuration(number)
    return {
        name: str(chosen[name]) if isinstance(values[0], str) else str(values.index(chosen[name]))
        for name, values in table.grid.values.items()
    }


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_is_whole_and_small(table: Table) -> None:
    assert 500 <= table.grid.size <= 2000
    assert table.losses.shape == (table.grid.size, MAX_RESOURCE)
    assert 0 <= table.losses.min() < table.losses[:, -1].min() * 1.5
    assert table.losses.max() <= table.grid.scale
    assert (HERE / f"{table.name}.npz").stat().st_size < 300_000
    assert table.space.size == table.grid.size


def test_the_tables_are_small_together() -> None:
    assert sorted(path.stem for path in HERE.glob("*.npz")) == sorted(GRIDS)
    assert sum(path.stat().st_size for path in HERE.glob("*.npz")) < 1_000_000


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_configuration_finds_its_own_curve(table: Table) -> None:
    rng = np.random.default_rng(0)
    for number in rng.integers(table.grid.size, size=5).tolist():
        chosen = configuration(table, number)
        for resource in (1, 27, MAX_RESOURCE):
            assert table.loss(chosen, resource, rng) == table.losses[number, resource - 1]
    best = configuration(table, int(table.losses[:, -1].argmin()))
    assert table.regret(best) == 0


def test_a_stored_curve_is_that_of_a_new_training() -> None:
    table = Table("diabetes-boosting")
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    train, rest = order[:221], order[221:]
    number = 1234
    for trees in (3, 81):
        model = GradientBoostingRegressor(n_estimators=trees, random_state=number, **table.grid.configuration(number))
        score = model.fit(x[train], y[train]).score(x[rest], y[rest])
        assert table.losses[number, trees - 1] == pytest.approx(1 - score, abs=1e-3)


def test_what_diverged_has_the_largest_loss() -> None:
    grid = Grid({"a": (1, 2)}, scale=2.0, unit="", loss="")
    assert grid.store(np.array([[np.nan, np.inf, 5.0, 1.0]])).tolist() == [[STEPS, STEPS, STEPS, round(STEPS / 2)]]


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("hartmann3-good", (0.114614, 0.555649, 0.852547)),
        ("hartmann6-bad", (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)),
    ],
)
def test_hartmanns_functions_have_their_known_minima(name: str, minimum: tuple[float, ...]) -> None:
    problem = PROBLEMS[name]
    chosen = {f"x{i}": str(x) for i, x in enumerate(minimum)}
    assert problem.regret(chosen) == pytest.approx(0, abs=1e-4)
    assert problem.regret({**chosen, "x1": "0.9"}) > 0.1
    assert problem.loss(chosen, 81, np.random.default_rng(0)) > problem.regret(chosen) - 3.9
