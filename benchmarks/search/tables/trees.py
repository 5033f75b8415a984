"""Learning curves of boosting and forests: the loss after each tree."""

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier

from benchmarks.search.tables.grids import MAX_RESOURCE, Grid

SEED = 0
WHOLE = ("max_leaf_nodes", "min_samples_leaf", "max_depth")


def cancer(grid: Grid, numbers: np.ndarray) -> np.ndarray:
    """Return the log losses of histogram gradient boosting, [C, R]."""
    (x, y), (other_x, other_y) = _halves(*load_breast_cancer(return_X_y=True), 284)
    losses = np.empty((len(numbers), MAX_RESOURCE))
    for row, number in enumerate(numbers):
        model = HistGradientBoostingClassifier(
            max_iter=MAX_RESOURCE, early_stopping=False, random_state=int(number), **_settings(grid, number)
        )
        for tree, chances in enumerate(model.fit(x, y).staged_predict_proba(other_x)):
            right = np.clip(chances[np.arange(len(other_y)), other_y], 1e-6, 1)
            losses[row, tree] = -np.log(right).mean()
    return losses


def diabetes(grid: Grid, numbers: np.ndarray) -> np.ndarray:
    """Return 1 - R^2 of gradient boosting, [C, R]."""
    (x, y), (other_x, other_y) = _halves(*load_diabetes(return_X_y=True), 221)
    losses = np.empty((len(numbers), MAX_RESOURCE))
    for row, number in enumerate(numbers):
        model = GradientBoostingRegressor(
            n_estimators=MAX_RESOURCE, random_state=int(number), **_settings(grid, number)
        )
        for tree, predicted in enumerate(model.fit(x, y).staged_predict(other_x)):
            losses[row, tree] = ((other_y - predicted) ** 2).mean() / other_y.var()
    return losses


def forest(grid: Grid, numbers: np.ndarray) -> np.ndarray:
    """Return the errors of forests, [C, R]; each tree learns from a bootstrap sample."""
    (x, y), (other_x, other_y) = _halves(*load_digits(return_X_y=True), 300)
    x, other_x = x.astype(np.float32), other_x.astype(np.float32)
    losses = np.empty((len(numbers), MAX_RESOURCE))
    for row, number in enumerate(numbers):
        settings = _settings(grid, number)
        drawn = round(settings.pop("max_samples") * len(y))
        votes = np.zeros((len(other_y), 10))
        rng = np.random.default_rng([SEED, int(number)])
        for tree in range(MAX_RESOURCE):
            sample = rng.integers(len(y), size=drawn)
            model = DecisionTreeClassifier(random_state=tree, **settings).fit(x[sample], y[sample], check_input=False)
            votes[:, model.classes_] += model.predict_proba(other_x, check_input=False)
            losses[row, tree] = (votes.argmax(axis=1) != other_y).mean()
    return losses


def _settings(grid: Grid, number: int) -> dict:
    chosen = grid.configuration(int(number))
    return {name: int(value) if name in WHOLE else value for name, value in chosen.items()}


def _halves(x: np.ndarray, y: np.ndarray, count: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    order = np.random.default_rng(SEED).permutation(len(y))
    return tuple((x[part], y[part]) for part in (order[:count], order[count:]))
