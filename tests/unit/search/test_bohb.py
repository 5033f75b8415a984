"""What BOHB's model proposes, and when."""

import zlib

from kondense.search.history import History, Status, Trial
from kondense.search.ledger import identity
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester
from kondense.testing.suggesters import SPACE, run_experiment

SETTINGS = {"resource_name": "epochs", "random_fraction": "0"}
DEEP = SearchSpace((*SPACE.without("epochs").parameters, Parameter("epochs", "int", 1, 27)))


def proposals_of(method: str, space: SearchSpace, settings: dict[str, str], total: int) -> list[Trial]:
    """Return the trials of one worker, best where width is 64 at any resource."""
    trials: list[Trial] = []
    issued = ""
    for _ in range(total):
        history = History(tuple(trials), issued, "minimize", "e")
        suggestion = load_suggester(method).suggest(space, settings, 0, history, 1)
        issued, (proposal,) = suggestion.settings["issued"], suggestion.proposals
        noise = zlib.crc32(proposal.name.encode()) / 2**32
        loss = -float(proposal.assignments["width"]) + noise
        trials.append(Trial(proposal.name, proposal.assignments, Status.SUCCEEDED, loss))
    return trials


def lowest(trials: list[Trial], bracket: int) -> list[dict[str, str]]:
    found = [(identity(trial.name), trial) for trial in trials]
    return [dict(trial.assignments) for named, trial in found if (named.bracket, named.rung) == (bracket, 0)]


def test_the_model_proposes_in_the_last_wave_of_the_first_bracket() -> None:
    ours = proposals_of("bohb", DEEP, SETTINGS, 40)
    plain = proposals_of("hyperband", DEEP, {"resource_name": "epochs", "bracket_sizes": "floor"}, 40)
    first, random = lowest(ours, 0), lowest(plain, 0)
    assert len(first) == len(random) == 27
    assert first[:18] == random[:18]
    mean = [sum(int(each["width"]) for each in part) / len(part) for part in (first[18:], random[18:])]
    assert mean[0] > mean[1] + 8  # of 8 to 64


def test_the_first_whole_trial_of_the_bracket_without_promotions_is_the_models() -> None:
    ours = proposals_of("bohb", DEEP, SETTINGS, 64)
    alone = [trial for trial in ours if identity(trial.name).bracket == 3]
    assert {trial.assignments["epochs"] for trial in alone} == {"27"}
    widths = [int(values["width"]) for values in lowest(ours, 0)[:18]]
    assert int(alone[0].assignments["width"]) > sum(widths) / len(widths) + 8


def test_what_was_left_behind_starts_again_at_larger_resources_alone() -> None:
    small = SearchSpace((Parameter("width", "int", 1, 40), Parameter("epochs", "int", 1, 9)))
    trials = run_experiment(
        load_suggester("bohb"), small, {"resource_name": "epochs"}, parallel=4, total=60, announced=False
    )
    reached: dict[str, int] = {}
    again = 0
    for trial in sorted(trials, key=lambda trial: (identity(trial.name).bracket, identity(trial.name).rung)):
        named = identity(trial.name)
        resource = int(trial.assignments["epochs"])
        if named.rung == 0 and named.digest in reached:
            again += 1
            assert resource > reached[named.digest]
        reached[named.digest] = max(reached.get(named.digest, 0), resource)
    assert again
