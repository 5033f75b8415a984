import dataclasses
import os
import signal
import subprocess
import sys
import warnings

import pytest
import torch

from components.artifacts.dataset import save_dataset
from components.artifacts.model import Model, load_model, save_model
from components.distill import stage
from components.distill.config import METHODS, DistillConfig
from components.distill.stage import run, student_spec
from components.measuring.accuracy import accuracy, predict
from components.networks.build import NetworkSpec, build
from components.train.config import TrainConfig
from components.train.stage import run as train
from tests.unit.training.toy import toy_dataset

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


def distill(made, config, output, teacher="teacher"):
    return run(config, dataset_dir=made / "dataset", teacher_dir=made / teacher, student_dir=output)


def teacher_of(network="resnet8", **arguments):
    spec = NetworkSpec(network, ARGUMENTS | arguments)
    return Model(build(spec).eval(), spec)


def test_methods_of_config_and_stage_are_the_same():
    assert sorted(stage.METHODS) == sorted(METHODS)


def test_a_smaller_student_learns_and_scores_what_the_stage_says(made, tmp_path):
    metrics = distill(made, CONFIG, tmp_path / "student")
    student, dataset = load_model(tmp_path / "student"), toy_dataset()
    found = accuracy(predict(student.module, dataset.validation, dataset), dataset.validation.labels)
    assert found == metrics["validation_accuracy"] > 0.9
    assert student.module.conv1.out_channels == 8
    assert metrics["parameters"] < 0.4 * metrics["parameters_teacher"]
    assert 0.9 < metrics["teacher_agreement"] <= 1.0
    (record,) = student.lineage
    assert record["summary"] == "distill into resnet8 at width 0.5, 3 epochs"
    assert [entry["stage"] for entry in record["details"]["teacher_lineage"]] == ["train"]
    assert len(record["curves"]) == 3


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


def test_a_larger_student_is_warned_of(made, tmp_path):
    with pytest.warns(UserWarning, match=r"the student is larger than the teacher: \d+ parameters against \d+"):
        distill(made, dataclasses.replace(CONFIG, width=2.0, epochs=1), tmp_path / "student")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distill(made, dataclasses.replace(CONFIG, epochs=1), tmp_path / "student")


def test_a_pruned_teacher_teaches_its_base_network(made, tmp_path):
    teacher = load_model(made / "teacher")
    teacher.module.blocks[0].bn1 = torch.nn.Identity()  # a structure other than the base network's
    save_model(tmp_path / "changed", teacher)
    metrics = distill(made, dataclasses.replace(CONFIG, epochs=1), tmp_path / "student", teacher=tmp_path / "changed")
    assert metrics["parameters"] > 0


def test_killed_and_started_again_it_ends_with_the_same_student(made, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=4)
    distill(made, config, tmp_path / "straight")
    environment = os.environ | {
        "KONDENSE_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    flags = [part for name, value in config.to_dict().items() for part in (f"--{name.replace('_', '-')}", str(value))]
    directories = {"dataset": made / "dataset", "teacher": made / "teacher", "student": tmp_path / "resumed"}
    flags += [part for name, path in directories.items() for part in (f"--{name}-dir", str(path))]
    command = [sys.executable, "-m", "components.cli", "distill", *flags]
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
        ({"method": "hints"}, "method must be one of logits, but got 'hints'"),
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
    with pytest.raises(ValueError, match="the teacher must have the dataset's 3 classes, but got 7"):
        distill(made, CONFIG, tmp_path / "student", teacher=tmp_path / "seven")
    with pytest.raises(ValueError, match="torchvision.* but got 'lenet9'"):
        distill(made, dataclasses.replace(CONFIG, student_network="torchvision:lenet9"), tmp_path / "student")
    assert not (tmp_path / "student").exists()
