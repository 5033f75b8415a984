import dataclasses
import os
import signal
import subprocess
import sys

import pytest
import torch
from kondense.artifacts.model import Model, load_model, save_model
from kondense.data.dataset import Split, load_dataset, save_dataset
from kondense.distill.config import DistillConfig
from kondense.distill.methods import METHODS
from kondense.distill.stage import distill as distill_models
from kondense.distill.stage import run
from kondense.distill.student import student_spec
from kondense.measuring.accuracy import accuracy, predict
from kondense.networks.build import NetworkSpec, build
from kondense.train.config import TrainConfig
from kondense.train.stage import run as train

from tests.support.toy_training import toy_dataset

pytestmark = pytest.mark.usefixtures("log_on_stdout")

CONFIG = DistillConfig(epochs=3, batch_size=32, width=0.5, device="cpu")
ARGUMENTS = {"classes": 3, "channels": 1, "image_size": 16}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory with the toy data set and a trained teacher."""
    directory = tmp_path_factory.mktemp("distill")
    save_dataset(directory / "dataset", toy_dataset())
    config = TrainConfig(network="resnet8", epochs=3, batch_size=32, device="cpu")
    train(config, dataset_dir=directory / "dataset", model_dir=directory / "teacher")
    return directory


def distill(made, config, output, teacher="teacher", dataset="dataset", **further):
    directories = {f"{role}_dir": made / directory for role, directory in further.items()}
    return run(config, dataset_dir=made / dataset, teacher_dir=made / teacher, student_dir=output, **directories)


def teacher_of(network="resnet8", **arguments):
    spec = NetworkSpec(network, ARGUMENTS | arguments)
    return Model(build(spec).eval(), spec)


def test_a_smaller_student_learns_and_scores_what_the_stage_says(made, tmp_path):
    metrics = distill(made, CONFIG, tmp_path / "student")
    student, dataset = load_model(tmp_path / "student"), toy_dataset()
    found = accuracy(predict(student.module, dataset.validation, dataset), dataset.validation.labels)
    assert found == metrics["validation_accuracy"] > 0.9
    assert student.module.conv1.out_channels == 8
    assert metrics["parameters"] < 0.4 * metrics["parameters_teacher"]
    assert 0.9 < metrics["teacher_agreement"] <= 1.0
    (record,) = student.lineage
    assert record["summary"] == "distill into resnet8 at width 0.5 from the teacher's channels, 3 epochs"
    assert record["details"]["teacher_weights"] == {"teacher": 1.0}
    assert [entry["stage"] for entry in record["details"]["teacher_lineage"]] == ["train"]
    assert len(record["curves"]) == 3


def test_models_in_memory_are_not_changed(made):
    teacher, given = load_model(made / "teacher"), load_model(made / "teacher")
    teacher.module.train()
    before = {name: tensor.clone() for name, tensor in teacher.module.state_dict().items()}
    config = dataclasses.replace(CONFIG, epochs=1, method="features")
    for student in (None, given):
        result = distill_models(student, toy_dataset(), config, teachers={"teacher": teacher})
        assert len(result.curve) == 1
    assert teacher.module.training
    for model in (teacher, given):
        assert all(weight.requires_grad for weight in model.module.parameters())
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
        assert not any(layer._forward_hooks for layer in model.module.modules())


def test_the_teacher_alone_teaches(made, tmp_path):
    # With alpha 1 no label enters the loss, so agreement is all that training can have improved.
    metrics = distill(made, dataclasses.replace(CONFIG, alpha=1.0), tmp_path / "student")
    assert metrics["teacher_agreement"] > 0.9


def test_student_networks():
    dataset = toy_dataset()
    assert student_spec(CONFIG, teacher_of(), dataset) == NetworkSpec("resnet8", ARGUMENTS | {"width": 0.5})
    assert student_spec(CONFIG, teacher_of(width=2.0), dataset) == NetworkSpec("resnet8", ARGUMENTS)
    other = dataclasses.replace(CONFIG, student_network="lenet300", width=1.0)
    assert student_spec(other, teacher_of(width=2.0), dataset) == NetworkSpec("lenet300", ARGUMENTS)


def test_a_student_of_torchvision_takes_the_width_multiplier_where_there_is_one():
    config = dataclasses.replace(CONFIG, student_network="torchvision:mobilenet_v2", width=0.25)
    narrow = build(student_spec(config, teacher_of(), toy_dataset()))
    assert narrow.features[0][0].out_channels == 8  # 32 at width 1
    assert narrow.classifier[1].out_features == 3


def test_a_larger_student_is_warned_of(made, tmp_path, capsys):
    distill(made, dataclasses.replace(CONFIG, width=2.0, epochs=1), tmp_path / "large")
    sizes = [
        sum(weight.numel() for weight in load_model(path).module.parameters())
        for path in (tmp_path / "large", made / "teacher")
    ]
    rule = "the student is larger than the teacher: {} parameters against {}.".format(*sizes)
    assert f"warning: {rule}" in capsys.readouterr().out.splitlines()
    assert load_model(tmp_path / "large").lineage[0]["details"]["warnings"] == [rule]
    distill(made, dataclasses.replace(CONFIG, epochs=1), tmp_path / "small")
    assert "warning" not in capsys.readouterr().out
    assert load_model(tmp_path / "small").lineage[0]["details"]["warnings"] == []


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"logits"}))
def test_every_method_trains_and_leaves_a_plain_student(made, tmp_path, method, capsys):
    config = dataclasses.replace(CONFIG, method=method, start="random")
    metrics = distill(made, config, tmp_path / "student")
    assert metrics["validation_accuracy"] > 0.6
    assert "the student's " in capsys.readouterr().out
    student = load_model(tmp_path / "student")
    assert student.lineage[0]["summary"].startswith(
        f"distill by {method} into resnet8 at width 0.5 from random weights"
    )
    assert not any(layer._forward_hooks for layer in student.module.modules())
    by_logits = dataclasses.replace(config, method="logits")
    distill(made, by_logits, tmp_path / "logits")
    other = load_model(tmp_path / "logits").module
    assert not torch.equal(student.module.conv1.weight, other.conv1.weight)  # the method's part had its gradient


def test_shuffled_labels_change_nothing_when_labels_are_unused(made, tmp_path):
    dataset = load_dataset(made / "dataset")
    shuffled = dataset.train.labels[torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(1))]
    assert not torch.equal(shuffled, dataset.train.labels)
    save_dataset(tmp_path / "shuffled", dataclasses.replace(dataset, train=Split(dataset.train.images, shuffled)))
    config = dataclasses.replace(CONFIG, labels=False, alpha=1.0, method="features")
    for name, data in (("plain", "dataset"), ("mixed", tmp_path / "shuffled")):
        metrics = distill(made, config, tmp_path / name, dataset=data)
        assert metrics["validation_accuracy"] > 0.9
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("plain", "mixed")]
    assert weights[0] == weights[1]
    distill(
        made, dataclasses.replace(config, labels=True, alpha=0.9), tmp_path / "taught", dataset=tmp_path / "shuffled"
    )
    assert (tmp_path / "taught" / "weights.safetensors").read_bytes() != weights[0]  # so the test can fail


def test_a_pruned_model_is_the_student_of_its_own_teacher_and_its_zeros_stay(made, tmp_path):
    teacher = load_model(made / "teacher")
    with torch.no_grad():
        teacher.module.fc.weight.mul_(torch.rand(teacher.module.fc.weight.shape) < 0.5)
    zeros = teacher.module.fc.weight == 0
    save_model(tmp_path / "pruned", dataclasses.replace(teacher, masked=("fc.weight",)))
    metrics = distill(made, CONFIG, tmp_path / "student", model=tmp_path / "pruned")
    student = load_model(tmp_path / "student")
    assert torch.equal(student.module.fc.weight == 0, zeros)
    assert not torch.equal(student.module.conv1.weight, teacher.module.conv1.weight)
    assert student.masked == ("fc.weight",)
    assert metrics["parameters"] == metrics["parameters_teacher"]
    assert [record["stage"] for record in student.lineage] == ["train", "distill"]
    assert "at width 1 as given" in student.lineage[-1]["summary"]
    assert set(student.lineage[-1]["inputs"]) == {"dataset", "teacher", "model"}


def test_three_teachers(made, tmp_path):
    save_model(tmp_path / "second", teacher_of())  # untrained: near chance
    save_model(tmp_path / "third", teacher_of("lenet300"))
    config = dataclasses.replace(CONFIG, epochs=1, teacher_weights="accuracy")
    distill(made, config, tmp_path / "student", teacher_2=tmp_path / "second", teacher_3=tmp_path / "third")
    (record,) = load_model(tmp_path / "student").lineage
    weights = record["details"]["teacher_weights"]
    assert list(weights) == ["teacher", "teacher_2", "teacher_3"]
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["teacher"] > weights["teacher_2"]
    assert set(record["inputs"]) == {"dataset", "teacher", "teacher_2", "teacher_3"}
    assert "from 3 teachers" in record["summary"]


def test_a_pruned_teacher_teaches_its_base_network(made, tmp_path):
    teacher = load_model(made / "teacher")
    teacher.module.blocks[0].bn1 = torch.nn.Identity()  # a structure other than the base network's
    save_model(tmp_path / "changed", teacher)
    metrics = distill(made, dataclasses.replace(CONFIG, epochs=1), tmp_path / "student", teacher=tmp_path / "changed")
    assert metrics["parameters"] > 0


@pytest.mark.parametrize("method", ["logits", "features"])  # features: adapters and their momenta too
def test_killed_and_started_again_it_ends_with_the_same_student(made, tmp_path, method):
    config = dataclasses.replace(CONFIG, epochs=4, method=method, cache_teacher=method == "features")
    distill(made, config, tmp_path / "straight")
    environment = os.environ | {
        "KONDENSE_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    flags = [part for name, value in config.to_dict().items() for part in (f"--{name.replace('_', '-')}", str(value))]
    directories = {"dataset": made / "dataset", "teacher": made / "teacher", "student": tmp_path / "resumed"}
    flags += [part for name, path in directories.items() for part in (f"--{name}-dir", str(path))]
    command = [sys.executable, "-m", "kondense.cli", "distill", *flags]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "resumed").exists()
    again = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert "resumed at epoch" in again.stdout
    for name in ("weights.safetensors", "model.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"method": "hints"}, "method must be one of attention, features, logits, relational, but got 'hints'"),
        (
            {"hint_layers": "a:b"},
            "hint_layers must not be set with method logits, only with attention, features, relational; got a:b",
        ),
        ({"hint_weight": 2.0}, "hint_weight must not be set with method logits, only with .*; got 2.0"),
        ({"method": "features", "hint_layers": "a"}, "hint_layers must be teacher:student,..., but got 'a' in 'a'"),
        ({"method": "features", "hint_layers": "a:c,b:c"}, "every layer of the student once, but got 'c' twice"),
        ({"labels": False}, "alpha must be 1 throughout when labels is false, but got 0.9"),
        (
            {"labels": False, "alpha": 1.0, "alpha_schedule": "linear", "alpha_end": 0.5},
            "alpha must be 1 throughout when labels is false, but got 0.5",
        ),
        (
            {"labels": False, "alpha": 1.0, "teacher_weights": "accuracy"},
            "teacher_weights must be uniform when labels is false, but got accuracy",
        ),
        ({"cache_teacher": True, "augment": "crop"}, "augment must be none with cache_teacher, .* but got crop"),
        ({"alpha_schedule": "step"}, "alpha_schedule must be one of constant, cosine, linear, but got 'step'"),
        ({"temperature_end": 0.0}, r"temperature_end must be in \(0, 1000\], but got 0.0"),
        (
            {"method": "relational", "batch_size": 2},
            "batch_size must be at least 3 with method relational, which compares images with each other, but got 2",
        ),
        ({"start": "zeros"}, "start must be one of auto, random, teacher, but got 'zeros'"),
        ({"temperature": 0.0}, r"temperature must be in \(0, 1000\], but got 0.0"),
        ({"alpha": -0.5}, r"alpha must be in \[0, 1\], but got -0.5"),
        ({"width": 0.0}, r"width must be in \(0, 16\], but got 0.0"),
        ({"student_network": "lenet9"}, "network must be one of lenet300, lenet5, .* but got 'lenet9'"),
        ({"epochs": 0}, r"epochs must be in \[1, 100000\], but got 0"),
    ],
)
def test_bad_parameters_are_refused_with_rule_and_value(values, rule):
    with pytest.raises(ValueError, match=rule):
        DistillConfig(**values)


def test_other_classes_and_unknown_students_are_refused(made, tmp_path):
    save_model(tmp_path / "seven", teacher_of("lenet300", classes=7))
    with pytest.raises(
        ValueError, match=r"the teacher must return logits \[N, 3\], one per class, but returned \[2, 7\]"
    ):
        distill(made, CONFIG, tmp_path / "student", teacher=tmp_path / "seven")
    with pytest.raises(ValueError, match="torchvision.* but got 'lenet9'"):
        distill(made, dataclasses.replace(CONFIG, student_network="torchvision:lenet9"), tmp_path / "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (
            {"student_network": "lenet300"},
            "student_network must be '' or 'resnet8' if a model is given as the student, but got 'lenet300'",
        ),
        ({"width": 0.25}, "width must be 0.5 if a model is given as the student, but got 0.25"),
        ({"start": "random"}, "start must be 'auto' if a model is given as the student, but got 'random'"),
    ],
)
def test_a_given_student_contradicts_the_order_for_another(made, tmp_path, values, rule):
    with pytest.raises(ValueError, match=rule):
        distill(made, dataclasses.replace(CONFIG, **values), tmp_path / "student", model="teacher")
    assert not (tmp_path / "student").exists()


def test_a_given_student_of_the_same_network_is_no_contradiction(made, tmp_path):
    config = dataclasses.replace(CONFIG, student_network="resnet8", epochs=1)
    assert distill(made, config, tmp_path / "student", model="teacher")["validation_accuracy"] > 0.9


def test_students_and_further_teachers_of_other_classes_are_refused(made, tmp_path):
    save_model(tmp_path / "seven", teacher_of("lenet300", classes=7))
    for role in ("model", "teacher_2", "teacher_3"):
        with pytest.raises(ValueError, match=rf"the {role} must return logits \[N, 3\], one per class"):
            distill(made, CONFIG, tmp_path / "student", **{role: tmp_path / "seven"})


def test_class_weights_reach_the_loss_with_the_labels(monkeypatch):
    given = {}

    def fit(module, dataset, config, *, loss, **others):
        given["loss"] = loss
        return [{"train_loss": 0.0}]

    monkeypatch.setattr(sys.modules[run.__module__], "fit", fit)
    dataset = toy_dataset()
    kept = (dataset.train.labels != 0) | (torch.arange(len(dataset.train)) % 5 == 0)  # class 0 is rare
    split = Split(dataset.train.images[kept], dataset.train.labels[kept])
    dataset = dataclasses.replace(dataset, train=split)
    config = dataclasses.replace(CONFIG, alpha=0.0, class_weights="balanced")
    distill_models(None, dataset, config, teachers={"teacher": teacher_of()})
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 0, 1])
    counts = torch.bincount(split.labels).double()
    weights = counts.sum() / (3 * counts)
    each = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none") * weights[labels]
    expected = each.sum() / weights[labels].sum()
    found = given["loss"](logits, labels, torch.zeros(6, *dataset.shape))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
