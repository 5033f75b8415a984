"""The trials of earlier searches, from the places where they are kept."""

import io
import json

import pytest
from kondense.katib.document import read_search
from kondense.katib_search.cluster import Katib
from kondense.katib_search.earlier import earlier_setting
from kondense.search.journal import JournalError
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.runner import run
from rich.console import Console

from tests.support.experiment_example import experiment, write
from tests.support.fake_kubernetes import Server, make_trial


def results(directory, **changes):
    points = [(0.2, "a"), (0.3, "b"), (0.4, "a"), (0.5, "b"), (0.6, "a"), (5.0, "a"), (0.7, "c")]
    trials = [
        {
            "status": "succeeded",
            "assignments": {"lr": str(lr), "units": "8", "kind": kind, "depth": "3"},
            "value": lr,
            "metrics": {"loss": str(lr), "accuracy": str(1 - lr)},
            "resource": None,
        }
        for lr, kind in points
    ]
    trials.append(trials[0] | {"status": "failed"})
    parameters = [{"name": name} for name in ("lr", "units", "kind", "depth")]
    found = {"format_version": 1, "objective": {"metric": "loss", "type": "minimize"}, "parameters": parameters}
    directory.mkdir(exist_ok=True)
    (directory / "results.json").write_text(json.dumps(found | {"trials": trials} | changes))
    return directory


def test_trials_of_the_shared_parameters_within_the_space(tmp_path):
    document = experiment()
    momentum = {"name": "momentum", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}
    document["spec"]["parameters"].append(momentum)
    search = read_search(document)
    # Not the one with lr 5, not that of kind c, not the failed one; without depth, which this search has not.
    kept = [(0.2, "a"), (0.3, "b"), (0.4, "a"), (0.5, "b"), (0.6, "a")]
    expected = [[{"lr": str(lr), "units": "8", "kind": kind}, None, [lr]] for lr, kind in kept]
    place = results(tmp_path / "first")
    assert json.loads(earlier_setting([str(place)], search)) == expected
    assert json.loads(earlier_setting([f"file://{place}/results.json"], search)) == expected
    twice = json.loads(earlier_setting([str(place), str(results(tmp_path / "second"))], search))
    assert len(twice) == 10


def test_values_of_further_objectives_come_along(tmp_path):
    document = experiment()
    document["spec"]["algorithm"]["algorithmSettings"].append({"name": "objectives", "value": "maximize accuracy"})
    found = json.loads(earlier_setting([str(results(tmp_path / "a"))], read_search(document)))
    assert found[0][2] == [0.2, 0.8]
    document["spec"]["objective"]["additionalMetricNames"].append("size")
    document["spec"]["algorithm"]["algorithmSettings"].append({"name": "constraints", "value": "size <= 5"})
    found = json.loads(earlier_setting([str(results(tmp_path / "a"))], read_search(document)))
    assert found[0][2] == [0.2, 0.8, None]  # of which the earlier search knew nothing


def test_trials_of_an_experiment_on_a_cluster(cluster: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kondense.katib_search.earlier.connect_to_cluster", cluster.api)
    body = experiment()
    body["metadata"] |= {"name": "before", "annotations": {"kondense/run": "r"}}
    Katib(cluster.api, "kubeflow", log=lambda line: None).create(body)
    for number in range(2, 7):
        assignments = {"lr": f"0.{number}", "units": "8", "kind": "a"}
        cluster.trials.append(make_trial("before", f"t{number}", assignments, "Succeeded", {"loss": f"0.{number}"}))
    found = json.loads(earlier_setting(["katib://kubeflow/before"], read_search(experiment())))
    assert [trial[2] for trial in found] == [[0.2], [0.3], [0.4], [0.5], [0.6]]
    with pytest.raises(ValueError, match="there is no Experiment other in namespace kubeflow"):
        earlier_setting(["katib://kubeflow/other"], read_search(experiment()))


def test_the_experiments_of_a_namespace_that_share_most_with_the_search(
    cluster: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("kondense.katib_search.earlier.connect_to_cluster", cluster.api)
    search = read_search(experiment())

    def add(name, parameters, start, **spec):
        body = experiment()
        body["metadata"] |= {"name": name, "annotations": {"kondense/run": "r"}}
        body["spec"]["parameters"] = [each for each in body["spec"]["parameters"] if each["name"] in parameters]
        body["spec"] |= spec
        Katib(cluster.api, "kubeflow", log=lambda line: None).create(body)
        for number in range(start, start + 4):
            values = {"lr": f"0.{number}", "units": "8", "kind": "a"}
            assignments = {key: value for key, value in values.items() if key in parameters}
            cluster.trials.append(make_trial(name, f"{name}-{number}", assignments, metrics={"loss": f"0.{number}"}))

    add("of-one", ["lr"], 1)
    assert len(json.loads(earlier_setting(["katib://kubeflow"], search))) == 4
    other = {"objective": {"type": "maximize", "objectiveMetricName": "loss"}}
    add("upwards", ["lr", "units", "kind"], 1, **other)
    add("of-two", ["lr", "units"], 2)
    add("of-two-as-well", ["lr", "units"], 5)
    add("architectures", ["lr", "units", "kind"], 1, algorithm={"algorithmName": "enas"})
    found = json.loads(earlier_setting(["katib://kubeflow/"], search))
    assert sorted(trial[2][0] for trial in found) == [0.2, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7, 0.8]
    assert all(set(trial[0]) == {"lr", "units"} for trial in found)
    cluster.experiments.clear()
    with pytest.raises(ValueError, match=r"must have an Experiment with values of loss .*, but kubeflow has none"):
        earlier_setting(["katib://kubeflow"], search)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"format_version": 9}, "format_version"),
        ({"trials": 5}, "must be the results of a search, but trials is damaged or missing"),
        ({"trials": [5]}, "must be the results of a search, but trials is damaged or missing"),
        ({"objective": {"metric": "loss", "type": "maximize"}}, "must have the goal of this one, minimize loss"),
        ({"objective": {"metric": "loss", "type": "\n"}}, r"but .* has '\\n'\.$"),
        (
            {"objective": {"metric": "error", "type": "minimize"}, "trials": []},
            "must have values of loss, but no",
        ),
        ({"parameters": [{"name": "depth"}]}, r"must share parameters .* \(lr, units, kind\), but .* has depth"),
        ({"trials": []}, "must have values of loss"),
    ],
)
def test_a_search_that_does_not_fit_is_refused(tmp_path, changes, rule):
    place = results(tmp_path / "a", **changes)
    with pytest.raises(ValueError, match=rule) as error:
        earlier_setting([str(place)], read_search(experiment()))
    assert "\n" not in str(error.value)


def test_no_search_and_a_broken_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be a results.json or its directory, but .*nothing is none"):
        earlier_setting([str(tmp_path / "nothing")], read_search(experiment()))
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="JSON"):
        earlier_setting([str(tmp_path)], read_search(experiment()))
    for wrong in ("katib://", "katib://kubeflow/a/b"):
        with pytest.raises(ValueError, match="must be katib://NAMESPACE or katib://NAMESPACE/EXPERIMENT"):
            earlier_setting([wrong], read_search(experiment()))


def start(document, tmp_path, **options):
    return run(write(document, tmp_path), tmp_path / "out", 1, display=Display(Console(file=io.StringIO())), **options)


def test_a_local_search_starts_from_another_and_continues_with_it(tmp_path):
    document = experiment()
    document["spec"]["algorithm"] = {"algorithmName": "tpe"}
    place = results(tmp_path / "first")
    result = start(document, tmp_path, earlier=[str(place)])
    summary = json.loads(result.results_file.read_text())
    assert summary["trials"][0]["assignments"] == {"lr": "0.2", "units": "8", "kind": "a"}  # the best of the first
    (place / "results.json").unlink()  # what was read is kept with the run
    document["spec"]["maxTrialCount"] = 9
    again = start(document, tmp_path, earlier=[str(place)])
    longer = json.loads(again.results_file.read_text())
    assert (result.trials, again.trials) == (6, 9)
    assert longer["trials"][:6] == summary["trials"]  # trials are added to the finished search
    with pytest.raises(JournalError, match="must belong to this search"):
        start(document, tmp_path)
