"""The conformance suite over all suggesters, and the rules of each."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kondense.search.history import History, Proposal, Status, Trial
from kondense.search.ledger import identity
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester
from kondense.testing import check_suggester
from kondense.testing.suggesters import SPACE, Result, failures, run_experiment, successes

from tests.support.distribution import make_distribution, run_python

GRID = SearchSpace(
    (Parameter("lr", "double", 0.1, 1.0, step=0.1), Parameter("epochs", "int", 1, 9), Parameter("c", "int", 1, 3))
)
BANDS = {"resource_name": "epochs", "r_l": "9"}
PBT = {"suggestion_trial_dir": "/opt/katib", "n_population": "6", "truncation_threshold": "0.2"}
GOALS = {"objectives": "minimize size, maximize speed", "constraints": "size <= 0.7, other >= 0.2"}
CASES: dict[str, tuple[str, SearchSpace, dict[str, str]]] = {
    "random": ("random", SPACE, {}),
    "grid": ("grid", GRID, {}),
    "tpe": ("tpe", SPACE, {}),
    "hyperband": ("hyperband", SPACE, BANDS),
    "bohb": ("bohb", SPACE, BANDS),
    "bohb-start": ("bohb", SPACE, BANDS | {"start": "lr=0.01,width=32,optimizer=adam"}),
    "bohb-density": ("bohb", SPACE, BANDS | {"model": "density"}),
    "tpe-katib": ("tpe", SPACE, {"gamma": "0.25", "prior_weight": "1.0", "n_EI_candidates": "24"}),
    "random-goals": ("random", SPACE, GOALS),
    "tpe-goals": ("tpe", SPACE, GOALS),
    "hyperband-goals": ("hyperband", SPACE, BANDS | GOALS),
    "bohb-goals": ("bohb", SPACE, BANDS | GOALS),
    "multivariate-tpe": ("multivariate-tpe", SPACE, {"n_startup_trials": "30"}),
    "bayesianoptimization": ("bayesianoptimization", SPACE, {"n_initial_points": "20"}),
    "cmaes": ("cmaes", SPACE, {"restart_strategy": "bipop"}),
    "sobol": ("sobol", SPACE, {}),
    "pbt": ("pbt", SPACE, PBT),
}


def experiment(
    case: str, parallel: int, total: int, result: Result = successes, goal: str = "minimize", *, announced: bool = True
) -> list[Trial]:
    method, space, settings = CASES[case]
    given = {"parallel": parallel, "total": total, "result": result, "goal": goal, "announced": announced}
    return run_experiment(load_suggester(method), space, settings, **given)


@pytest.mark.parametrize("case", CASES)
def test_every_suggester_conforms(case: str) -> None:
    method, space, settings = CASES[case]
    check_suggester(load_suggester(method), space=space, settings=settings)


@pytest.mark.parametrize(("case", "second"), [("hyperband", 5), ("bohb", 3), ("bohb-density", 3)])
@pytest.mark.parametrize("parallel", [1, 4, 9])
def test_a_cycle_of_brackets_is_the_papers(case: str, second: int, parallel: int) -> None:
    method, space, settings = CASES[case]
    assert load_suggester(method).planned_trials(settings, space) == 17 + second
    rungs = seats_taken(experiment(case, parallel, 44, announced=False))
    expected = {(0, 0): 9, (0, 1): 3, (0, 2): 1, (1, 0): second, (1, 1): 1, (2, 0): 3}
    assert {key: rungs[key] for key in expected} == expected


def seats_taken(trials: list[Trial]) -> Counter[tuple[int, int]]:
    """Return how many trials each rung (bracket, rung) has had."""
    return Counter((issued.bracket, issued.rung) for trial in trials if (issued := identity(trial.name)))


@pytest.mark.parametrize(("case", "second"), [("hyperband", 5), ("bohb", 3), ("bohb-density", 3)])
@pytest.mark.parametrize("parallel", [1, 2, 3, 4, 5, 9, 14, 30])
@pytest.mark.parametrize("cycles", [1, 2])
def test_whole_cycles_are_complete_at_any_parallelism(case: str, second: int, parallel: int, cycles: int) -> None:
    trials = experiment(case, parallel, cycles * (17 + second))
    one = {(0, 0): 9, (0, 1): 3, (0, 2): 1, (1, 0): second, (1, 1): 1, (2, 0): 3}
    expected = {(bracket + 3 * cycle, rung): size for cycle in range(cycles) for (bracket, rung), size in one.items()}
    assert seats_taken(trials) == expected


def test_what_is_left_of_a_cycle_still_reaches_the_whole_resource() -> None:
    assert seats_taken(experiment("hyperband", 4, 30))[3, 2] == 1


def failing(share: float) -> Result:
    def result(proposal: Proposal, rng: np.random.Generator) -> tuple[Status, float | None]:
        return (Status.FAILED, None) if rng.random() < share else successes(proposal, rng)

    return result


@pytest.mark.parametrize("case", ["hyperband", "bohb"])
@pytest.mark.parametrize("parallel", [1, 4, 9, 22])
@pytest.mark.parametrize("share", [0.4, 0.9])
@pytest.mark.parametrize("total", [20, 22, 44])
def test_an_owed_seat_never_goes_to_a_configuration_that_failed(
    case: str, parallel: int, share: float, total: int
) -> None:
    trials = experiment(case, parallel, total, failing(share))
    ended: dict[tuple[int, int], int] = {}  # configuration -> the rung that it failed in
    for trial in trials:
        named = identity(trial.name)
        if trial.status is Status.FAILED:
            ended[named.bracket, named.config] = named.rung
    order = {trial.name: number for number, trial in enumerate(trials)}
    for trial in trials:  # one that went up before its own failure was known could not have been held back
        named = identity(trial.name)
        failed_in = ended.get((named.bracket, named.config))
        if failed_in is not None and named.rung > failed_in:
            below = next(
                each.name
                for each in trials
                if (found := identity(each.name)).bracket == named.bracket
                and (found.config, found.rung) == (named.config, failed_in)
            )
            assert parallel > 1 and abs(order[trial.name] - order[below]) < parallel


def test_a_running_configuration_goes_up_only_where_no_rung_has_a_result() -> None:
    _, space, settings = CASES["hyperband"]
    first = load_suggester("hyperband").suggest(space, settings, 1, History((), "", "minimize", "e", 22), 17)

    def next_of(losses: dict[int, float]) -> tuple[int, int]:
        trials = [
            Trial(p.name, p.assignments, *((Status.SUCCEEDED, losses[i]) if i in losses else (Status.RUNNING, None)))
            for i, p in enumerate(first.proposals)
        ]
        history = History(tuple(trials), first.settings["issued"], "minimize", "e", 22)
        (proposal,) = load_suggester("hyperband").suggest(space, settings, 1, history, 1).proposals
        named = identity(proposal.name)
        return named.bracket, named.config

    assert next_of({3: 0.5}) == (0, 3)  # one of nine is known in the first bracket, none of five in the second
    assert next_of({9 + 2: 0.5}) == (1, 2)
    assert next_of({}) in {(0, 0), (1, 0)}


def test_an_owed_seat_goes_to_the_rung_of_which_most_is_known() -> None:
    _, space, settings = CASES["hyperband"]
    first = load_suggester("hyperband").suggest(space, settings, 1, History((), "", "minimize", "e", 22), 17)
    fates = [(Status.SUCCEEDED, float(20 - number)) for number in range(8)] + [(Status.RUNNING, None)] * 9
    # Of the first bracket eight of nine are known, of the second none.
    trials = [Trial(p.name, p.assignments, *fate) for p, fate in zip(first.proposals, fates, strict=True)]
    history = History(tuple(trials), first.settings["issued"], "minimize", "e", 22)
    (proposal,) = load_suggester("hyperband").suggest(space, settings, 1, history, 1).proposals
    assert identity(proposal.name).rung == 1
    assert identity(proposal.name).config == 7  # the best so far
    with_an_end = load_suggester("hyperband").suggest(space, settings, 1, history, 3).proposals
    assert [identity(each.name).config for each in with_an_end] == [7, 6, 5]


def test_a_random_configuration_of_bohb_is_hyperbands() -> None:
    _, space, settings = CASES["hyperband"]
    history = History((), "", "minimize", "e")
    first, second = (load_suggester(m).suggest(space, settings, 3, history, 8).proposals for m in ("hyperband", "bohb"))
    assert first == second


def test_waves_promote_before_a_rung_is_full() -> None:
    trials: list[Trial] = []
    issued = ""
    rungs = []
    for _ in range(13):
        history = History(tuple(trials), issued, "minimize", "e")
        suggestion = load_suggester("bohb").suggest(*CASES["bohb"][1:], 0, history, 1)
        issued, (proposal,) = suggestion.settings["issued"], suggestion.proposals
        named = identity(proposal.name)
        assert named is not None
        rungs.append((named.rung, named.config))
        loss = float([3, 1, 2, 0, 9, 0.5, 8, 7, 6][named.config])
        trials.append(Trial(proposal.name, proposal.assignments, Status.SUCCEEDED, loss))
    # The best of three; then the best of six less that one; then of nine; the highest rung when the second is full.
    lowest = [(0, config) for config in range(9)]
    assert rungs == [*lowest[:3], (1, 1), *lowest[3:6], (1, 3), *lowest[6:], (1, 5), (2, 3)]


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_the_best_of_a_rung_are_promoted(goal: str) -> None:
    trials = experiment("hyperband", 4, 44, goal=goal)
    sign = 1 if goal == "minimize" else -1
    rungs: dict[tuple[int, int], dict[int, float]] = {}
    for trial in trials:
        issued = identity(trial.name)
        assert issued is not None
        rungs.setdefault((issued.bracket, issued.rung), {})[issued.config] = sign * (trial.value or 0.0)
    for size, above, below in ((3, (0, 1), (0, 0)), (1, (0, 2), (0, 1)), (1, (1, 1), (1, 0))):
        best = sorted(rungs[below], key=lambda config: rungs[below][config])[:size]
        assert set(rungs[above]) == set(best)


def test_a_promoted_trial_keeps_its_configuration() -> None:
    trials = experiment("bohb", 4, 44)
    seen: dict[tuple[int, int], dict[str, str]] = {}
    for trial in sorted(trials, key=lambda trial: int(trial.assignments["epochs"])):
        issued = identity(trial.name)
        assert issued is not None
        configuration = {name: value for name, value in trial.assignments.items() if name != "epochs"}
        assert seen.setdefault((issued.bracket, issued.config), configuration) == configuration


def test_a_failed_trial_is_never_promoted() -> None:
    trials = experiment("hyperband", 3, 66, failures)
    lost = {
        (issued.bracket, issued.rung, issued.config)
        for trial in trials
        if (issued := identity(trial.name)) and (trial.value is None or trial.value != trial.value)
    }
    for trial in trials:
        issued = identity(trial.name)
        assert issued is not None
        assert (issued.bracket, issued.rung - 1, issued.config) not in lost


@pytest.mark.parametrize("case", CASES)
def test_parallel_proposals_differ(case: str) -> None:
    method, space, settings = CASES[case]
    done = experiment(case, 4, 40)
    issued = ""
    suggestion = load_suggester(method).suggest(space, settings, 1, History((), issued, "minimize", "e"), 16)
    assert len({tuple(p.assignments.values()) for p in suggestion.proposals}) == 16
    assert len({trial.name for trial in done}) == 40


@pytest.mark.parametrize("case", CASES)
def test_seeds_and_random_state_change_the_reply(case: str) -> None:
    method, space, settings = CASES[case]

    def first(seed: int, **more: str) -> dict[str, str]:
        history = History((), "", "minimize", "e")
        return dict(load_suggester(method).suggest(space, settings | more, seed, history, 1).proposals[0].assignments)

    assert first(1, random_state="5") == first(2, random_state="5") != first(1, random_state="6")
    assert case == "grid" or first(1) != first(2)


def test_a_seed_fixes_the_trials_in_every_process() -> None:
    """Whatever the order of its sets and dictionaries by hash (a seed of syne-tune 0.16 fixes nothing)."""
    code = (
        "from tests.unit.search.test_suggesters import CASES, experiment\n"
        "for case in CASES:\n"
        "    print([(trial.name, dict(trial.assignments)) for trial in experiment(case, 2, 24)])\n"
    )
    printed = []
    for number in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": number, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        printed.append(run.stdout)
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == len(CASES)


@pytest.mark.parametrize("case", ["random", "tpe", "hyperband", "bohb"])
def test_a_small_space_is_used_up_before_anything_repeats(case: str) -> None:
    space = SearchSpace(
        (
            Parameter("c", "categorical", values=("a", "b", "c")),
            Parameter("i", "int", 1, 4),
            Parameter("epochs", "int", 1, 1),
        )
    )
    method, _, settings = CASES[case]
    settings = {"resource_name": "epochs"} if settings else {}
    history = History((), "", "minimize", "e")
    proposals = load_suggester(method).suggest(space, settings, 0, history, 14).proposals
    assert len(proposals) == 14
    assert len({(p.assignments["c"], p.assignments["i"]) for p in proposals[:12]}) == 12


def test_without_the_reply_the_same_request_gives_it_again() -> None:
    method, space, settings = CASES["bohb"]
    history = History((), "", "minimize", "e")
    lost = load_suggester(method).suggest(space, settings, 0, history, 4)
    assert load_suggester(method).suggest(space, settings, 0, history, 4) == lost


def test_a_rung_takes_the_places_that_more_workers_ask_for() -> None:
    method, space, settings = CASES["hyperband"]
    proposals = load_suggester(method).suggest(space, settings, 0, History((), "", "minimize", "e"), 20).proposals
    brackets = Counter(issued.bracket for proposal in proposals if (issued := identity(proposal.name)))
    assert brackets == {0: 9, 1: 5, 2: 3, 3: 3}


def test_names_fit_kubernetes() -> None:
    method, space, settings = CASES["bohb"]
    history = History((), "", "minimize", "e" * 40)
    for proposal in load_suggester(method).suggest(space, settings, 0, history, 3).proposals:
        assert len(proposal.name) <= 63
        assert proposal.labels["rung"] == "0"
    with pytest.raises(ValueError, match="1 to 40 characters"):
        History((), "", "minimize", "e" * 41)


@pytest.mark.parametrize(
    ("case", "settings", "counts", "rule"),
    [
        (
            "random",
            {"eta": "3"},
            {},
            "unknown setting 'eta'; the settings are conditions, constraints, objectives, random_state",
        ),
        ("random", {"random_state": "-1"}, {}, "random_state must be a whole number of at least 0, but got '-1'"),
        ("random", {"random_state": "x"}, {}, "random_state must be a whole number, but got 'x'"),
        ("random", {}, {"max_trial_count": 0}, "maxTrialCount must be at least 1, but got 0"),
        ("grid", {}, {}, "grid needs a number of trials .maxTrialCount. of at most 270, but it is not set"),
        ("grid", {}, {"max_trial_count": 271}, "at most the grid's 270 configurations, but got 271"),
        ("tpe", {"random_fraction": "1.5"}, {}, r"random_fraction must be in \[0, 1\], but got '1.5'"),
        ("tpe", {"bandwidth_factor": "nan"}, {}, "bandwidth_factor must be in"),
        ("hyperband", {"eta": "1"}, {}, "eta must be a whole number of at least 2, but got '1'"),
        ("hyperband", {"eta": "2.5"}, {}, "eta must be a whole number of at least 2, but got '2.5'"),
        ("hyperband", {"eta": "inf"}, {}, "eta must be a whole number, but got 'inf'"),
        ("hyperband", {"resource_name": "lr"}, {}, "must name an int parameter, but 'lr' is double"),
        ("hyperband", {"resource_name": "epoch"}, {}, "no parameter is called 'epoch'; the parameters are lr"),
        ("hyperband", {"resource_name": ""}, {}, "resource_name must name the int parameter"),
        ("hyperband", {"r_l": "0"}, {}, "r_l must be a whole number of at least 1, but got '0'"),
        ("bohb", {"r_l": "10"}, {}, "r_l must be at most 9, epochs's max, but got 10"),
        ("hyperband", {"r_l": "2", "min_resource": "3"}, {}, "but got min_resource=3, r_l=2"),
        ("hyperband", {"max_resource": "8"}, {}, "r_l is 9 and max_resource is 8"),
        (
            "hyperband",
            {"speed": "1"},
            {},
            "unknown setting 'speed'; the settings are bracket_sizes, conditions, constraints, earlier, eta",
        ),
        ("hyperband", {"bracket_sizes": "big"}, {}, "bracket_sizes must be one of ceil, floor, but got 'big'"),
        ("hyperband", {"issued": "!"}, {}, "issued must be a ledger"),
        ("bohb", {"model": "forest"}, {}, "model must be one of process, density, but got 'forest'"),
        ("bohb", {"top_n_percent": "0"}, {}, r"top_n_percent must be in \[1, 99\], but got '0'"),
        ("bohb", {}, {"parallel_trial_count": 0}, "parallelTrialCount must be at least 1, but got 0"),
    ],
)
def test_a_broken_rule_is_named_with_its_value(
    case: str, settings: dict[str, str], counts: dict[str, int], rule: str
) -> None:
    method, space, good = CASES[case]
    with pytest.raises(ValueError, match=rule) as error:
        load_suggester(method).validate(space, good | settings, **counts)
    assert "\n" not in str(error.value)


def test_hyperband_takes_katibs_r_l_above_the_resources_range() -> None:
    """As in Katib's own example, whose num-epochs is from 1 to 1 with an r_l of 2."""
    space = SearchSpace((Parameter("lr", "double", 0.01, 0.05), Parameter("num-epochs", "int", 1, 1)))
    settings = {"resource_name": "num-epochs", "eta": "2", "r_l": "2"}
    hyperband = load_suggester("hyperband")
    hyperband.validate(space, settings, max_trial_count=2, parallel_trial_count=2)
    trials: tuple[Trial, ...] = ()
    while len(trials) < hyperband.planned_trials(settings, space):
        reply = hyperband.suggest(space, settings, 0, History(trials, settings.get("issued", "")), 1)
        settings |= reply.settings
        trials += tuple(Trial(p.name, p.assignments, Status.SUCCEEDED, len(trials)) for p in reply.proposals)
    assert [trial.assignments["num-epochs"] for trial in trials] == ["1", "1", "2", "2", "2"]


def test_a_grid_refuses_more_than_it_has_and_needs_steps() -> None:
    space = SearchSpace((Parameter("c", "categorical", values=("a", "b")),))
    grid = load_suggester("grid")
    first = grid.suggest(space, {}, 0, History(), 2)
    reported = tuple(Trial(p.name, p.assignments, Status.SUCCEEDED, 1.0) for p in first.proposals)
    with pytest.raises(ValueError, match="2 configurations, but 2 are issued and 1 more"):
        grid.suggest(space, {}, 0, History(reported, first.settings["issued"]), 1)
    with pytest.raises(ValueError, match="'lr': grid needs a step"):
        grid.validate(SPACE, {}, max_trial_count=3)


def test_a_full_grid_issues_lost_points_again_and_no_others() -> None:
    space = SearchSpace((Parameter("c", "categorical", values=("a", "b", "c")),))
    grid = load_suggester("grid")
    first = grid.suggest(space, {}, 0, History(), 3)
    reported = tuple(Trial(p.name, p.assignments, Status.FAILED) for p in first.proposals[1:])
    again = grid.suggest(space, {}, 0, History(reported, first.settings["issued"]), 1)
    assert again.proposals[0].assignments == {"c": "a"}
    assert again.proposals[0].name != first.proposals[0].name
    with pytest.raises(ValueError, match="3 configurations, but 3 are issued and 2 more"):
        grid.suggest(space, {}, 0, History(reported, first.settings["issued"]), 2)


def test_the_least_resource_is_at_least_one() -> None:
    space = SearchSpace((Parameter("x", "double", 0.0, 1.0), Parameter("epochs", "int", 0, 90, step=10)))
    settings = {"resource_name": "epochs"}
    load_suggester("hyperband").validate(space, settings)
    proposals = load_suggester("hyperband").suggest(space, settings, 0, History(), 20).proposals
    assert {proposal.assignments["epochs"] for proposal in proposals} == {"10", "30", "90"}


def test_a_grid_walks_the_whole_space_in_any_order() -> None:
    for settings in ({}, {"random_state": "3"}):
        proposals = load_suggester("grid").suggest(GRID, settings, 0, History(), 270).proposals
        assert len({tuple(proposal.assignments.values()) for proposal in proposals}) == 270


THEIRS = """
    from kondense.search.random_search import planned_trials, suggest, validate

    METHOD = {"name": "fixed", "kind": "single-fidelity", "summary": "as random"}
"""
USES = """
    from kondense.api.search import search, uniform
    from kondense.errors import InputError
    from kondense.search.suggesters import SUGGESTERS, is_multi_fidelity

    print(*SUGGESTERS)
    print(is_multi_fidelity("fixed"), len(search(lambda x: x, {"x": uniform(0, 1)}, algorithm="fixed").trials))
    try:
        search(lambda x: x, {"x": uniform(0, 1)}, algorithm="broken")
    except InputError as error:
        print(error)
"""


def test_a_suggester_of_another_distribution_works_beside_a_broken_one(tmp_path: Path) -> None:
    files = {"theirs.py": THEIRS, "broken.py": "raise OSError('no license')"}
    make_distribution(tmp_path, files, {"kondense.suggesters": {"fixed": "theirs", "broken": "broken:Suggester"}})
    assert run_python(USES, tmp_path) == [
        "bayesianoptimization bohb broken cmaes fixed grid hyperband multivariate-tpe pbt random sobol tpe",
        "False 50",
        "kondense.suggesters: broken = broken:Suggester cannot be used: OSError('no license').",
    ]


def test_importing_the_suggesters_needs_numpy_alone() -> None:
    code = (
        "import sys, kondense.search.suggesters\n"
        "print([name for name in ('torch', 'scipy', 'grpc', 'kfp') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
