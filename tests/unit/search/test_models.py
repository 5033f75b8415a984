"""The models against SciPy and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
from kondense.search.density import Density
from kondense.search.fitting import Evidence
from kondense.search.gaussian_process import Process
from kondense.search.kernel import OFFSET, Data, Shape, encode
from kondense.search.observations import normal_scores
from kondense.search.space import Parameter, SearchSpace
from scipy import integrate, stats

LINE = SearchSpace((Parameter("x", "double", 0.0, 1.0),))
MIXED = SearchSpace((*LINE.parameters, Parameter("c", "categorical", values=("a", "b", "c"))))


def test_a_density_is_scipys_mixture_of_cut_normals() -> None:
    rows = np.array([[0.05], [0.4], [0.45], [0.99]])
    density = Density(LINE, rows)
    width = 1.06 * rows.std() * 4 ** (-1 / 5)
    assert density.bandwidths == pytest.approx([width])
    x = np.linspace(0, 1, 11)
    kernels = [stats.truncnorm((0 - m) / width, (1 - m) / width, loc=m, scale=width) for m in rows[:, 0]]
    expected = np.mean([kernel.pdf(x) for kernel in kernels], axis=0)
    assert np.exp(density.log_density(x[:, np.newaxis])) == pytest.approx(expected)


def test_a_density_over_a_mixed_space_has_mass_one() -> None:
    rows = np.array([[0.1, 1 / 6], [0.2, 1 / 6], [0.9, 0.5]])
    density = Density(MIXED, rows)
    mass = sum(
        integrate.quad(lambda x, word=word: float(np.exp(density.log_density(np.array([[x, word]])))[0]), 0, 1)[0]
        for word in (1 / 6, 0.5, 5 / 6)
    )
    assert mass == pytest.approx(1, abs=1e-6)


def test_samples_follow_the_density_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    density = Density(MIXED, np.array([[0.02, 1 / 6]] * 30 + [[0.3, 0.5]] * 10))
    samples = density.sample(rng, 4000, bandwidth_factor=3.0)
    assert ((samples >= 0) & (samples <= 1)).all()
    share = (samples[:, 1] < 1 / 3).mean()
    lost = density.bandwidths[1]
    assert share == pytest.approx(0.75 * (1 - lost) + 0.25 * lost / 2, abs=0.03)


def test_one_observation_is_enough_for_a_density() -> None:
    density = Density(MIXED, np.array([[0.5, 0.5]]))
    assert np.isfinite(density.log_density(np.array([[0.5, 0.5], [0.0, 0.9]]))).all()


def process(seed: int = 0, gaps: tuple[int, ...] = (0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2)) -> Process:
    rng = np.random.default_rng(seed)
    rows = rng.random((len(gaps), 2))
    rows[6], rows[9:11] = rows[0], rows[0:2]
    targets = np.sin(6 * rows[:, 0])
    data = Data(encode(MIXED, rows), np.array(gaps), targets - targets.mean(), 2)
    return Process(data, rng)


def test_the_evidence_is_that_of_a_multivariate_t() -> None:
    fitted = process()
    smooth = fitted._smooth(fitted.shape)
    matrix = fitted.covariance(fitted.shape, smooth)
    # An inverse gamma (1, 1) variance makes the targets Student t of 2 degrees of freedom with this shape matrix.
    expected = stats.multivariate_t(np.zeros(12), matrix, df=2).logpdf(fitted.data.targets)
    constant = stats.multivariate_t(np.zeros(12), np.eye(12), df=2).logpdf(np.zeros(12))
    other = replace(fitted.shape, noise=(-1.0, -2.0, -3.0))
    assert fitted.evidence([other, fitted.shape], smooth)[1] == pytest.approx(expected - constant)


def test_the_slope_is_that_of_the_evidence() -> None:
    fitted = process()

    def evidence(place: np.ndarray) -> float:
        shape = Shape(tuple(place[:2]), place[2], place[3], tuple(place[4:]), (0.8, 0.8))
        return float(fitted.evidence([shape], fitted._smooth(shape))[0])

    place = np.array([-0.7, 0.3, -1.0, -2.0, -3.0, -2.5, -1.0])
    steps = 1e-5 * np.eye(7)
    expected = [(evidence(place + step) - evidence(place - step)) / 2e-5 for step in steps]
    assert Evidence(fitted.data, 3).slope(place) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_drawn_functions_have_the_posteriors_mean_and_spread(temperature: float) -> None:
    fitted = process()
    rng = np.random.default_rng(1)
    candidates = encode(MIXED, np.array([[0.1, 0.1], [0.5, 0.5], [0.93, 0.9]]))
    candidates.axes[0], candidates.trend[0] = fitted.data.encoding.axes[0], fitted.data.encoding.trend[0]
    draws = np.array([fitted.draw(rng, 0, temperature)(candidates) for _ in range(3000)])
    data, shape = fitted.data, fitted.shape
    both = Data(
        encoding=type(candidates)(
            np.concatenate([candidates.axes, data.encoding.axes]),
            np.concatenate([candidates.trend, data.encoding.trend]),
            candidates.firsts,
        ),
        gaps=np.concatenate([np.zeros(3, dtype=np.int64), data.gaps]),
        targets=np.zeros(15),
        dimensions=2,
    )
    joint = Process(both, np.random.default_rng(0))
    prior = joint._smooth(shape)
    worth = shape.worth()[data.gaps]
    matrix = fitted.covariance(shape, fitted._smooth(shape))
    cross = prior[:3, 3:] * worth
    variance = (1 + data.targets @ np.linalg.solve(matrix, data.targets) / 2) / (12 / 2 + 1)
    mean = cross @ np.linalg.solve(matrix, data.targets) / np.sqrt(variance)
    spread = np.sqrt(np.diag(prior[:3, :3] - cross @ np.linalg.solve(matrix, cross.T)))
    assert draws.mean(axis=0) == pytest.approx(mean, abs=0.1)
    assert draws.std(axis=0) == pytest.approx(temperature * spread, rel=0.1)
    assert OFFSET > 0


def test_a_level_that_misleads_is_found_out() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((30, 2))
    rows = np.concatenate([rows, rows])
    truth = np.sin(6 * rows[:30, 0])
    worth = {}
    for name, low in (("follows", truth + 2), ("misleads", rng.standard_normal(30))):
        targets = np.concatenate([truth, low])
        data = Data(encode(MIXED, rows), np.repeat([0, 1], 30), targets - targets.mean(), 2)
        worth[name] = np.mean([Process(data, np.random.default_rng(seed)).shape.links[0] for seed in range(20)])
    assert worth["follows"] > 0.8
    assert worth["misleads"] < 0.4


def test_normal_scores_are_quantiles_of_ranks() -> None:
    scores = normal_scores(np.array([3.0, 1.0, 100.0, 1.0]))
    assert scores == pytest.approx(stats.norm.ppf([0.625, 0.25, 0.875, 0.25]))
