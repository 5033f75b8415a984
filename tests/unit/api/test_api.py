"""The public functions against the stages on artifacts, and what they refuse."""

import copy
import subprocess
import sys
from pathlib import Path

import kondense as kd
import pytest
import torch
from kondense.artifacts.model import load_model, save_model
from kondense.data.dataset import Dataset, save_dataset
from kondense.prune.config import PruneConfig
from kondense.prune.stage import run as prune_artifacts
from kondense.training.trainer import Trainer
from torch import nn

from tests.support.quantize_makers import make_dataset, make_model

QUICK = {"evaluate.latency_seconds": 0.02, "evaluate.further_latency_seconds": 0, "evaluate.robustness_images": 0}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_dataset(size=12)


@pytest.fixture(scope="module")
def model(data: Dataset) -> kd.Model:
    return make_model("lenet300", data, steps=6)


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_importing_loads_no_torch_and_names_are_functions_whatever_is_imported() -> None:
    code = "import sys, kondense as kd\nassert not {'torch', 'numpy', 'kfp'} & set(sys.modules)\n"
    code += "import kondense.cli, kondense.kfp, kondense.recipes\n"
    code += (
        "assert all(callable(getattr(kd, name)) for name in ('train', 'prune', 'quantize', 'distill', 'evaluate'))\n"
    )
    code += "assert callable(kd.search) and set(kd.__all__) <= set(dir(kd)) and kd.__version__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pruning_in_memory_gives_the_stages_weights_and_leaves_its_arguments_alone(
    data: Dataset, model: kd.Model, tmp_path: Path
) -> None:
    before = copy.deepcopy(model.module)
    result = kd.prune(model, data, method="l1", sparsity=0.4, epochs=1, batch_size=16, target="parameters")
    assert same(before, model.module)
    assert all(parameter.requires_grad for parameter in model.module.parameters())
    save_dataset(tmp_path / "data", data)
    save_model(tmp_path / "model", model)
    config = PruneConfig(method="l1", sparsity=0.4, epochs=1, batch_size=16, target="parameters")
    places = {"dataset_dir": tmp_path / "data", "model_dir": tmp_path / "model", "pruned_dir": tmp_path / "pruned"}
    metrics = prune_artifacts(config, **places)
    assert same(load_model(tmp_path / "pruned").module, result.model.module)
    assert metrics == dict(result.metrics)


def test_checkpoints_continue_the_same_call_and_no_other(
    data: Dataset, model: kd.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, *batch: trained.append(1) or step(self, *batch))

    def smallest(module, groups):
        return {name: torch.arange(float(group.channels)) for name, group in groups.items()}

    def largest(module, groups):
        return {name: -torch.arange(float(group.channels)) for name, group in groups.items()}

    def call(method, place=str(tmp_path)):
        options = {"sparsity": 0.4, "epochs": 1, "target": "parameters", "checkpoints": place}
        trained.clear()
        return kd.prune(model, data, method=method, **options), len(trained)

    first, steps = call(smallest)
    again, repeated = call(smallest, tmp_path)
    other, anew = call(largest)
    assert steps > 0
    assert (repeated, anew) == (0, steps)
    assert same(first.model.module, again.model.module)
    assert not same(first.model.module, other.model.module)


def test_compress_shares_steps_reports_failures_and_saves(data: Dataset, model: kd.Model, tmp_path: Path) -> None:
    recipes = {
        "pruned": "prune:l1:0.4:target=parameters:epochs=1",
        "both": "prune:l1:0.4:target=parameters:epochs=1 > quantize:static",
        "impossible": "prune:l1:0.99:target=macs:epochs=1:layers=fc9=0.5",
    }
    comparison = kd.compress(model, data, recipes, settings=QUICK)
    assert list(comparison.models) == ["teacher", "pruned", "both"]
    assert list(comparison.failures) == ["impossible"]
    (failed,) = comparison.report["failed"]
    assert (failed["name"], failed["reason"]) == ("impossible", comparison.failures["impossible"])
    assert "fc9" in str(comparison)
    assert [each["stage"] for each in comparison.models["both"].lineage] == ["prune", "quantize"]
    comparison.save(tmp_path / "out")
    assert same(kd.load(tmp_path / "out" / "chosen").module, comparison.model.module)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda model, data: kd.prune(model, data, sparsty=0.5),
            r"'sparsty' \(did you mean sparsity\?\); the parameters are",
        ),
        (lambda model, data: kd.prune(model, data, sparsity=1.5), r"sparsity must be in \[0, 1\), but got 1.5"),
        (lambda model, data: kd.prune(model, data, max_accuracy_drop=0.1), "use max_validation_drop"),
        (lambda model, data: kd.prune(model, data, method="l7"), "method must be one of"),
        (lambda model, data: kd.quantize(model, data, method=3), "but got 3"),
        (lambda model, data: kd.compress(model, data, ["prune:l1:0.5 > shrink"]), "recipe steps must be"),
        (lambda model, data: kd.compress(model, data, [3]), "a recipe must be a text such as .*, but got 3"),
        (
            lambda model, data: kd.export_onnx(model, "/", data),
            "^/ must be a file, or not exist yet, but is a directory",
        ),
        (lambda model, data: kd.prune(model, data, device="gpu"), r"but got 'gpu'\.$"),
        (lambda model, data: kd.compress(model, data, settings={"tune.lr": 1}), "settings must be"),
        (lambda model, data: kd.Model(nn.Linear(144, 10), lambda: nn.Linear(144, 10)), "is a lambda"),
        (lambda model, data: kd.Model(lambda images: images), "nn.Module"),
        (lambda model, data: kd.prune(model.module, data), r"model must be a kd.Model, but got \w+: wrap it, kd.Model"),
        (lambda model, data: kd.distill(model.module, data), r"teacher must be a kd.Model, but got \w+: wrap it"),
        (lambda model, data: kd.evaluate(model, data, teacher=model.module), "teacher must be a kd.Model"),
        (lambda model, data: kd.distill(model, data, student=model.module), "student must be a kd.Model"),
        (lambda model, data: kd.distill([], data), "teacher must be one to 3 models, but got 0"),
        (lambda model, data: kd.distill([model] * 4, data), "teacher must be one to 3 models, but got 4"),
        (lambda model, data: kd.Model(nn.ReLU), "must be made of an nn.Module, but got the class ReLU: call it"),
        (
            lambda model, data: kd.Model(nn.Sequential(nn.Flatten(), nn.LazyLinear(4))),
            "some are lazy: call the network",
        ),
        (lambda model, data: kd.train(data, nn.Linear), "network must be a kd.Model, but got the class Linear"),
        (lambda model, data: kd.save(model.module, "x"), "model must be a kd.Model"),
        (lambda model, data: kd.export_onnx(model.module, "x.onnx", data), "model must be a kd.Model"),
        (lambda model, data: kd.compress(data, model), "model must be a kd.Model, but got Dataset"),
        (
            lambda model, data: kd.quantize(model, [1, 2]),
            "data must be a kd.Dataset, but got list: kd.Dataset.from_arrays",
        ),
    ],
)
def test_bad_input_is_one_error_before_any_work(call, text: str, model: kd.Model, data: Dataset) -> None:
    with pytest.raises(kd.InputError, match=text):
        call(model, data)


class Own(nn.Sequential):
    """A network whose class cannot be called without arguments: no name alone says how to build it."""

    def __init__(self, hidden: int) -> None:
        layers = [nn.Flatten(), nn.Linear(144, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 10)]
        super().__init__(*layers)


def test_a_network_that_cannot_be_named_is_compressed_and_saved_when_its_code_is_named(
    data: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    comparison = kd.compress(
        kd.Model(Own(24)),
        data,
        {"small": "prune:l1:0.5:target=parameters:epochs=1 > distill:epochs=1 > quantize:static"},
        settings=QUICK,
    )
    small = comparison.models["small"]
    assert small.module[1].out_features < 24
    kd.export_onnx(small, tmp_path / "small.onnx")
    with pytest.raises(kd.InputError, match="must be built by code that can be imported, but in-memory:Own-"):
        kd.save(small, tmp_path / "refused")
    with pytest.raises(kd.InputError, match="builds another architecture: 1 is Linear.*out_features=24"):
        kd.save(small, tmp_path / "refused", network=Own, arguments={"hidden": 8})
    assert not (tmp_path / "refused").exists()
    kd.save(small, tmp_path / "small", network=Own, arguments={"hidden": 24})
    loaded = kd.load(tmp_path / "small", allow_network=__name__)
    assert same(loaded.module, small.module)
    assert loaded.network.arguments == {"hidden": 24}
    comparison.save(tmp_path / "all", network=f"{__name__}:Own", arguments={"hidden": 24})
    assert same(kd.load(tmp_path / "all" / "chosen", allow_network=__name__).module, comparison.model.module)


def test_a_file_is_not_replaced_by_a_model(model: kd.Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(kd.InputError, match="notes.txt must be a directory, or not exist yet, but is a file"):
        kd.save(model, tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_class_of_a_notebook_is_compressed_in_memory(tmp_path: Path) -> None:
    code = """if True:
        import kondense as kd, numpy as np
        from torch import nn
        class Net(nn.Sequential): pass
        net = Net(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        images, labels = np.random.default_rng(0).integers(0, 255, (32, 5, 5), "uint8"), np.arange(32) % 2
        data = kd.Dataset.from_arrays((images, labels), (images[:8], labels[:8]), (images[8:16], labels[8:16]))
        print(kd.prune(kd.Model(net), data, method="l1", sparsity=0.5, epochs=1).model.module[0].out_channels)
        try:
            kd.Model(net, Net)
        except kd.InputError as error:
            print(error)
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    width, refusal = said.splitlines()
    assert int(width) < 32
    assert "Net is defined in __main__, a notebook or script" in refusal
    assert "importable module" in refusal
