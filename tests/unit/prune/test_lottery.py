import dataclasses

import pytest
import torch
from kondense.artifacts.model import load_model
from kondense.data.dataset import dataset_digest, load_dataset, save_dataset
from kondense.networks.build import build
from kondense.prune.config import PruneConfig
from kondense.prune.context import make_session, resolve
from kondense.prune.masks import lottery
from kondense.prune.stage import run
from kondense.train.config import TrainConfig
from kondense.train.stage import run as train
from kondense.training.session import Session

from tests.support.toy_training import toy_dataset

CONFIG = PruneConfig(
    method="lottery", sparsity=0.8, epochs=1, steps=2, batch_size=32, learning_rate=0.01, alpha=0.0, device="cpu"
)
TRAINING = TrainConfig(network="lenet300", epochs=3, batch_size=32, learning_rate=0.05, averaging=0.5, device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("lottery")
    save_dataset(directory / "dataset", toy_dataset())
    train(TRAINING, dataset_dir=directory / "dataset", model_dir=directory / "trained")
    train(
        dataclasses.replace(TRAINING, epochs=2, max_epochs=3),
        dataset_dir=directory / "dataset",
        model_dir=directory / "two",
    )
    return directory


def prepared(made, config=CONFIG, **changes):
    model = dataclasses.replace(load_model(made / "trained"), **changes)
    digest = dataset_digest(made / "dataset")
    asked = resolve(config, model, make_session(config, load_dataset(made / "dataset")), dataset_digest=digest)
    return model.module, lottery.prepare(load_model(made / "trained").module, asked)


def test_a_ticket_is_the_early_weights_under_the_mask_of_the_late_ones(made):
    late, method = prepared(made, dataclasses.replace(CONFIG, rewind_epochs=2))
    early = load_model(made / "two").module  # the train stage's own, stopped after two of three epochs
    masks = method.step(1.0)
    scores = torch.cat([late.get_parameter(name).detach().abs().flatten() for name in masks])
    threshold = scores.sort().values[round(0.8 * len(scores))]
    for name, mask in masks.items():
        assert torch.equal(mask, late.get_parameter(name).abs() >= threshold)
        torch.testing.assert_close(method.module.get_parameter(name), early.get_parameter(name) * mask, rtol=0, atol=0)
    assert torch.equal(method.module.fc1.bias, early.fc1.bias)


def test_rewinding_to_epoch_0_is_the_initialisation(made):
    _, method = prepared(made, dataclasses.replace(CONFIG, rewind_epochs=0))
    masks = method.step(1.0)
    fresh = build(load_model(made / "trained").network, seed=TRAINING.seed)
    for name, mask in masks.items():
        assert torch.equal(method.module.get_parameter(name), fresh.get_parameter(name) * mask)


def test_tickets_and_controls_are_reported_with_the_same_budget(made, tmp_path, monkeypatch):
    trained = []
    original = Session.train

    def noted(self, module, phase, *, epochs, **settings):
        zeros = sum(int((module.get_parameter(name) == 0).sum()) for name in settings["masks"])
        trained.append((phase, epochs, zeros))
        return original(self, module, phase, epochs=epochs, **settings)

    monkeypatch.setattr(Session, "train", noted)
    run(CONFIG, dataset_dir=made / "dataset", model_dir=made / "trained", pruned_dir=tmp_path / "pruned")
    assert [entry[:2] for entry in trained] == [
        ("step-1-of-2", 1),
        ("control-1", 2),
        ("step-2-of-2", 1),
        ("control-2", 2),
    ]
    assert trained[0][2] == trained[1][2] < trained[2][2] == trained[3][2]
    record = load_model(tmp_path / "pruned").lineage[-1]
    tickets = record["details"]["tickets"]
    assert [entry["sparsity"] for entry in tickets] == pytest.approx([0.8 * (1 - 0.5**3), 0.8])
    assert tickets[-1]["ticket"] == record["metrics"]["validation_accuracy"]
    assert [point["epoch"] for point in record["curves"]] == [1, 2]  # the controls' epochs are no part of it


@pytest.mark.parametrize(
    ("changes", "settings", "rule"),
    [
        ({"lineage": ()}, {}, "lottery needs a model as the train stage trained it, but got a model without lineage"),
        ({}, {"rewind_epochs": 3}, "rewind_epochs must be less than the 3 epochs .* but got 3"),
    ],
)
def test_what_cannot_be_rewound_is_refused(changes, settings, rule, made):
    with pytest.raises(ValueError, match=rule):
        prepared(made, dataclasses.replace(CONFIG, **settings), **changes)


def test_pruned_before_or_on_other_data_is_refused(made, tmp_path):
    run(CONFIG, dataset_dir=made / "dataset", model_dir=made / "trained", pruned_dir=tmp_path / "pruned")
    with pytest.raises(ValueError, match="as the train stage trained it, but got train > prune"):
        run(CONFIG, dataset_dir=made / "dataset", model_dir=tmp_path / "pruned", pruned_dir=tmp_path / "again")
    save_dataset(tmp_path / "other", toy_dataset(seed=1))
    with pytest.raises(
        ValueError, match="lottery needs the dataset that the model was trained on, but got another one"
    ):
        run(CONFIG, dataset_dir=tmp_path / "other", model_dir=made / "trained", pruned_dir=tmp_path / "again")
