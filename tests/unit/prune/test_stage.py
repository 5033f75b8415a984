import copy
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from kondense.artifacts.model import Model, load_model, save_model
from kondense.artifacts.quantized import QuantizedTensor
from kondense.config import Config
from kondense.data.dataset import dataset_digest, load_dataset, save_dataset
from kondense.measuring.accuracy import accuracy, predict
from kondense.networks.build import NetworkSpec, build
from kondense.prune import stage
from kondense.prune.config import PruneConfig
from kondense.prune.masks.masks import GradualMasking
from kondense.prune.methods import METHODS
from kondense.prune.stage import run
from kondense.store.open import open_store
from kondense.train.config import TrainConfig
from kondense.train.stage import run as train
from kondense.training.checkpoint import Checkpoint
from safetensors.torch import load_file, save_file

from tests.support.toy_training import toy_dataset

FAST = {"epochs": 3, "steps": 2, "batch_size": 32, "learning_rate": 0.01, "device": "cpu"}
MAGNITUDE = PruneConfig(method="magnitude", sparsity=0.9, **FAST)
L1 = PruneConfig(method="l1", sparsity=0.5, **FAST)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory with the toy data set and a model of every network, one of them trained."""
    directory = tmp_path_factory.mktemp("prune")
    save_dataset(directory / "dataset", toy_dataset())
    for name in ("lenet5", "resnet8", "mobilenet_small"):
        spec = NetworkSpec(name, {"classes": 3, "channels": 1, "image_size": 16})
        save_model(directory / name, Model(build(spec, seed=1).eval(), spec))
    config = TrainConfig(network="resnet8", epochs=3, batch_size=32, learning_rate=0.05, device="cpu")
    train(config, dataset_dir=directory / "dataset", model_dir=directory / "trained")
    return directory


def prune(made, config, output, model="trained", teacher=None):
    return run(
        config,
        dataset_dir=made / "dataset",
        model_dir=made / model,
        pruned_dir=output,
        teacher_dir=made / teacher if teacher else None,
    )


def test_magnitude_keeps_its_zeros_through_fine_tuning(made, tmp_path):
    metrics = prune(made, MAGNITUDE, tmp_path / "pruned")
    model, dataset = load_model(tmp_path / "pruned"), toy_dataset()
    assert metrics["sparsity"] == pytest.approx(0.9, abs=1e-3)
    assert metrics["sparsity_before"] == 0.0
    found = accuracy(predict(model.module, dataset.validation, dataset), dataset.validation.labels)
    assert found == metrics["validation_accuracy"] > 0.8
    names = [f"{row['name']}.weight" for row in model.lineage[-1]["details"]["layers"]]
    assert sorted(names) == list(model.masked)
    for name, mask in model.masks().items():
        weight = model.module.get_parameter(name)
        assert torch.equal(weight[~mask], torch.zeros(int((~mask).sum())))
        assert mask.any()
    assert not any(torch.signbit(weight[weight == 0]).any() for weight in model.module.parameters())


def test_the_record_says_what_was_done(made, tmp_path):
    prune(made, L1, tmp_path / "pruned", teacher="trained")
    trained, record = load_model(tmp_path / "pruned").lineage
    assert trained["stage"] == "train"
    assert record["stage"] == "prune"
    assert set(record["inputs"]) == {"dataset", "model", "teacher"}
    assert record["summary"].startswith("prune l1 5")
    assert record["summary"].endswith("% of MACs with the teacher's logits")
    assert [point["epoch"] for point in record["curves"]] == [1, 2, 3]
    assert [entry["sparsity"] for entry in record["details"]["steps"]] == [0.5 * (1 - 0.5**3), 0.5]
    row = record["details"]["layers"][0]
    assert (row["name"], row["type"], row["shape_before"], row["shape"]) == (
        "conv1",
        "Conv2d",
        [16, 1, 3, 3],
        [8, 1, 3, 3],
    )
    assert row["sparsity"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "mobilenet_small"])
def test_a_pruned_network_computes_the_same_in_a_fresh_process(name, made, tmp_path):
    config = dataclasses.replace(L1, sparsity=0.35, epochs=1)
    metrics = prune(made, config, tmp_path / "pruned", model=name)
    assert metrics["macs"] <= 0.65 * metrics["macs_before"]
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    save_file({"images": images}, tmp_path / "images.safetensors")
    program = """
        import sys
        from pathlib import Path
        import torch
        from safetensors.torch import load_file, save_file
        from kondense.artifacts.model import load_model
        here = Path(sys.argv[1])
        torch.set_num_threads(int(sys.argv[2]))
        logits = load_model(here / "pruned").module(load_file(here / "images.safetensors")["images"])
        save_file({"logits": logits.detach()}, here / "logits.safetensors")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), str(torch.get_num_threads())]
    subprocess.run(command, check=True)
    with torch.no_grad():
        here = load_model(tmp_path / "pruned").module(images)
    assert torch.equal(load_file(tmp_path / "logits.safetensors")["logits"], here)


def test_prunes_again_what_is_pruned(made, tmp_path):
    prune(made, dataclasses.replace(MAGNITUDE, epochs=1), tmp_path / "sparse")
    metrics = run(
        dataclasses.replace(L1, epochs=1),
        dataset_dir=made / "dataset",
        model_dir=tmp_path / "sparse",
        pruned_dir=tmp_path / "both",
    )
    model = load_model(tmp_path / "both")
    zeros = sum(int((model.module.get_parameter(name) == 0).sum()) for name in model.masked)
    assert zeros > 0.5 * sum(model.module.get_parameter(name).numel() for name in model.masked)
    assert metrics["macs"] <= 0.5 * metrics["macs_before"]
    assert metrics["sparsity_before"] > 0.89
    assert [record["stage"] for record in model.lineage] == ["train", "prune", "prune"]


def test_same_arguments_same_artifact_and_who_teaches_matters(made, tmp_path):
    config = dataclasses.replace(MAGNITUDE, epochs=1)
    prune(made, config, tmp_path / "first")
    prune(made, config, tmp_path / "second")
    prune(made, config, tmp_path / "self", teacher="trained")
    prune(made, config, tmp_path / "other", teacher="lenet5")
    prune(made, dataclasses.replace(config, alpha=0.0), tmp_path / "labels")
    weights = {name: (tmp_path / name / "weights.safetensors").read_bytes() for name in sorted(os.listdir(tmp_path))}
    assert weights["first"] == weights["second"] == weights["self"]  # without a teacher the unpruned network teaches
    assert len(set(weights.values())) == 3
    assert (tmp_path / "first/model.json").read_bytes() == (tmp_path / "second/model.json").read_bytes()


@pytest.mark.parametrize("config", [MAGNITUDE, L1], ids=["magnitude", "l1"])
def test_killed_and_started_again_it_ends_with_the_same_weights(config, made, tmp_path):
    config = dataclasses.replace(config, epochs=5, steps=3)
    prune(made, config, tmp_path / "straight")
    environment = os.environ | {
        "KONDENSE_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    flags = [part for name, value in config.to_dict().items() for part in (f"--{name.replace('_', '-')}", str(value))]
    directories = {"dataset": made / "dataset", "model": made / "trained", "pruned": tmp_path / "resumed"}
    flags += [part for name, path in directories.items() for part in (f"--{name}-dir", str(path))]
    command = [sys.executable, "-m", "kondense.cli", "prune", *flags]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        seen = 0
        for line in process.stdout:
            seen += line.startswith("epoch ")
            if seen == 3:  # within the last step
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "resumed").exists()
    again = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert "resumed at epoch" in again.stdout
    for name in ("weights.safetensors", "model.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_killed_within_an_epoch_between_two_masks_it_ends_with_the_same_weights(made, tmp_path, monkeypatch):
    config = dataclasses.replace(MAGNITUDE, epochs=4, averaging=0.9)
    model, dataset = load_model(made / "trained"), load_dataset(made / "dataset")
    straight = stage.prune(model, dataset, config)
    checkpoint = Checkpoint(open_store(str(tmp_path)), "prune", seconds=-1.0)  # a state after every step
    updates = []

    def die_at_the_ninth(self, *arguments):
        updates.append(arguments)
        if len(updates) == 9:
            raise KeyboardInterrupt
        return update(self, *arguments)

    update = GradualMasking.update
    monkeypatch.setattr(GradualMasking, "update", die_at_the_ninth)
    with pytest.raises(KeyboardInterrupt):
        stage.prune(model, dataset, config, checkpoint=checkpoint)
    resumed = stage.prune(model, dataset, config, checkpoint=checkpoint)
    assert len(updates) == 9 + 24 - 8  # 6 steps in each of 4 epochs, 8 of them before
    assert same_state(resumed.model.module, straight.model.module)
    assert (resumed.metrics, resumed.curve, resumed.details) == (straight.metrics, straight.curve, straight.details)


def same_state(one, other):
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


@pytest.mark.parametrize("method", ["l1", "magnitude", "lottery", "greedy", "bn_scale"])
def test_neither_the_model_nor_the_teacher_is_altered(method, made):
    model, teacher = load_model(made / "trained"), load_model(made / "resnet8")
    teacher.module.train()
    before = [copy.deepcopy(one.module.state_dict()) for one in (model, teacher)]
    digest = dataset_digest(made / "dataset")
    config = dataclasses.replace(L1, method=method, epochs=2, steps=1, sparsity=0.3)
    stage.prune(model, load_dataset(made / "dataset"), config, teachers={"teacher": teacher}, dataset_digest=digest)
    for one, state in zip((model, teacher), before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in one.module.state_dict().items())
        assert all(weight.requires_grad and weight.grad is None for weight in one.module.parameters())
    assert teacher.module.training and not model.module.training


@pytest.mark.parametrize("method", METHODS.of_kind("weights"))
def test_every_method_that_masks_keeps_its_zeros_and_says_so(method, made, tmp_path):
    settings = {"lottery": {"steps": 2, "epochs": 1}, "nm": {"exclude": "conv1"}}.get(method, {})
    config = dataclasses.replace(MAGNITUDE, **{"method": method, "sparsity": 0.6, "epochs": 2, "steps": 0} | settings)
    metrics = prune(made, config, tmp_path / "pruned")
    model = load_model(tmp_path / "pruned")
    record = model.lineage[-1]
    assert record["summary"] == f"prune {method} {metrics['sparsity']:.1%} of weights"
    expected = 0.5 if method == "nm" else 0.6
    assert metrics["sparsity"] == pytest.approx(expected, abs=0.002)
    assert record["details"]["steps"][-1]["sparsity"] == pytest.approx(expected)
    for name, mask in model.masks().items():
        weight = model.module.get_parameter(name)
        assert torch.equal(weight != 0, mask)
    assert metrics["parameters"] == metrics["parameters_before"]


def test_a_run_with_more_epochs_continues_one_with_fewer(made, tmp_path, monkeypatch):
    longest = dataclasses.replace(MAGNITUDE, epochs=4)
    prune(made, longest, tmp_path / "straight")
    monkeypatch.setenv("KONDENSE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    prune(made, dataclasses.replace(longest, epochs=2, max_epochs=4), tmp_path / "short")
    prune(made, dataclasses.replace(longest, max_epochs=4), tmp_path / "promoted")
    straight, promoted = (load_file(tmp_path / name / "weights.safetensors") for name in ("straight", "promoted"))
    assert all(torch.equal(straight[name], promoted[name]) for name in straight)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), but got 1.0"),
        ({"sparsity": -0.1}, r"sparsity must be in \[0, 1\), but got -0.1"),
        ({"method": "l0"}, "method must be one of .*, but got 'l0'"),
        ({"target": "flops"}, "target must be one of bytes, channels, latency, macs, parameters, but got 'flops'"),
        ({"scope": "local"}, "scope must be one of auto, global, lamp, layer, but got 'local'"),
        ({"scope": "lamp"}, "scope lamp needs one of the methods lottery, magnitude, taylor, but got l1"),
        ({"pruning_schedule": "agp"}, "pruning_schedule must be one of cubic, linear, one_shot, but got 'agp'"),
        ({"steps": -1}, r"steps must be in \[0, 10000\], but got -1"),
        ({"pruning_end": 0.0}, r"pruning_end must be in \(0, 1\], but got 0.0"),
        ({"granularity": "rows"}, "granularity must be one of kernels, neurons, weights, but got 'rows'"),
        ({"round_to": 0}, r"round_to must be in \[1, 1024\], but got 0"),
        ({"epochs": 0}, r"epochs must be in \[1, 100000\], but got 0"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], but got 1.5"),
        ({"temperature": 0.0}, r"temperature must be in \(0, 1000\], but got 0.0"),
        ({"layers": "conv1=1.0"}, "layers must be entries name=fraction"),
    ],
)
def test_bad_parameters_are_refused_with_rule_and_value(values, rule):
    with pytest.raises(ValueError, match=rule):
        PruneConfig(**values)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (dataclasses.replace(MAGNITUDE, layers="fc9=0.5"), "layers must name layers of the network, but got 'fc9'"),
        (dataclasses.replace(L1, exclude="fc9"), "exclude must name layers of the network, but got 'fc9'"),
        (
            dataclasses.replace(L1, layers="fc=0.5", exclude="Linear"),
            "a layer must be in layers or in exclude, but 'fc'",
        ),
        (dataclasses.replace(L1, sparsity=0.99), r"sparsity must be at most 0\.\d+ of the macs"),
        (dataclasses.replace(L1, exclude="Conv2d"), "the network has no channel to remove"),
    ],
)
def test_what_does_not_fit_the_network_is_refused_and_writes_nothing(config: Config, rule, made, tmp_path):
    with pytest.raises(ValueError, match=rule):
        prune(made, config, tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


def test_quantized_models_are_refused(made, tmp_path):
    model = load_model(made / "lenet5")
    weight = model.module.fc2.weight
    quantized = QuantizedTensor((weight / 0.01).round().clamp(-127, 127).to(torch.int8), torch.tensor([0.01]), 8)
    with torch.no_grad():
        weight.copy_(quantized.dequantize())
    save_model(tmp_path / "quantized", dataclasses.replace(model, quantized={"fc2.weight": quantized}))
    with pytest.raises(ValueError, match="prune needs a float model, but got a quantized one"):
        prune(made, L1, tmp_path / "pruned", model=tmp_path / "quantized")


def test_other_classes_are_refused(made, tmp_path):
    spec = NetworkSpec("lenet300", {"classes": 7, "channels": 1, "image_size": 16})
    save_model(tmp_path / "seven", Model(build(spec).eval(), spec))
    with pytest.raises(ValueError, match=r"the model must return logits \[N, 3\], .* but returned \[2, 7\]"):
        prune(made, L1, tmp_path / "pruned", model=tmp_path / "seven")
    with pytest.raises(ValueError, match=r"the teacher must return logits \[N, 3\], .* but returned \[2, 7\]"):
        prune(made, L1, tmp_path / "pruned", teacher=tmp_path / "seven")
