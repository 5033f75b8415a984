"""The real gRPC server over loopback, driven by a model of Katib's controllers through everything they do."""

import math
import re
from collections import Counter
from concurrent import futures
from dataclasses import replace

import grpc
import pytest
from kondense.katib.api import messages, services
from kondense.search.ledger import identity
from kondense.suggestion import server

from tests.contract.katib.controllers import Assignment, ExperimentSpec, Katib, Trial

SPACE = (
    {
        "name": "lr",
        "parameterType": "double",
        "feasibleSpace": {"min": "0.0001", "max": "0.1", "distribution": "logUniform"},
    },
    {"name": "momentum", "parameterType": "double", "feasibleSpace": {"min": "0.5", "max": "0.99"}},
    {"name": "schedule", "parameterType": "categorical", "feasibleSpace": {"list": ["cosine", "constant", "step"]}},
    {"name": "batch", "parameterType": "discrete", "feasibleSpace": {"list": ["32", "64", "128"]}},
)
RESOURCE = {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "9"}}
GRID = (
    {"name": "depth", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "12"}},
    {"name": "rate", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.5", "step": "0.1"}},
)
HALVING = {"resource_name": "epochs", "r_l": "9", "eta": "3"}
ALGORITHMS = ("random", "grid", "tpe", "hyperband", "bohb")
CYCLE = 22  # trials in Hyperband's brackets of R=9, eta=3: 9+3+1, 5+1, 3
FATES = {
    "fine": {},
    "failures": {"failed": 0.2},
    "mixed": {"failed": 0.1, "unavailable": 0.1, "early-stopped": 0.1, "nan": 0.05, "killed": 0.05},
}


@pytest.fixture(scope="module")
def channel():
    running = server.start(0, host="127.0.0.1")
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{running.port}", options=options) as opened:
        yield opened
    running.stop(0)


def spec(algorithm: str, *, parallel: int = 4, max_trials: int = CYCLE, **changes) -> ExperimentSpec:
    halving = algorithm in ("hyperband", "bohb")
    parameters = GRID if algorithm == "grid" else (*SPACE, RESOURCE) if halving else SPACE
    return ExperimentSpec(
        name=f"exp-{algorithm}",
        algorithm=algorithm,
        parameters=parameters,
        settings=HALVING if halving else {},
        parallel=parallel,
        max_trials=max_trials,
        **changes,
    )


def loss(assignments) -> float:
    if "depth" in assignments:
        return abs(int(assignments["depth"]) - 7) + float(assignments["rate"])
    near = abs(math.log10(float(assignments["lr"])) + 2) + (1 - float(assignments["momentum"]))
    return near + 1 / int(assignments.get("epochs", "9"))


def check(katib: Katib, *, overshoot: int = 0) -> None:
    """An experiment has ended well: at its count, without an error, nothing issued twice."""
    assert katib.errors == []
    assert katib.condition == "Succeeded"
    assert katib.spec.max_trials <= len(katib.trials) <= katib.spec.max_trials + overshoot
    names = [entry.name for entry in katib.issued]
    assert len(set(names)) == len(names)
    configurations = [tuple(sorted(entry.assignments.items())) for entry in katib.issued]
    assert [entry for entry, times in Counter(configurations).items() if times > 1] == []
    assert all(len(reply.parameter_assignments) == wanted for wanted, reply in katib.replies)


@pytest.mark.parametrize("fates", FATES)
@pytest.mark.parametrize("parallel", [1, 2, 4, 9, 16])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_experiment_ends_at_its_trial_count(channel, algorithm, parallel, fates):
    katib = Katib(spec(algorithm, parallel=parallel), channel, objective=loss, fates=FATES[fates], seed=parallel).run()
    unavailable = sum(trial.condition == "METRICSUNAVAILABLE" for trial in katib.trials.values())
    check(katib, overshoot=unavailable)


@pytest.mark.parametrize(("algorithm", "parallel"), [("hyperband", 1), ("hyperband", 4), ("bohb", 1), ("bohb", 2)])
def test_the_brackets_are_the_papers(channel, algorithm, parallel):
    second = {"hyperband": 5, "bohb": 3}[algorithm]  # the wider of the paper's two ways to round, and the other one
    max_trials = CYCLE if algorithm == "hyperband" else CYCLE - 2
    katib = Katib(spec(algorithm, parallel=parallel, max_trials=max_trials), channel, objective=loss).run()
    rungs = Counter((identity(entry.name).bracket, int(entry.assignments["epochs"])) for entry in katib.issued)
    assert rungs == {(0, 1): 9, (0, 3): 3, (0, 9): 1, (1, 3): second, (1, 9): 1, (2, 9): 3}


@pytest.mark.parametrize("parallel", [4, 9, 16])
@pytest.mark.parametrize("algorithm", ["hyperband", "bohb"])
def test_idle_workers_start_the_next_bracket(channel, algorithm, parallel):
    katib = Katib(spec(algorithm, parallel=parallel), channel, objective=loss).run()
    rungs = Counter((identity(entry.name).bracket, int(entry.assignments["epochs"])) for entry in katib.issued)
    planned = {(0, 1): 9, (0, 3): 3, (0, 9): 1, (1, 3): 5, (1, 9): 1, (2, 9): 3, (3, 1): 9, (3, 3): 3}
    assert all(count <= planned[rung] for rung, count in rungs.items())
    assert rungs[0, 1] == 9


def test_the_best_of_a_rung_are_promoted(channel):
    katib = Katib(spec("hyperband", parallel=3), channel, objective=loss).run()
    rung_0 = [t for t in katib.trials.values() if identity(t.name).bracket == 0 and identity(t.name).rung == 0]
    promoted = {identity(t.name).config for t in katib.trials.values() if "-b0r1" in t.name}
    best = sorted(rung_0, key=lambda trial: float(trial.value))[:3]
    assert promoted == {identity(trial.name).config for trial in best}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_restart_of_the_service_repeats_nothing(algorithm):
    running = [server.start(0, host="127.0.0.1")]
    katib = Katib(spec(algorithm), grpc.insecure_channel(f"127.0.0.1:{running[0].port}"), objective=loss)

    def restart(katib: Katib) -> None:
        if katib.step in (3, 9):
            running.pop().stop(0)
            katib.reconcile_experiment()
            katib.reconcile_suggestion()  # meets a service that is not there
            running.append(server.start(0, host="127.0.0.1"))
            katib.connect(grpc.insecure_channel(f"127.0.0.1:{running[0].port}"))

    katib.run(each=restart)
    running.pop().stop(0)
    check(katib)


def size(assignments) -> str:
    """Small for a small batch; a few trials report what is no number."""
    return "nan" if assignments["schedule"] == "step" and assignments["batch"] == "64" else assignments["batch"]


@pytest.mark.parametrize("algorithm", ["random", "tpe", "hyperband", "bohb"])
def test_several_objectives_survive_failures_and_restarts(algorithm):
    one = spec(algorithm)
    goals = {"objectives": "minimize size", "constraints": "size <= 64"}
    several = replace(one, settings={**one.settings, **goals}, additional={"size": size})
    running = [server.start(0, host="127.0.0.1")]
    channel = grpc.insecure_channel(f"127.0.0.1:{running[0].port}")
    katib = Katib(several, channel, objective=loss, fates={"failed": 0.2}, seed=3)

    def restart(katib: Katib) -> None:
        if katib.step in (3, 9):
            running.pop().stop(0)
            running.append(server.start(0, host="127.0.0.1"))
            katib.connect(grpc.insecure_channel(f"127.0.0.1:{running[0].port}"))

    katib.run(each=restart)
    running.pop().stop(0)
    check(katib)
    if algorithm in ("hyperband", "bohb"):  # what reported nan is not promoted, what breaks the bound only last
        promoted = [trial for trial in katib.trials.values() if identity(trial.name).rung]
        assert promoted
        assert not [trial for trial in promoted if size(trial.assignments) == "nan"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_lost_status_update_gets_the_same_reply_again(channel, algorithm):
    katib = Katib(spec(algorithm, parallel=2), channel, objective=loss, fates=FATES["failures"])
    lost = []

    def lose(katib: Katib) -> None:
        if katib.step % 5 == 2 and not katib.lose_next_update:
            katib.lose_next_update = True
        if len(katib.replies) > 1 and katib.replies[-2][0] == katib.replies[-1][0] and katib.step % 5 == 2:
            lost.append(katib.replies[-2:])

    check(katib.run(each=lose))
    # The very same request, asked twice, is answered with the same bytes.
    request = messages.GetSuggestionsRequest(experiment=katib.experiment(), current_request_number=3)
    request.experiment.spec.max_trial_count = 60
    if algorithm == "grid":
        request.current_request_number = 2
    replies = {katib.stub.GetSuggestions(request).SerializeToString(deterministic=True) for _ in range(3)}
    assert len(replies) == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lowering_the_parallel_count_deletes_trials_and_the_rest_goes_on(channel, algorithm):
    katib = Katib(spec(algorithm, parallel=9), channel, objective=loss, duration=(3, 9))

    def lower(katib: Katib) -> None:
        if katib.step == 3:
            assert sum(trial.active for trial in katib.trials.values()) > 2
            katib.parallel = 2

    katib.run(each=lower)
    assert len(katib.issued) > len(katib.trials)
    check(katib)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trials_that_were_not_issued_are_ignored(channel, algorithm):
    alone = Katib(spec(algorithm), channel, objective=loss).run()
    katib = Katib(spec(algorithm), channel, objective=loss)
    best = dict(alone.issued[0].assignments)
    katib.foreign = [
        Trial("another-experiment-x7k2p9q1", best, 0, 0, "ok", "SUCCEEDED", "-1000"),
        Trial(f"exp-{algorithm}-b0r0c0-ffffff", best, 0, 0, "ok", "SUCCEEDED", "-1000"),
        Trial(f"exp-{algorithm}-b7r0c3-0f0f0f", best, 0, 0, "ok", "RUNNING", None),
        Trial(f"exp-{algorithm}", {"other": "1"}, 0, 0, "ok", "FAILED", None),
    ]
    check(katib.run())
    assert katib.issued == alone.issued


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_trial_whose_creation_failed_comes_later(channel, algorithm):
    katib = Katib(spec(algorithm), channel, objective=loss)

    def fail(katib: Katib) -> None:
        if katib.step in (1, 6):
            katib.fail_next_creations = 2

    check(katib.run(each=fail))


def test_the_goal_direction_is_kept(channel):
    down = Katib(spec("hyperband", parallel=2), channel, objective=loss).run()
    up = Katib(spec("hyperband", parallel=2, maximize=True), channel, objective=lambda a: -loss(a)).run()
    assert [entry.assignments for entry in down.issued] == [entry.assignments for entry in up.issued]


# The first 9,900 of tpe are those of random, and the first 9,900 of bohb those of hyperband.
@pytest.mark.parametrize("algorithm", ["tpe", "bohb"])
def test_ten_thousand_trials(channel, algorithm):
    large = spec(algorithm, parallel=1000, max_trials=10_000)
    if algorithm in ("hyperband", "bohb"):
        epochs = {**RESOURCE, "feasibleSpace": {"min": "1", "max": "243"}}
        large = replace(large, parameters=(*SPACE, epochs), settings={"resource_name": "epochs"})
    # The models propose the last hundred: their ledger is that of the method without a model.
    first = replace(large, algorithm={"tpe": "random", "bohb": "hyperband"}.get(algorithm, algorithm), max_trials=9_900)
    katib = Katib(first, channel, objective=loss, fates=FATES["failures"], duration=(1, 1)).run()
    assert katib.condition == "Succeeded"
    katib.spec, katib.parallel, katib.condition, katib.validated = large, 16, "Running", False
    check(katib.run())
    assert len(katib.trials) == 10_000


def test_a_grid_of_ten_thousand_trials(channel):
    parameters = tuple(
        {"name": name, "parameterType": "int", "feasibleSpace": {"min": "1", "max": "10"}} for name in "abcd"
    )
    large = ExperimentSpec("exp-grid", "grid", parameters, parallel=1000, max_trials=10_000)
    check(Katib(large, channel, objective=lambda a: float(a["a"]), duration=(1, 1)).run())


def test_a_full_grid_goes_on_after_trials_are_deleted(channel):
    katib = Katib(spec("grid", parallel=6, max_trials=60), channel, objective=loss, duration=(3, 9))

    def lower(katib: Katib) -> None:
        if katib.step == 5:
            katib.parallel = 2

    assert katib.run(each=lower).errors == []
    assert katib.condition == "Succeeded"


class ShortReply(services.SuggestionServicer):
    """A service as Katib's own hyperband behaves past its first rung."""

    def ValidateAlgorithmSettings(self, request, context):  # noqa: N802
        return messages.ValidateAlgorithmSettingsReply()

    def GetSuggestions(self, request, context):  # noqa: N802
        reply = messages.GetSuggestionsReply()
        for _ in range(request.current_request_number - 1):
            reply.parameter_assignments.add()
        return reply


def test_the_model_sticks_where_katib_sticks():
    stuck = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    services.add_SuggestionServicer_to_server(ShortReply(), stuck)
    port = stuck.add_insecure_port("127.0.0.1:0")
    stuck.start()
    katib = Katib(spec("random"), grpc.insecure_channel(f"127.0.0.1:{port}"), objective=loss).run()
    stuck.stop(0)
    assert katib.condition == "Running"
    assert re.search("unexpected trials: want 4 got 3", katib.errors[0])


def test_the_model_stops_at_the_failed_count(channel):
    katib = Katib(spec("random", max_failed=3), channel, objective=loss, fates={"failed": 1.0}).run()
    assert katib.condition == "Failed"


def test_the_model_deletes_the_newest_trials(channel):
    katib = Katib(spec("random", parallel=3), channel, objective=loss)
    for index in range(3):
        katib.trials[str(index)] = Trial(str(index), {}, index, 100, "ok", "RUNNING")
        katib.suggestions.append(Assignment(str(index), {}))
    katib.parallel = 1
    katib.reconcile_experiment()
    assert list(katib.trials) == ["0"]
    assert katib.requests == len(katib.suggestions) == 1
