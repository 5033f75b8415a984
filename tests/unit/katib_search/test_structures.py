"""What the run form's lists and maps stand for, with numbers as KFP hands them over."""

import json

import pytest
import yaml
from kondense.katib_search.config import KatibSearchConfig
from kondense.katib_search.experiment import build_plan
from kondense.katib_search.structures import RESOURCES, config_texts, whole

from tests.support.strict_kfp.values import wire

RUN = "3f2b8a9c-77d1-4c1e-9a55-0123456789ab"


def floats(value):
    """Return JSON data as kfp.local hands it over: every number a float."""
    if isinstance(value, dict):
        return {key: floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def texts(experiment=None, space=None, settings=None, resources=None):
    return config_texts(experiment or {}, space or [], settings or {}, resources or {})


def test_what_is_empty_stays_as_the_experiment_says():
    assert texts() == {}
    empty = {"node_selector": {}, "tolerations": [], "cpu": None}
    assert KatibSearchConfig(**texts(resources=empty)) == KatibSearchConfig()


@pytest.mark.parametrize("sent", [lambda value: value, floats, wire])
def test_an_experiment_comes_whole_over_every_way(bohb: str, sent) -> None:
    body = yaml.safe_load(bohb)
    made = [
        build_plan(KatibSearchConfig(run_id=RUN, **given), dataset_uri="minio://b/d", environment={}).body
        for given in ({"experiment": bohb}, texts(sent(body), sent(body["spec"]["parameters"])))
    ]
    assert made[0] == made[1]
    assert json.dumps(made[0]) == json.dumps(made[1])  # no int has become a float


def test_numbers_of_a_space_become_the_texts_that_katib_wants():
    space = [
        {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": 1e-05, "max": 1.0, "step": "0.1"}},
        {"name": "augment", "parameterType": "categorical", "feasibleSpace": {"list": ["none", True, 4.0]}},
    ]
    first, second = json.loads(texts(space=space)["space"])
    assert first["feasibleSpace"] == {"min": "1e-05", "max": "1", "step": "0.1"}
    assert second["feasibleSpace"] == {"list": ["none", "true", "4"]}


def test_settings_and_resources():
    given = texts(
        settings={"eta": 4.0, "start": "a=1, b=2", "fast": True},
        resources={
            "gpus": 2.0,
            "accelerator": "amd.com/gpu",
            "cpu": 4.0,
            "memory": "8Gi",
            "shared_memory": "2Gi",
            "node_selector": {"pool": "gpu", "new": True},
            "tolerations": ["team=vision:NoSchedule", "spot:NoExecute"],
        },
    )
    assert json.loads(given["settings"]) == {"eta": "4", "start": "a=1, b=2", "fast": "true"}
    config = KatibSearchConfig(**given)
    assert (config.gpus, config.accelerator, config.cpu, config.memory) == (2, "amd.com/gpu", "4", "8Gi")
    assert json.loads(config.node_selector) == {"pool": "gpu", "new": "true"}
    assert config.tolerations == "team=vision:NoSchedule,spot:NoExecute"
    assert {*RESOURCES} == {*given} - {"settings"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"resources": {"gpu": 1}}, f"resources must be of {', '.join(RESOURCES)}, but got 'gpu'"),
        ({"resources": {"gpus": 0.5}}, "resources.gpus must be a whole number, but got 0.5"),
        ({"resources": {"gpus": "two"}}, "resources.gpus must be a whole number, but got 'two'"),
        ({"resources": {"node_selector": "a=b"}}, "resources.node_selector must map labels to values, but got 'a=b'"),
        ({"resources": {"tolerations": [{"key": "a"}]}}, "resources.tolerations must be a list of texts such as"),
        ({"resources": {"memory": ["8Gi"]}}, "resources.memory must be a text or a number"),
        ({"settings": {"eta": [3]}}, "settings.eta must be a text or a number, but got"),
        ({"settings": ["eta"]}, "settings must be a map, but got"),
        ({"space": {"lr": {}}}, "space must be a list, but got"),
        ({"space": ["lr"]}, "space must be a list like spec.parameters of an Experiment, but contains 'lr'"),
        ({"space": [{"name": "lr"}]}, "must have a feasibleSpace, but 'lr' has none"),
    ],
)
def test_what_has_another_form_is_told(given, said):
    with pytest.raises(ValueError) as told:
        texts(**given)
    assert said in str(told.value)


def test_whole():
    assert (
        json.dumps(whole({"a": [1.0, {"b": 2.5}], "c": True, "d": "3.0"}))
        == '{"a": [1, {"b": 2.5}], "c": true, "d": "3.0"}'
    )
