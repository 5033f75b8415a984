"""The Job that makes the Experiments' data set and teacher, in a real object store, and the trials that read them."""

from pathlib import Path

import pytest
import yaml
from kondense.artifacts.model import load_model
from kondense.data.dataset import load_dataset
from kondense.store.open import open_store
from kondense.trial.config import TrialConfig
from kondense.trial.stage import run as run_trial
from kondense_pipelines.deploy import inputs

ROOT = Path(__file__).parents[2]


def test_they_are_made_once_and_trials_start_from_them(bucket_uri: str, tmp_path: Path) -> None:
    data, teacher = f"{bucket_uri}/datasets/digits", f"{bucket_uri}/teachers/lenet300"
    arguments = [f"digits={data}"], [f"lenet300={teacher}"]
    assert list(inputs.ensure(*arguments)) == [
        f"data set digits: created, {data}",
        f"teacher lenet300: created, {teacher}",
    ]
    store = open_store(teacher)
    before = {key: store.read(key) for key in store.list()}
    assert list(inputs.ensure(*arguments)) == [
        f"data set digits: exists, {data}",
        f"teacher lenet300: exists, {teacher}",
    ]
    assert {key: store.read(key) for key in store.list()} == before
    for uri, load in ((data, load_dataset), (teacher, load_model)):
        directory = tmp_path / uri.rpartition("/")[2]
        open_store(uri).download_artifact(directory)
        load(directory)
    recipe, settings = "prune:magnitude:0.5:epochs=1", '{"train.network": "lenet300"}'
    found = run_trial(TrialConfig(dataset_uri=data, teacher_uri=teacher, recipe=recipe, settings=settings))
    assert found["validation_accuracy"] > 0.5


def test_a_kill_before_the_last_file_leaves_nothing_to_be_taken_for_whole(
    bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket_uri}/datasets/digits"
    store = open_store(uri)
    upload = type(store).upload_file

    def killed(self: object, key: str, path: Path) -> None:
        if key == inputs.DATASET_FILE:
            raise KeyboardInterrupt
        upload(self, key, path)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(type(store), "upload_file", killed)
        list(inputs.ensure([f"digits={uri}"], []))
    assert store.list() and not store.exists(inputs.DATASET_FILE)
    assert list(inputs.ensure([f"digits={uri}"], [])) == [f"data set digits: created, {uri}"]


@pytest.mark.parametrize(
    ("datasets", "teachers", "rule"),
    [
        (["digits"], [], "--dataset must be NAME=URI, .* but got 'digits'"),
        (["mnist=minio://b/d"], [], "dataset_name must be one of .* but got 'mnist'"),
        ([], ["lenet5=minio://b/t"], "--teacher needs a --dataset"),
        (["digits=minio://b/d"], ["lenet9=minio://b/t"], "lenet9"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(datasets: list[str], teachers: list[str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        list(inputs.ensure(datasets, teachers))


def test_the_job_makes_what_the_experiments_name() -> None:
    job = yaml.safe_load((ROOT / "manifests" / "inputs" / "job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    made = {argument.rpartition("=")[2] for argument in container["args"]}
    named = set()
    for path in sorted((ROOT / "manifests" / "experiments").glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        if document["kind"] == "Experiment":
            (trial,) = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
            variables = {each["name"]: each.get("value") for each in trial.get("env", ())}
            named |= {variables[name] for name in ("DATASET_URI", "TEACHER_URI") if name in variables}
    assert named == made
