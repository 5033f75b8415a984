"""Stages in two processes: the models of one process, within the rounding of floats, and one set of files."""

import re

import pytest
import torch
from kondense.artifacts.model import Model, load_model
from kondense.data.dataset import save_dataset
from kondense.distill.config import DistillConfig
from kondense.distill.stage import distill
from kondense.errors import KondenseError
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from kondense.train.config import TrainConfig
from kondense.train.stage import run as run_train
from kondense.train.stage import train

from tests.support.together import together
from tests.support.toy_training import toy_dataset

COMMON = {"epochs": 1, "batch_size": 48, "learning_rate": 0.01, "device": "cpu"}
SPEC = NetworkSpec("resnet8", {"classes": 3, "channels": 1, "image_size": 16, "width": 0.25})


@pytest.fixture(scope="module")
def teacher():
    config = TrainConfig(**COMMON, network="resnet8", width=0.25)
    return train(None, toy_dataset(), config).model


CASES = {
    "channels": (prune, PruneConfig(**COMMON, method="l1", sparsity=0.3, round_to=1, optimizer="sgd")),
    "weights": (prune, PruneConfig(**COMMON, method="magnitude", sparsity=0.5, steps=2)),
    "constrained": (prune, PruneConfig(**{**COMMON, "epochs": 2}, method="constrained", sparsity=0.5)),
    # Rounding turns a last bit into a step of the grid; where norms are frozen there is none before the first.
    "qat": (quantize, QuantizeConfig(**COMMON, method="qat", calibration_images=64, freeze=0.0)),
    "attention": (distill, DistillConfig(**COMMON, method="attention", width=0.5, start="random")),
    "features": (distill, DistillConfig(**COMMON, method="features", width=0.5, cache_teacher=True, start="random")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stage_makes_the_model_of_one_process(case, teacher, tmp_path):
    technique, config = CASES[case]

    def made(_=None):
        if technique is distill:
            result = distill(None, toy_dataset(), config, teachers={"teacher": teacher})
        else:
            result = technique(teacher, toy_dataset(), config)
        return result.model.module.state_dict(), dict(result.metrics), result.summary

    expected, metrics, summary = made()
    first, second = together(made, tmp_path)
    assert first[1:] == second[1:]
    assert first[2] == summary
    assert first[1] == pytest.approx(metrics, abs=0.04)  # two of 60 images
    for name, tensor in expected.items():
        assert torch.equal(first[0][name], second[0][name]), name
        difference = (first[0][name].float() - tensor.float()).abs()
        # A weight on a grid, or beside a threshold, may fall to the other side.
        assert (difference > 1e-3 * tensor.float().abs().max() + 1e-5).float().mean() <= 0.02, name


def test_the_first_process_alone_writes(tmp_path):
    save_dataset(tmp_path / "data", toy_dataset())
    config = TrainConfig(**COMMON, network="lenet300")

    def ran(processes):
        directory = tmp_path / f"model-{processes.rank}"
        metrics = run_train(config, dataset_dir=tmp_path / "data", model_dir=directory)
        return metrics, directory.exists()

    (metrics, written), (others, too) = together(ran, tmp_path)
    assert metrics == others
    assert (written, too) == (True, False)
    record = load_model(tmp_path / "model-0").lineage[-1]
    assert record["details"]["devices"] == 2
    assert record["metrics"] == metrics


def test_processes_with_other_networks_do_not_train(tmp_path):
    """As after a choice that differs: no process hangs, and none trains on."""

    told = "same network, but where process 0 has fc1.weight [152, 256] torch.float32, process 1 has fc1.weight [300"

    def trained(processes):
        spec = NetworkSpec("lenet300", {**SPEC.arguments, "width": 0.5 + 0.5 * processes.rank})
        with pytest.raises(KondenseError, match=re.escape(told)):
            train(Model(build(spec, seed=0), spec), toy_dataset(), TrainConfig(**COMMON))

    together(trained, tmp_path)
