"""The two calls of the service, in process."""

import json

import grpc
import grpc_testing
import pytest
from kondense.katib.api import messages
from kondense.katib.document import read_search
from kondense.search import state as states
from kondense.search.ledger import identity
from kondense.search.memory import Memory
from kondense.search.space import SearchSpace
from kondense.search.suggesters import SUGGESTERS
from kondense.suggestion import conversion
from kondense.suggestion.service import SuggestionService

SERVICE = messages.DESCRIPTOR.services_by_name["Suggestion"]
LR = {"name": "lr", "parameter_type": messages.DOUBLE, "min": "0.01", "max": "1"}
UNITS = {"name": "units", "parameter_type": messages.INT, "min": "1", "max": "9"}
KIND = {"name": "kind", "parameter_type": messages.CATEGORICAL, "list": ["a", "b"]}


def experiment(algorithm="random", parameters=(LR, UNITS, KIND), settings=None, **spec):
    result = messages.Experiment(name=spec.pop("name", "example"))
    result.spec.objective.type = spec.pop("type", messages.MINIMIZE)
    result.spec.objective.objective_metric_name = "loss"
    result.spec.algorithm.algorithm_name = algorithm
    for name, value in (settings or {}).items():
        result.spec.algorithm.algorithm_settings.add(name=name, value=value)
    for parameter in parameters:
        space = {key: value for key, value in parameter.items() if key not in ("name", "parameter_type")}
        result.spec.parameter_specs.parameters.add(
            name=parameter["name"],
            parameter_type=parameter["parameter_type"],
            feasible_space=messages.FeasibleSpace(**space),
        )
    result.spec.early_stopping.algorithm_name = spec.pop("early_stopping", "")
    for field, value in spec.items():
        setattr(result.spec, field, value)
    return result


def call(method, request, service=None):
    """Return (reply, status code, details) of one call."""
    servicers = {SERVICE: service or SuggestionService()}
    server = grpc_testing.server_from_dictionary(servicers, grpc_testing.strict_real_time())
    invoked = server.invoke_unary_unary(SERVICE.methods_by_name[method], {}, request, 60)
    reply, _, code, details = invoked.termination()
    return reply, code, details


def validate(sent):
    return call("ValidateAlgorithmSettings", messages.ValidateAlgorithmSettingsRequest(experiment=sent))


def suggest(sent, count=1, trials=(), service=None):
    request = messages.GetSuggestionsRequest(
        experiment=sent, trials=trials, current_request_number=count, total_request_number=count
    )
    return call("GetSuggestions", request, service)


def step(**space):
    return {**LR, "step": "0.1", **space}


HALVING = {"resource_name": "units"}
POPULATION = {"suggestion_trial_dir": "/opt/katib", "n_population": "5", "truncation_threshold": "0.2"}
GRID = (step(), UNITS)
BAD = {
    "unknown algorithm": (experiment("hype"), "algorithm must be one of bayesianoptimization, bohb, cmaes, grid"),
    "unknown setting": (
        experiment(settings={"seed": "1"}),
        "unknown setting 'seed'; the settings are conditions, constraints, objectives, random_state",
    ),
    "seed below 0": (experiment(settings={"random_state": "-1"}), "random_state must be a whole number of at least 0"),
    "eta 1": (experiment("bohb", settings={**HALVING, "eta": "1"}), "eta must be a whole number of at least 2"),
    "r_l below the minimum": (
        experiment("hyperband", settings={**HALVING, "r_l": "2", "min_resource": "3"}),
        "but got min_resource=3, r_l=2",
    ),
    "max_resource above the maximum": (
        experiment("hyperband", settings={**HALVING, "max_resource": "10"}),
        "max_resource <= 9",
    ),
    "no resource": (experiment("bohb"), "resource_name must name the int parameter"),
    "resource no parameter": (experiment("bohb", settings={"resource_name": "epochs"}), "no parameter is called"),
    "resource no int": (experiment("bohb", settings={"resource_name": "lr"}), "must name an int parameter, but 'lr'"),
    "min above max": (experiment(parameters=[{**LR, "min": "2"}]), "min must not be above max, but got min=2, max=1"),
    "step 0": (experiment(parameters=[step(step="0")]), "step must be above 0, but got 0"),
    "min no number": (experiment(parameters=[{**LR, "min": "low"}]), "min must be a number, but got 'low'"),
    "categories twice": (experiment(parameters=[{**KIND, "list": ["a", "a"]}]), "'a' occurs twice"),
    "no categories": (experiment(parameters=[{**KIND, "list": []}]), "needs a non-empty list"),
    "unknown type": (experiment(parameters=[{**LR, "parameter_type": 0}]), "parameterType of 'lr' must be one of"),
    "unknown distribution": (
        experiment(parameters=[{**LR, "distribution": 9}]),
        "distribution of 'lr' must be one of uniform, logUniform, normal, logNormal, but got 9",
    ),
    "no parameters": (experiment(parameters=[]), "must have at least one parameter"),
    "maxTrialCount above the grid": (
        experiment("grid", GRID, max_trial_count=200),
        "grid's 90 configurations",
    ),
    "infinite grid": (experiment("grid", max_trial_count=5), "grid needs a step for a double parameter"),
    "grid without maxTrialCount": (experiment("grid", GRID), "grid needs a number of trials"),
    "early stopping": (
        experiment("bohb", settings=HALVING, early_stopping="medianstop"),
        "earlyStopping must be absent with bohb, which stops trials itself, but got 'medianstop'",
    ),
    "objective type": (experiment(type=messages.UNKNOWN), "goal must be minimize or maximize"),
    "long name": (experiment(name="a" * 41), "an experiment's name must have 1 to 40 characters"),
    "ledger": (experiment(settings={"issued": "!"}), "setting issued must be a ledger of trials"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_rule_is_an_invalid_argument_with_its_value(case):
    sent, expected = BAD[case]
    _, code, details = validate(sent)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in details


@pytest.mark.parametrize("case", ["unknown algorithm", "min above max", "no resource", "objective type", "ledger"])
def test_a_broken_rule_is_told_by_get_suggestions_too(case):
    sent, expected = BAD[case]
    _, code, details = suggest(sent)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in details


GOOD = {
    "random": experiment(),
    "grid": experiment("grid", GRID, max_trial_count=90),
    "tpe": experiment("tpe", early_stopping="medianstop"),
    "hyperband": experiment("hyperband", settings={**HALVING, "r_l": "9", "eta": "3"}),
    "bohb": experiment("bohb", settings=HALVING, parallel_trial_count=16),
    "multivariate-tpe": experiment("multivariate-tpe", settings={"n_ei_candidates": "24"}),
    "bayesianoptimization": experiment("bayesianoptimization", settings={"base_estimator": "GP"}),
    "cmaes": experiment("cmaes", settings={"sigma": "0.3"}),
    "sobol": experiment("sobol"),
    "pbt": experiment("pbt", settings=POPULATION),
}


@pytest.mark.parametrize("algorithm", SUGGESTERS)
def test_every_algorithm_validates_and_suggests(algorithm):
    assert validate(GOOD[algorithm])[1] is grpc.StatusCode.OK
    for count in (1, 4, 31):
        reply, code, details = suggest(GOOD[algorithm], count)
        assert (code, details) == (grpc.StatusCode.OK, "")
        names = [entry.trial_name for entry in reply.parameter_assignments]
        assert len(set(names)) == count
        assert all(name.startswith("example-") and identity(name) for name in names)
        assert {item.name for item in reply.algorithm.algorithm_settings} == {"issued"}
        assert reply.algorithm.algorithm_name == algorithm


def test_labels_are_for_people():
    reply, _, _ = suggest(GOOD["bohb"])
    assert dict(reply.parameter_assignments[0].labels) == {"bracket": "0", "rung": "0", "config": "0"}


def finished(entry, value, condition="SUCCEEDED"):
    trial = messages.Trial(name=entry.trial_name)
    trial.spec.parameter_assignments.assignments.extend(entry.assignments)
    trial.status.condition = messages.TrialStatus.TrialConditionType.Value(condition)
    for metric in ("accuracy", "loss"):
        trial.status.observation.metrics.add(name=metric, value=value if metric == "loss" else "0.0")
    return trial


@pytest.mark.parametrize("value", ["", "nan", "inf", "-inf", "unavailable", "0x"])
def test_a_value_that_is_no_finite_number_is_the_worst(value):
    first, _, _ = suggest(GOOD["hyperband"], 9)
    sent = experiment("hyperband", settings={**HALVING, "r_l": "9", "eta": "3", "issued": ledger(first)})
    trials = [finished(e, str(i)) for i, e in enumerate(first.parameter_assignments)]
    trials[0].status.observation.metrics[1].value = value
    reply, code, _ = suggest(sent, 3, trials)
    assert code is grpc.StatusCode.OK
    assert [identity(e.trial_name).config for e in reply.parameter_assignments] == [1, 2, 3]


def ledger(reply):
    return reply.algorithm.algorithm_settings[0].value


@pytest.mark.parametrize("condition", ["FAILED", "KILLED", "UNKNOWN", "EARLYSTOPPED"])
def test_every_condition_is_taken(condition):
    first, _, _ = suggest(GOOD["hyperband"], 9)
    sent = experiment("hyperband", settings={**HALVING, "r_l": "9", "eta": "3", "issued": ledger(first)})
    trials = [finished(e, "1", condition if i == 0 else "SUCCEEDED") for i, e in enumerate(first.parameter_assignments)]
    assert suggest(sent, 5, trials)[1] is grpc.StatusCode.OK
    trials[1].status.condition = 99  # of a later protocol
    assert suggest(sent, 5, trials)[1] is grpc.StatusCode.OK


def test_a_parameter_reads_as_from_yaml():
    parameters = [
        {**LR, "distribution": messages.LOG_UNIFORM},
        {**step(), "name": "m", "distribution": messages.NORMAL},
        {"name": "d", "parameter_type": messages.DISCRETE, "list": ["8", "16"]},
        {**UNITS, "distribution": messages.LOG_NORMAL},
        KIND,
    ]
    yaml = [
        {
            "name": "lr",
            "parameterType": "double",
            "feasibleSpace": {"min": "0.01", "max": "1", "distribution": "logUniform"},
        },
        {
            "name": "m",
            "parameterType": "double",
            "feasibleSpace": {"min": "0.01", "max": "1", "step": "0.1", "distribution": "normal"},
        },
        {"name": "d", "parameterType": "discrete", "feasibleSpace": {"list": ["8", "16"]}},
        {
            "name": "units",
            "parameterType": "int",
            "feasibleSpace": {"min": "1", "max": "9", "distribution": "logNormal"},
        },
        {"name": "kind", "parameterType": "categorical", "feasibleSpace": {"list": ["a", "b"]}},
    ]
    assert read_search(conversion.read_document(experiment(parameters=parameters))).space == SearchSpace.from_katib(
        yaml
    )


def test_a_log_line_holds_names_and_counts_only(caplog):
    from kondense.suggestion.logs import JsonFormatter

    caplog.set_level("INFO", logger="suggestion")
    sent = experiment(settings={"random_state": "424242"})
    reply, _, _ = suggest(sent, 2)
    suggest(experiment(settings={"token": "hunter2"}))
    validate(experiment(settings={"token": "hunter2"}))
    lines = [JsonFormatter().format(record) for record in caplog.records]
    first = json.loads(lines[0])
    assert (first["event"], first["experiment"], first["requested"]) == ("suggested", "example", 2)
    assert first["first"] == reply.parameter_assignments[0].trial_name
    assert not any(secret in line for line in lines for secret in ("hunter2", "424242"))


@pytest.mark.parametrize("count", [-1, 1_001, 2**31 - 1])
def test_a_call_for_too_many_trials_is_rejected(count):
    reply, code, details = suggest(GOOD["random"], count)
    assert (reply, code) == (None, grpc.StatusCode.INVALID_ARGUMENT)
    assert details == f"current_request_number must be 0 to 1,000, but got {count:,}."


def test_a_call_that_reports_too_many_trials_is_rejected():
    trials = [messages.Trial()] * 50_001
    reply, code, details = suggest(GOOD["random"], 1, trials)
    assert (reply, code) == (None, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert details == "a call must report at most 50,000 trials, but got 50,001."


def test_large_calls_take_turns_and_ordinary_ones_do_not_wait():
    busy = SuggestionService(large_at_once=0)
    for count, trials in ((65, []), (1, [messages.Trial()] * 5_001)):
        _, code, details = suggest(GOOD["random"], count, trials, busy)
        assert (code, details) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "at most 0 large calls are computed at a time: ask again later.",
        )
    reply, code, _ = suggest(GOOD["random"], 64, [messages.Trial()] * 5_000, busy)
    assert (code, len(reply.parameter_assignments)) == (grpc.StatusCode.OK, 64)
    once = SuggestionService(large_at_once=1)
    assert [suggest(GOOD["random"], 65, [], once)[1] for _ in range(3)] == [grpc.StatusCode.OK] * 3


class Gone:
    """A call whose caller goes after some proposals."""

    def __init__(self, proposals):
        self.left, self.ended = proposals, None

    def is_active(self):
        self.left -= 1
        return self.left >= 0

    def abort(self, code, details):
        self.ended = code, details
        raise ConnectionError


@pytest.mark.parametrize("algorithm", SUGGESTERS)
def test_a_call_whose_caller_has_gone_ends(algorithm):
    context = Gone(3)
    request = messages.GetSuggestionsRequest(experiment=GOOD[algorithm], current_request_number=20)
    with pytest.raises(ConnectionError):
        SuggestionService().GetSuggestions(request, context)
    assert context.left == -1  # not asked again after its first no
    assert context.ended == (grpc.StatusCode.CANCELLED, "the caller of the suggestion has gone.")


def test_a_populations_files_are_copied_on_the_volume(tmp_path):
    service = SuggestionService(files=tmp_path)
    first, _, _ = suggest(GOOD["pbt"], 5, service=service)
    names = [entry.trial_name for entry in first.parameter_assignments]
    for name in names:
        (tmp_path / "example" / name / "weights").write_text(name)
    sent = experiment("pbt", settings=POPULATION)
    sent.spec.algorithm.algorithm_settings.extend(first.algorithm.algorithm_settings)
    trials = [finished(entry, str(i)) for i, entry in enumerate(first.parameter_assignments)]
    second, _, _ = suggest(sent, 3, trials, service)
    for entry in second.parameter_assignments:
        parent = dict(entry.labels)["pbt.suggestion.katib.kubeflow.org/parent"]
        assert (tmp_path / "example" / entry.trial_name / "weights").read_text() == parent
    again, _, _ = suggest(sent, 3, trials, service)  # a repeated request leaves a trial's files alone
    assert again == second


def test_no_name_leads_out_of_the_volume(tmp_path):
    sent = experiment("pbt", settings=POPULATION, name="../out")
    (tmp_path / "volume").mkdir()
    _, code, details = suggest(sent, 1, service=SuggestionService(files=tmp_path / "volume"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "must be a Kubernetes name, but got" in details
    assert not (tmp_path / "out").exists()


class TestTrialsOfTheLastCall:
    """Those whose messages are the same are the same objects; an answer depends on the request alone."""

    SPACE = SearchSpace.from_katib(
        [{"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}]
    )

    @pytest.fixture(autouse=True)
    def nothing_kept(self, monkeypatch):
        monkeypatch.setattr(conversion, "KNOWN", Memory(8))

    def messages(self, *values, name="a", lr="0.5"):
        trials = []
        for number, value in enumerate(values):
            trial = messages.Trial(name=f"{name}{number}")
            trial.spec.parameter_assignments.assignments.add(name="lr", value=lr)
            trial.status.condition = messages.TrialStatus.SUCCEEDED
            trial.status.observation.metrics.add(name="loss", value=value)
            trial.status.observation.metrics.add(name="size", value="7")
            trials.append(trial)
        return trials

    def read(self, trials, experiment="e", metric="loss", others=()):
        return conversion.read_trials(trials, experiment, self.SPACE, metric, others)

    def test_are_not_read_again(self):
        first, again = self.read(self.messages("1", "2")), self.read(self.messages("1", "3"))
        assert again[0] is first[0]
        assert [trial.value for trial in again] == [1, 3]

    def test_are_read_again_when_anything_changes(self):
        first = self.read(self.messages("1"))[0]
        running, other = self.messages("1")[0], self.messages("1", lr="0.25")[0]
        running.status.condition = messages.TrialStatus.RUNNING
        assert self.read([running])[0].status != first.status
        assert self.read([other])[0].assignments == {"lr": "0.25"}
        assert self.read(self.messages("1"), metric="size")[0].value == 7
        assert self.read(self.messages("1"), others=("size",))[0].metrics == {"size": 7}
        assert self.read(self.messages("1"))[0] == first

    def test_are_in_the_order_of_the_request(self):
        one, two = self.messages("1", "2")
        self.read([one, two])
        assert [trial.value for trial in self.read([two, one])] == [2, 1]

    def test_are_those_of_a_few_experiments(self):
        first = self.read(self.messages(*"1234"), "first")
        second = self.read(self.messages(*"1234"), "second")
        assert first[0] is not second[0]
        assert self.read(self.messages(*"1234"), "first")[0] is first[0]
        self.read(self.messages(*"12345"), "third")  # of the three together there is no room
        assert self.read(self.messages(*"1234"), "first")[0] is not first[0]

    def test_are_forgotten_when_they_are_gone(self):
        first = self.read(self.messages("1", "2"))
        self.read(self.messages("1"))
        assert self.read(self.messages("1", "2"))[1] is not first[1]
        assert len(conversion.KNOWN) == 2

    def test_are_not_kept_beyond_a_number(self):
        first = self.read(self.messages(*"123456789"))
        assert self.read(self.messages(*"123456789"))[0] is not first[0]
        assert len(conversion.KNOWN) == 0

    def test_of_any_history_give_the_same_answer(self, monkeypatch):
        sent = experiment("bohb", settings=HALVING)
        trials, replies = [], []
        for turn in range(30):
            reply, code, details = suggest(sent, 1, trials)
            assert code is grpc.StatusCode.OK, details
            replies.append(reply)
            monkeypatch.setattr(conversion, "KNOWN", Memory(1_000))
            monkeypatch.setattr(states, "PARTS", Memory(1_000))
            assert suggest(sent, 1, trials)[0] == reply, turn
            del sent.spec.algorithm.algorithm_settings[:]
            sent.spec.algorithm.algorithm_settings.add(name="resource_name", value="units")
            sent.spec.algorithm.algorithm_settings.extend(reply.algorithm.algorithm_settings)
            entry = reply.parameter_assignments[0]
            trial = self.messages(str(turn % 7))[0]
            trial.name = entry.trial_name
            trial.spec.parameter_assignments.CopyFrom(messages.TrialSpec.ParameterAssignments())
            trial.spec.parameter_assignments.assignments.extend(entry.assignments)
            trials.append(trial)
        assert len({entry.trial_name for reply in replies for entry in reply.parameter_assignments}) == 30
