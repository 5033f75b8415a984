"""The spaces on which Katib's own services go astray (docs/search.md has the table), with every algorithm of ours."""

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import pytest
from kondense.search.history import History, Proposal, Status, Trial
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace
from kondense.search.suggesters import SUGGESTERS, is_multi_fidelity, load_suggester
from kondense.testing.suggesters import run_experiment

PARAMETERS = {
    "int with a step": Parameter("x", "int", 1, 10, 4),
    "double with a step": Parameter("x", "double", 0.05, 0.5, 0.1),
    "0.7": Parameter("x", "double", 0, 0.7, 0.1),
    "0.3": Parameter("x", "double", 0, 0.3, 0.1),
    "min 0": Parameter("x", "double", 0, 1),
    "log": Parameter("x", "double", 1e-4, 1, distribution="logUniform"),
    "int on a log scale": Parameter("x", "int", 1, 1024, distribution="logUniform"),
    "normal": Parameter("x", "double", -3, 3, distribution="normal"),
    "log normal": Parameter("x", "double", 1e-4, 1, distribution="logNormal"),
    "int of several digits": Parameter("x", "int", 12, 20),
    "discrete": Parameter("x", "discrete", values=("16", "8", "32.5")),
    "categorical": Parameter("x", "categorical", values=("a", "b", "c")),
}
SETTINGS = {
    "pbt": {"suggestion_trial_dir": "/opt/katib", "n_population": "6", "truncation_threshold": "0.3"},
    "bayesianoptimization": {"n_initial_points": "5"},
    "multivariate-tpe": {"n_startup_trials": "5"},
    "tpe": {"gamma": "0.25"},
    "grid": {"random_state": "2"},
}


def space_with(parameter: Parameter, algorithm: str) -> SearchSpace:
    """Return a space in which the parameter has company: a resource, or a grid."""
    if algorithm == "grid":
        return SearchSpace((parameter, Parameter("n", "int", 1, 24)))
    others = (Parameter("lr", "double", 0.001, 0.1, distribution="logUniform"), Parameter("n", "int", 1, 24))
    last = (Parameter("epochs", "int", 1, 9),) if is_multi_fidelity(algorithm) else ()
    return SearchSpace((parameter, *others, *last))


def proposed(algorithm: str, parameter: Parameter, total: int = 24, parallel: int = 4) -> list[Trial]:
    settings = dict(SETTINGS.get(algorithm, {}))
    if is_multi_fidelity(algorithm):
        settings["resource_name"] = "epochs"
    space = space_with(parameter, algorithm)
    suggester = load_suggester(algorithm)
    suggester.validate(space, settings, max_trial_count=total, parallel_trial_count=parallel)
    return run_experiment(suggester, space, settings, parallel=parallel, total=total)


def allowed(parameter: Parameter) -> set[str]:
    """Return the values by decimal arithmetic, as one writes them."""
    if parameter.values:
        return set(parameter.values)
    low, high = Decimal(str(parameter.low)), Decimal(str(parameter.high))
    step = Decimal(str(parameter.step or 1))
    values = [low + step * index for index in range(int((high - low) / step) + 1)]
    return {str(int(value)) if parameter.kind == "int" else str(float(value)) for value in values}


@pytest.mark.parametrize("algorithm", SUGGESTERS)
@pytest.mark.parametrize("name", PARAMETERS)
def test_every_proposal_is_a_value_of_its_parameter(algorithm: str, name: str) -> None:
    parameter = PARAMETERS[name]
    if algorithm == "grid" and parameter.levels is None:
        with pytest.raises(ValueError, match="grid needs a step for a double parameter"):
            proposed(algorithm, parameter)
        return
    texts = [trial.assignments["x"] for trial in proposed(algorithm, parameter)]
    if parameter.levels is None:
        assert all(parameter.low <= float(text) <= parameter.high for text in texts)  # NaN would fail, too
        assert len(set(texts)) >= 12
    else:
        assert set(texts) <= allowed(parameter)


@pytest.mark.parametrize("name", ["int with a step", "double with a step", "0.7", "0.3"])
@pytest.mark.parametrize("algorithm", ["grid", "random", "sobol", "tpe"])
def test_both_ends_of_a_stepped_range_are_among_the_values(algorithm: str, name: str) -> None:
    found = {trial.assignments["x"] for trial in proposed(algorithm, PARAMETERS[name], total=64)}
    assert found == allowed(PARAMETERS[name])


@pytest.mark.parametrize("algorithm", sorted({*SUGGESTERS} - {"grid", "cmaes"}))
def test_the_ends_of_an_integer_range_are_drawn_as_often_as_the_others(algorithm: str) -> None:
    """Hyperopt and nevergrad round a number between min and max: half the chance for either."""
    settings = dict(SETTINGS.get(algorithm, {})) | ({"resource_name": "epochs"} if is_multi_fidelity(algorithm) else {})
    space = space_with(Parameter("x", "int", 1, 5), algorithm)
    made = load_suggester(algorithm).suggest(space, settings, 0, History(experiment="e"), 600)
    counts = Counter(proposal.assignments["x"] for proposal in made.proposals)
    assert sorted(counts) == list("12345")
    spread = math.sqrt(600 * 0.2 * 0.8)
    assert all(abs(count - 120) < 4 * spread for count in counts.values()), counts
    assert counts["1"] + counts["5"] > 240 - 4 * math.sqrt(600 * 0.4 * 0.6) > 150  # half the chance would give 150


@pytest.mark.parametrize("algorithm", sorted({*SUGGESTERS} - {"hyperband", "bohb", "pbt"}))
def test_parallel_trials_are_all_different(algorithm: str) -> None:
    trials = proposed(algorithm, PARAMETERS["0.7"], total=24, parallel=4)
    assert len({tuple(trial.assignments.values()) for trial in trials}) == 24


@pytest.mark.parametrize("algorithm", sorted({*SUGGESTERS} - {"grid"}))
@pytest.mark.parametrize("name", ["log", "log normal", "int on a log scale"])
def test_the_distribution_is_heeded(algorithm: str, name: str) -> None:
    """A sixth of the range holds half of the logarithms and more, but hardly any even draws."""
    parameter = PARAMETERS[name]
    settings = dict(SETTINGS.get(algorithm, {})) | ({"resource_name": "epochs"} if is_multi_fidelity(algorithm) else {})
    made = load_suggester(algorithm).suggest(space_with(parameter, algorithm), settings, 0, History(experiment="e"), 48)
    values = [float(proposal.assignments["x"]) for proposal in made.proposals]
    assert sum(value < parameter.high / 6 for value in values) >= 24


@pytest.mark.parametrize("algorithm", sorted({*SUGGESTERS} - {"grid"}))
def test_a_normal_parameter_is_near_its_middle(algorithm: str) -> None:
    settings = dict(SETTINGS.get(algorithm, {})) | ({"resource_name": "epochs"} if is_multi_fidelity(algorithm) else {})
    space = space_with(PARAMETERS["normal"], algorithm)
    made = load_suggester(algorithm).suggest(space, settings, 0, History(experiment="e"), 60)
    values = [abs(float(proposal.assignments["x"])) for proposal in made.proposals]
    near = sum(value < 1 for value in values)
    assert near >= 30  # 41 of 60 are expected within one standard deviation
    assert near < 56 or algorithm == "cmaes"  # which begins in the middle


def quadratic(proposal: Proposal, rng: object) -> tuple[Status, float]:
    x, lr = float(proposal.assignments["x"]), float(proposal.assignments["lr"])
    return Status.SUCCEEDED, (x - 0.7) ** 2 + (math.log10(lr) + 2) ** 2 / 4


def best_of(algorithm: str, total: int, seeds: Sequence[int], settings: dict[str, str]) -> float:
    space = SearchSpace((PARAMETERS["min 0"], Parameter("lr", "double", 0.001, 0.1, distribution="logUniform")))
    best = []
    for seed in seeds:
        given = settings | {"random_state": str(seed)}
        trials = run_experiment(load_suggester(algorithm), space, given, parallel=4, total=total, result=quadratic)
        best.append(min(trial.value for trial in trials))
    return sum(best) / len(best)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("bayesianoptimization", {}),
        ("bayesianoptimization", {"acq_func": "LCB"}),
        ("multivariate-tpe", {}),
        ("cmaes", {}),
        ("cmaes", {"restart_strategy": "ipop"}),
    ],
)
def test_models_learn(algorithm: str, settings: dict[str, str]) -> None:
    assert best_of(algorithm, 40, (0, 1, 2), settings) < 0.5 * best_of("random", 40, (0, 1, 2), {})


@pytest.mark.parametrize(
    ("algorithm", "settings", "rule"),
    [
        ("tpe", {"gamma": "1"}, r"gamma must be in \(0, 1\)"),
        ("tpe", {"gamma": "x"}, "gamma must be a number"),
        ("tpe", {"n_EI_candidates": "0"}, "n_EI_candidates must be a whole number of at least 1"),
        ("tpe", {"prior_weight": "0"}, "prior_weight must be above 0"),
        ("tpe", {"gamma": "0.2", "top_n_percent": "20"}, "mean the same: give one"),
        ("multivariate-tpe", {"n_startup_trials": "-1"}, "at least 0"),
        ("multivariate-tpe", {"seed": "1"}, "the settings are n_ei_candidates, n_startup_trials, random_state"),
        ("cmaes", {"sigma": "0"}, "sigma must be above 0"),
        ("cmaes", {"restart_strategy": "some"}, "must be one of none, None, ipop, bipop"),
        ("bayesianoptimization", {"base_estimator": "RF"}, "of Katib is not offered here; base_estimator may be GP"),
        ("bayesianoptimization", {"base_estimator": "NN"}, "must be one of GP, but got 'NN'"),
        ("bayesianoptimization", {"acq_func": "EIps"}, "not offered here; acq_func may be gp_hedge, EI, PI, LCB"),
        ("bayesianoptimization", {"n_initial_points": "-1"}, "at least 0"),
        ("sobol", {"skip": "1"}, "unknown setting 'skip'"),
        ("pbt", {}, "lacks suggestion_trial_dir, n_population, truncation_threshold"),
        ("pbt", SETTINGS["pbt"] | {"n_population": "4"}, "n_population must be a whole number of at least 5"),
        ("pbt", SETTINGS["pbt"] | {"truncation_threshold": "1.5"}, r"must be in \[0, 1\]"),
        ("pbt", SETTINGS["pbt"] | {"resample_probability": "-0.1"}, r"must be in \[0, 1\]"),
        ("random", {"random_state": "-1"}, "at least 0"),
    ],
)
def test_settings_are_checked_as_katib_checks_them(algorithm: str, settings: dict[str, str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        load_suggester(algorithm).validate(space_with(PARAMETERS["log"], algorithm), settings, max_trial_count=8)


def test_cmaes_needs_two_ranges() -> None:
    space = SearchSpace((PARAMETERS["log"], Parameter("c", "categorical", values=("a", "b"))))
    with pytest.raises(ValueError, match="at least two parameters of type double or int, but got 1"):
        load_suggester("cmaes").validate(space, {})


@pytest.mark.parametrize("random_state", [None, "7"])
@pytest.mark.parametrize("algorithm", SUGGESTERS)
def test_ranges_of_2_to_the_53_are_searched(algorithm: str, random_state: str | None) -> None:
    huge = (
        Parameter("a", "int", 0, 2**53 - 1, 3),
        Parameter("b", "int", -(2**53), 2**53),
        Parameter("c", "int", 1, 2**53, distribution="logUniform"),
        Parameter("d", "double", 0, 4, 1e-15),
    )
    settings = dict(SETTINGS.get(algorithm, {})) | ({"random_state": random_state} if random_state else {})
    space = SearchSpace(huge)
    if is_multi_fidelity(algorithm):
        space, settings["resource_name"] = SearchSpace((*huge, Parameter("epochs", "int", 1, 9))), "epochs"
    suggester = load_suggester(algorithm)
    suggester.validate(space, settings, max_trial_count=24)
    for trial in run_experiment(suggester, space, settings, parallel=4, total=24):
        for parameter in huge:
            place = (Decimal(trial.assignments[parameter.name]) - Decimal(str(parameter.low))) / Decimal(
                str(parameter.step or 1)
            )
            assert place == int(place) and 0 <= place < parameter.levels
