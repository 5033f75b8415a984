"""The Job that registers algorithms in Katib's configuration, against an API server over HTTP."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kondense.errors import InputError
from kondense_pipelines.deploy import algorithms

from tests.support.fake_api import FakeApi, serve

PATH = "/api/v1/namespaces/kubeflow/configmaps/katib-config"
FILE = Path(__file__).parents[3] / "manifests" / "katib" / "algorithms.yaml"
ENTRIES = algorithms.read_algorithms(FILE, "registry.test/suggestion-python:1")
STOPPING = "earlyStoppings"
# As Katib 0.19 installs it, shortened, and with something of the user's own.
CONFIG = {
    "apiVersion": "config.kubeflow.org/v1beta1",
    "kind": "KatibConfig",
    "init": {"controller": {"webhookPort": 8443, "trialResources": ["Job.v1.batch"]}},
    "runtime": {
        "metricsCollectors": [{"kind": "StdOut", "image": "collector:v0.19.0"}],
        "suggestions": [
            {"algorithmName": "random", "image": "suggestion-hyperopt:v0.19.0"},
            {"algorithmName": "hyperband", "image": "suggestion-hyperband:v0.19.0"},
            {"algorithmName": "of-the-user", "image": "theirs:1", "resources": {"limits": {"memory": "1Gi"}}},
        ],
        "earlyStoppings": [
            {"algorithmName": "medianstop", "image": "earlystopping-medianstop:v0.19.0"},
            {"algorithmName": "of-the-user", "image": "theirs:2"},
        ],
    },
}


@pytest.fixture
def fake() -> FakeApi:
    made = FakeApi()
    made.put(PATH, {"metadata": {"name": "katib-config"}, "data": {"katib-config.yaml": yaml.safe_dump(CONFIG)}})
    made.put("/api/v1/namespaces/kubeflow", {"metadata": {"name": "kubeflow", "labels": {"theirs": "kept"}}})
    return made


def apply(fake: FakeApi, **options: bool) -> list[str]:
    with serve(fake) as api:
        return list(algorithms.apply(api, "kubeflow", ENTRIES, **options))


def config(fake: FakeApi) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(fake.objects[PATH]["data"]["katib-config.yaml"])
    return found


def by_name(content: dict[str, Any], section: str = "suggestions") -> dict[str, Any]:
    return {each["algorithmName"]: each for each in content["runtime"][section]}


def test_ours_join_and_all_else_stays(fake: FakeApi) -> None:
    apply(fake)
    after = config(fake)
    before = by_name(CONFIG)
    assert {**after, "runtime": {**after["runtime"], "suggestions": [], STOPPING: []}} == {
        **CONFIG,
        "runtime": {**CONFIG["runtime"], "suggestions": [], STOPPING: []},  # type: ignore[dict-item]
    }
    assert by_name(after)["of-the-user"] == before["of-the-user"]
    assert by_name(after)["bohb"]["image"] == "registry.test/suggestion-python:1"
    assert by_name(after)["hyperband"]["resources"]["limits"]["memory"]
    assert len(after["runtime"]["suggestions"]) == len(ENTRIES["suggestions"]) + 1  # the user's
    stopping = by_name(after, STOPPING)
    assert stopping["of-the-user"] == by_name(CONFIG, STOPPING)["of-the-user"]
    assert stopping["medianstop"]["image"] == "registry.test/suggestion-python:1"
    assert set(stopping["medianstop"]) <= {"algorithmName", "image", "imagePullPolicy", "resources"}  # Katib's fields
    assert set(stopping) == {"of-the-user", "medianstop", "curvestop"}
    labels = fake.objects["/api/v1/namespaces/kubeflow"]["metadata"]["labels"]
    assert labels == {"theirs": "kept", **algorithms.LABEL}


def test_a_second_run_writes_nothing(fake: FakeApi) -> None:
    apply(fake)
    calls = len(fake.log)
    assert "registered already" in apply(fake)[0]
    assert "PUT" not in {method for method, _ in fake.log[calls:]}


def test_another_image_replaces_ours_and_katibs_own_is_remembered(fake: FakeApi) -> None:
    apply(fake)
    with serve(fake) as api:
        newer = algorithms.read_algorithms(FILE, "registry.test/suggestion-python:2")
        list(algorithms.apply(api, "kubeflow", newer))
    assert by_name(config(fake))["bohb"]["image"].endswith(":2")
    apply(fake, removing=True)
    assert by_name(config(fake)) == by_name(CONFIG)


def test_removal_gives_back_what_was_there(fake: FakeApi) -> None:
    apply(fake)
    assert "removed" in apply(fake, removing=True)[0]
    assert by_name(config(fake)) == by_name(CONFIG)
    assert by_name(config(fake), STOPPING) == by_name(CONFIG, STOPPING)
    assert not set(algorithms.SECTIONS.values()) & set(fake.objects[PATH]["metadata"].get("annotations") or {})


def test_a_list_that_was_not_there_is_gone_again() -> None:
    """Katib's configuration may have no early stopping at all."""
    bare = {"kind": "KatibConfig", "runtime": {"suggestions": [{"algorithmName": "random", "image": "a"}]}}
    changed, replaced = algorithms.add(bare, ENTRIES[STOPPING], {}, STOPPING)
    assert [each["algorithmName"] for each in changed["runtime"][STOPPING]] == ["medianstop", "curvestop"]
    assert algorithms.remove(changed, replaced, STOPPING) == bare


def test_the_last_of_two_entries_of_a_name_is_the_one_that_counted() -> None:
    twice = {"kind": "KatibConfig", "runtime": {"suggestions": [{"algorithmName": "bohb", "image": n} for n in "ab"]}}
    bohb = [entry for entry in ENTRIES["suggestions"] if entry["algorithmName"] == "bohb"]
    changed, replaced = algorithms.add(twice, bohb, {})
    assert [each["algorithmName"] for each in changed["runtime"]["suggestions"]] == ["bohb"]
    assert replaced == {"bohb": {"algorithmName": "bohb", "image": "b"}}


def test_a_namespace_without_katib_is_told() -> None:
    with pytest.raises(ValueError, match="Katib must be installed in namespace kubeflow"):
        apply(FakeApi())


@pytest.mark.parametrize(
    ("data", "message"),
    [({}, "must hold katib-config.yaml"), ({"katib-config.yaml": "kind: Other"}, "must be a KatibConfig")],
)
def test_another_form_of_the_configuration_is_told(fake: FakeApi, data: dict[str, str], message: str) -> None:
    fake.objects[PATH]["data"] = data
    with pytest.raises(ValueError, match=message):
        apply(fake)


@pytest.mark.parametrize("content", ["", "algorithms: [bohb]", "algorithms: []\ncontainer: {}", "a: 1"])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "algorithms.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match="must hold algorithms"):
        algorithms.read_algorithms(path, "image")


@pytest.mark.parametrize(("content", "rule"), [("[" * 200_000, "at most 100 levels"), ("a: [", "must be YAML")])
def test_a_file_that_is_no_yaml_is_refused_in_one_line(tmp_path: Path, content: str, rule: str) -> None:
    path = tmp_path / "algorithms.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=rule) as error:
        algorithms.read_algorithms(path, "image")
    assert str(error.value).startswith(f"{path} must be YAML") and "\n" not in str(error.value)


def test_an_image_must_be_named() -> None:
    with pytest.raises(ValueError, match="KONDENSE_SUGGESTION_IMAGE"):
        algorithms.read_algorithms(FILE, "")
