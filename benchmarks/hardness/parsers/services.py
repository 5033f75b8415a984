"""Services and clusters: requests, Katib's database, objects of the Kubernetes API."""

from pathlib import Path
from typing import Any, NoReturn

from benchmarks.hardness.parsers.parser import Parser, as_json

ALGORITHMS = ("random", "tpe", "hyperband")
MOST_ASKED = 3  # trials of a call, so that the count costs no time of an input


class _Call:
    """A gRPC call whose refusal is an error of one line."""

    def is_active(self) -> bool:
        return True

    def abort(self, code: object, details: str) -> NoReturn:
        from kondense.errors import InputError

        raise InputError(f"{code}: {details}")


def _message(kind: str, content: bytes) -> Any:
    """Return a message of Katib's from protobuf's JSON, so that most mutations get past the encoding."""
    from google.protobuf.json_format import Parse, ParseError
    from kondense.errors import InputError
    from kondense.json_text import json_object
    from kondense.katib.api import messages

    json_object(content, kind)  # what it refuses is no message either
    try:
        return Parse(content, getattr(messages, kind)(), ignore_unknown_fields=True)
    except ParseError as error:
        raise InputError(f"{kind}: {' '.join(str(error).split())[:200]}") from None


def _as_json(message: Any) -> bytes:
    from google.protobuf.json_format import MessageToJson

    return MessageToJson(message).encode()


def _experiment(algorithm: str) -> Any:
    from kondense.katib.api import messages

    made = messages.Experiment(name="e")
    made.spec.objective.type = messages.MINIMIZE
    made.spec.objective.objective_metric_name = "loss"
    made.spec.objective.additional_metric_names.append("bytes")
    made.spec.algorithm.algorithm_name = algorithm
    settings = {"constraints": "bytes <= 9", "conditions": "lr if kind is a"}
    settings |= {"resource_name": "units"} if algorithm == "hyperband" else {}
    for name, value in settings.items():
        made.spec.algorithm.algorithm_settings.add(name=name, value=value)
    for name, kind, space in (
        ("lr", messages.DOUBLE, {"min": "0.01", "max": "1", "distribution": messages.LOG_UNIFORM}),
        ("units", messages.INT, {"min": "1", "max": "9"}),
        ("kind", messages.CATEGORICAL, {"list": ["a", "b"]}),
    ):
        made.spec.parameter_specs.parameters.add(
            name=name, parameter_type=kind, feasible_space=messages.FeasibleSpace(**space)
        )
    made.spec.early_stopping.algorithm_name = "" if algorithm == "hyperband" else "medianstop"
    return made


def _trial(entry: Any, value: str) -> Any:
    from kondense.katib.api import messages

    trial = messages.Trial(name=entry.trial_name)
    trial.spec.parameter_assignments.assignments.extend(entry.assignments)
    trial.status.condition = messages.TrialStatus.SUCCEEDED
    for name in ("loss", "bytes"):
        trial.status.observation.metrics.add(name=name, value=value)
    return trial


def _requests(_: Path) -> list[bytes]:
    """Return a first request of each algorithm, and one that reports its trials."""
    from kondense.katib.api import messages
    from kondense.suggestion.service import SuggestionService

    requests = []
    for algorithm in ALGORITHMS:
        first = messages.GetSuggestionsRequest(experiment=_experiment(algorithm), current_request_number=2)
        reply = SuggestionService().GetSuggestions(first, _Call())
        second = messages.GetSuggestionsRequest()
        second.CopyFrom(first)
        second.experiment.spec.algorithm.algorithm_settings.extend(reply.algorithm.algorithm_settings)
        values = zip(reply.parameter_assignments, ("0.5", "7e1"), strict=True)
        second.trials.extend(_trial(entry, value) for entry, value in values)
        requests += [_as_json(first), _as_json(second)]
    return requests


def _read_request(content: bytes, scratch: Path) -> object:
    from kondense.katib.api import messages
    from kondense.suggestion.service import SuggestionService

    request = _message("GetSuggestionsRequest", content)
    request.current_request_number = min(request.current_request_number, MOST_ASKED)
    service = SuggestionService(files=scratch / "none")
    reply = service.GetSuggestions(request, _Call())
    service.ValidateAlgorithmSettings(messages.ValidateAlgorithmSettingsRequest(experiment=request.experiment), _Call())
    return reply.SerializeToString()


def _stopping_requests(_: Path) -> list[bytes]:
    from kondense.katib.api import messages

    request = messages.GetEarlyStoppingRulesRequest(experiment=_experiment("random"), db_manager_address="db:6789")
    request.experiment.spec.early_stopping.algorithm_settings.add(name="start_step", value="2")
    for number in range(4):
        trial = request.trials.add(name=f"t{number}")
        trial.status.condition = messages.TrialStatus.SUCCEEDED
        for name in ("loss", "bytes"):
            trial.status.observation.metrics.add(name=name, value=f"0.{number}")
    other = messages.GetEarlyStoppingRulesRequest()
    other.CopyFrom(request)
    other.experiment.spec.early_stopping.algorithm_name = "curvestop"
    other.experiment.spec.early_stopping.algorithm_settings[0].value = "1"
    return [_as_json(request), _as_json(other)]


class _Cluster:
    """Katib's database and the Kubernetes API, with given content."""

    def __init__(self, reports: list[tuple[str, str]], trial: Any) -> None:
        self.reports, self.trial = reports, trial

    def read(self, address_or_name: str, trial: str | None = None, metric: str = "") -> Any:
        from kondense.suggestion.trial_objects import checked

        if trial is None:
            return checked(self.trial)
        return [(name, value) for name, value in self.reports if metric in ("", name)]

    def patch_status(self, name: str, version: str, status: Any) -> None:
        pass


def _read_stopping_request(content: bytes, _: Path) -> object:
    """Answer a request; the trials' own values stand for their reports in Katib's database."""
    from kondense.suggestion.early_stopping import EarlyStoppingService

    request = _message("GetEarlyStoppingRulesRequest", content)
    metrics = [metric for trial in request.trials for metric in trial.status.observation.metrics]
    cluster: Any = _Cluster([(metric.name, metric.value) for metric in metrics], {})
    return EarlyStoppingService(cluster, cluster).GetEarlyStoppingRules(request, _Call()).SerializeToString()


def _trial_objects(_: Path) -> list[bytes]:
    objective = {"objectiveMetricName": "loss", "additionalMetricNames": ["bytes"]}
    conditions = [{"type": "Created", "status": "True"}, {"type": "Running", "status": "True"}]
    trial = {
        "metadata": {"name": "t", "resourceVersion": "7"},
        "spec": {"objective": objective},
        "status": {"conditions": conditions},
    }
    reports = [["loss", "0.5"], ["bytes", "7"], ["loss", "0.25"], ["loss", "1e308"]]
    return as_json({"trial": trial, "reports": reports})


def _read_trial_object(content: bytes, _: Path) -> object:
    from kondense.json_text import json_object
    from kondense.katib.api import messages
    from kondense.suggestion.early_stopping import EarlyStoppingService

    found = json_object(content, "answers")
    listed = found.get("reports")
    reports = [(str(each[0]), str(each[1])) for each in listed if _is_pair(each)] if isinstance(listed, list) else []
    cluster: Any = _Cluster(reports, found.get("trial"))
    service = EarlyStoppingService(cluster, cluster)
    service._address = "db:6789"
    return service.SetTrialStatus(messages.SetTrialStatusRequest(trial_name="t"), _Call())


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2


def _events(_: Path) -> list[bytes]:
    from tests.support.event_records import event

    records = [event(float(number), tag, 0.5, tensor=number % 2 == 0) for number in range(3) for tag in ("loss", "x")]
    return [b"".join(records)]


def _read_events(content: bytes, scratch: Path) -> object:
    from kondense.katib.event_files import event_reports
    from kondense.katib.metrics import observe
    from kondense.katib.spec import Objective

    directory = scratch / "events"
    directory.mkdir(exist_ok=True)
    (directory / "events").write_bytes(content)
    objective = Objective("loss", ("events/x",), {"loss": "min", "events/x": "max"})
    return observe(event_reports(directory, objective), objective)


def _train_jobs(_: Path) -> list[bytes]:
    conditions = [{"type": "Suspended", "status": "False"}, {"type": "Failed", "status": "True", "message": "lost"}]
    jobs = [{"name": "node", "active": 1, "ready": 2, "failed": 0}]
    return as_json({"metadata": {"name": "j"}, "status": {"conditions": conditions, "jobsStatus": jobs}})


def _read_train_job(content: bytes, _: Path) -> object:
    from kondense.artifacts.schema import check_fields
    from kondense.json_text import json_object
    from kondense.train_job.follow import TrainJob, condition, counters

    job = json_object(content, "the TrainJob")
    check_fields("the TrainJob", job, TrainJob)
    return [condition(job, kind) for kind in ("Suspended", "Failed", "Complete")], counters(job)


def _searches(earlier: bool) -> Any:
    from kondense.katib.document import read_search

    names = {"learning_rate": {"min": "0.01", "max": "1"}, "momentum": {"min": "0.5", "max": "0.9"}}
    parameters = [
        {"name": name, "parameterType": "double", "feasibleSpace": space} for name, space in names.items()
    ] + [{"name": "kind", "parameterType": "categorical", "feasibleSpace": {"list": ["a > b", "b"]}}]
    objective = {"objectiveMetricName": "loss", "type": "minimize", "additionalMetricNames": ["bytes"]}
    spec = {"objective": objective, "algorithm": {"algorithmName": "tpe"}, "parameters": parameters}
    return {"metadata": {"name": "e"}, "spec": spec} if earlier else read_search({"spec": spec})


def _earlier_settings(_: Path) -> list[bytes]:
    trials = [
        [{"learning_rate": f"0.{number}1", "momentum": "0.7", "kind": "b"}, None if number % 2 else 3, [0.5 / number]]
        for number in range(1, 8)
    ]
    return as_json(trials)


def _with_settings(settings: dict[str, str]) -> object:
    """Ask for a configuration of a search with these settings."""
    from kondense.katib.document import read_search

    document = _searches(earlier=True)
    entries = [{"name": name, "value": value} for name, value in settings.items()]
    document["spec"]["algorithm"]["algorithmSettings"] = entries
    search = read_search(document)
    search.validate()
    return search.suggester.suggest(search.space, search.settings, search.seed, search.history(), 1)


def _read_earlier_setting(content: bytes, _: Path) -> object:
    return _with_settings({"earlier": content.decode(errors="replace")})


def _settings(_: Path) -> list[bytes]:
    return as_json(
        {"objectives": "minimize bytes", "constraints": "bytes <= 500, loss >= 0.1", "random_state": "7"},
        {"conditions": "learning_rate if kind is a > b|b; momentum if kind has b", "min_points_in_model": "3"},
    )  # fmt: skip


def _read_settings(content: bytes, _: Path) -> object:
    from kondense.json_text import json_object
    from kondense.search.pick import read_pick

    settings = {name: str(value) for name, value in json_object(content, "settings").items()}
    read_pick(settings.get("constraints", ""), ("loss", "bytes"))
    return _with_settings(settings)


def _results(_: Path) -> list[bytes]:
    trials = [
        {
            "name": f"t{number}", "status": "succeeded", "value": 0.1 * number, "resource": 3.0, "curve": [0.5],
            "metrics": {"loss": "0.5", "bytes": "7"},
            "assignments": {"learning_rate": "0.5", "momentum": "0.7", "kind": "b"},
        }
        for number in range(1, 7)
    ]  # fmt: skip
    parameters = [{"name": "learning_rate"}, {"name": "momentum"}]
    objective = {"metric": "loss", "type": "minimize"}
    return as_json({"format_version": 1, "objective": objective, "parameters": parameters, "trials": trials})


def _read_results(content: bytes, scratch: Path) -> object:
    from kondense.katib_search.earlier import earlier_setting

    (scratch / "results.json").write_bytes(content)
    return earlier_setting([str(scratch)], _searches(earlier=False))


def _latencies(_: Path) -> list[bytes]:
    rows = [{"counts": {"a": 3, "b": 2}, "ratio": 0.5, "confirmed": True}]
    return as_json({"unpruned_ms": 1.5, "ratios": rows})


def _read_latencies(content: bytes, scratch: Path) -> object:
    from kondense.prune.timing import TABLE, Timing
    from kondense.store.local import LocalStore
    from kondense.training.checkpoint import Checkpoint

    (scratch / "c").mkdir(exist_ok=True)
    (scratch / "c" / TABLE).write_bytes(content)
    timing = Timing.__new__(Timing)  # its start measures a network
    timing.checkpoint, timing.ratios, timing.confirmed = Checkpoint(LocalStore(scratch), "c"), {}, set()
    return timing._load()


PARSERS = (
    Parser("requests for suggestions", "json", _requests, _read_request, 0.5),
    Parser("requests for early stopping", "json", _stopping_requests, _read_stopping_request),
    Parser("reports and Trials of early stopping", "json", _trial_objects, _read_trial_object),
    Parser("TensorBoard events", "bytes", _events, _read_events),
    Parser("TrainJob", "json", _train_jobs, _read_train_job, 0.5),
    Parser("setting earlier", "json", _earlier_settings, _read_earlier_setting, 0.1),
    Parser("settings of a search", "json", _settings, _read_settings, 0.5),
    Parser("results.json", "json", _results, _read_results, 0.5),
    Parser("latencies of a checkpoint", "json", _latencies, _read_latencies),
)
