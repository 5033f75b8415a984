import dataclasses

import pytest
import torch
from kondense.artifacts.model import load_model
from kondense.data.dataset import save_dataset
from kondense.measuring.accuracy import accuracy, predict
from kondense.networks.allowed import VARIABLE
from kondense.networks.build import NetworkSpec, build
from kondense.train.config import TrainConfig
from kondense.train.stage import run, train
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_forward_pre_hook

from tests.support.toy_training import toy_dataset

CONFIG = TrainConfig(epochs=2, batch_size=32, learning_rate=0.02, network="lenet300", device="cpu")


@pytest.fixture
def dataset_dir(tmp_path):
    save_dataset(tmp_path / "dataset", toy_dataset())
    return tmp_path / "dataset"


def test_trains_and_writes_a_model_that_scores_what_the_stage_says(dataset_dir, tmp_path):
    metrics = run(CONFIG, dataset_dir=dataset_dir, model_dir=tmp_path / "model")
    model, dataset = load_model(tmp_path / "model"), toy_dataset()
    found = accuracy(predict(model.module, dataset.validation, dataset), dataset.validation.labels)
    assert found == metrics["validation_accuracy"]
    (record,) = model.lineage
    assert record["stage"] == "train"
    assert len(record["curves"]) == 2
    assert record["config"]["learning_rate"] == 0.02


def test_the_validation_split_is_predicted_once_an_epoch():
    dataset, batches = toy_dataset(), []
    hook = register_module_forward_pre_hook(lambda module, inputs: batches.append((type(module).__name__, inputs[0])))
    with hook:
        result = train(None, dataset, CONFIG)
    networks = [images for name, images in batches if name == type(result.model.module).__name__]
    assert sum(len(images) == len(dataset.validation) for images in networks) == CONFIG.epochs
    assert result.metrics["validation_accuracy"] == result.curve[-1]["validation_accuracy"]


def test_same_arguments_same_artifact(dataset_dir, tmp_path):
    for name in ("first", "second"):
        run(CONFIG, dataset_dir=dataset_dir, model_dir=tmp_path / name)
    assert (tmp_path / "first/model.json").read_bytes() == (tmp_path / "second/model.json").read_bytes()


def test_imports_an_artifact_or_a_state_dict(dataset_dir, tmp_path):
    run(CONFIG, dataset_dir=dataset_dir, model_dir=tmp_path / "model")
    trained = load_model(tmp_path / "model").module
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    for uri in (tmp_path / "model", tmp_path / "weights.safetensors"):
        config = dataclasses.replace(CONFIG, import_uri=str(uri))
        run(config, dataset_dir=dataset_dir, model_dir=tmp_path / "imported")
        imported = load_model(tmp_path / "imported").module
        assert torch.equal(imported.fc1.weight, trained.fc1.weight)


def test_an_import_may_name_the_network_of_this_run_and_no_other(dataset_dir, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    theirs = dataclasses.replace(CONFIG, network="tests.support.factories:Linear")
    run(theirs, dataset_dir=dataset_dir, model_dir=tmp_path / "model")
    config = dataclasses.replace(theirs, import_uri=str(tmp_path / "model"))
    run(config, dataset_dir=dataset_dir, model_dir=tmp_path / "imported")
    with pytest.raises(ValueError, match="named by the artifact alone"):
        run(dataclasses.replace(config, network="lenet5"), dataset_dir=dataset_dir, model_dir=tmp_path / "other")


def test_a_model_in_memory_is_trained_on_and_stays_as_it_was():
    dataset, config = toy_dataset(), dataclasses.replace(CONFIG, epochs=1)
    first = train(None, dataset, config)
    before = {name: tensor.clone() for name, tensor in first.model.module.state_dict().items()}
    second = train(first.model, dataset, config)
    assert not torch.equal(second.model.module.fc1.weight, before["fc1.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.model.module.state_dict().items())
    assert second.summary == "train lenet300 for 1 epochs"


def test_an_import_that_does_not_fit_is_refused(dataset_dir, tmp_path):
    other = build(NetworkSpec("lenet300", {"classes": 7, "channels": 1, "image_size": 16}))
    save_file(other.state_dict(), tmp_path / "weights.safetensors")
    config = dataclasses.replace(CONFIG, import_uri=str(tmp_path / "weights.safetensors"))
    with pytest.raises(ValueError, match="must be for 3 classes, but fc3.weight is .7, 100.; .* replace_head=true"):
        run(config, dataset_dir=dataset_dir, model_dir=tmp_path / "model")
    with pytest.raises(ValueError, match="import_uri must be a model artifact"):
        config = dataclasses.replace(CONFIG, import_uri=str(tmp_path))
        run(config, dataset_dir=dataset_dir, model_dir=tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("epochs", 0, r"epochs must be in \[1, 100000\], but got 0"),
        ("learning_rate", float("nan"), "learning_rate must be a number, but got nan"),
        ("schedule", "step", "schedule must be one of constant, cosine, multistep, one_cycle, but got 'step'"),
        ("max_epochs", 1, r"max_epochs must be 0 or at least epochs \(2\), but got 1"),
        ("epochs", 2.5, "epochs must be int, but got 2.5"),
        ("network", " ", "network must be a name"),
    ],
)
def test_bad_parameters_are_refused_with_rule_and_value(field, value, rule):
    with pytest.raises(ValueError, match=rule):
        dataclasses.replace(CONFIG, **{field: value})


def test_an_unknown_network_lists_the_right_ones(dataset_dir, tmp_path):
    config = dataclasses.replace(CONFIG, network="lenet6")
    with pytest.raises(ValueError, match="network must be one of lenet300, lenet5, .* but got 'lenet6'"):
        run(config, dataset_dir=dataset_dir, model_dir=tmp_path / "model")
