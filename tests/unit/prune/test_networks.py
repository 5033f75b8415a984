"""Channel pruning of networks with every kind of connection: shortcuts, concatenations, depthwise, grouped, gates."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from kondense.artifacts.model import Model, load_model, save_model
from kondense.data.dataset import save_dataset
from kondense.export.onnx import export_onnx
from kondense.measuring.latency import open_session, predict_onnx
from kondense.measuring.size import count_macs
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import run as prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import run as quantize
from safetensors.torch import load_file, save_file

from tests.support.quantize_makers import make_dataset, make_split

SIZES = {
    "lenet5": 28,
    "resnet8": 16,
    "mobilenet_small": 16,
    "torchvision:resnet18": 32,
    "torchvision:mobilenet_v2": 32,
    "torchvision:densenet121": 32,
    "torchvision:efficientnet_b0": 32,
    "torchvision:resnext50_32x4d": 32,
    "torchvision:vgg11_bn": 32,
}
SLOW = {"torchvision:vgg11_bn", "torchvision:resnext50_32x4d"}  # a matrix of 25088 x 4096, and 50 layers
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SIZES]
FAST = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3, "alpha": 0.0, "device": "cpu", "reconstruct": False}


def folder(name, root):
    return root / name.replace(":", "-")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """Makes on demand a directory with a data set, a network with random weights, and what is left of it."""
    root = tmp_path_factory.mktemp("networks")

    def make(name):
        directory = folder(name, root)
        if not directory.exists():
            directory.mkdir()
            dataset = make_dataset(size=SIZES[name], channels=3, test=20)
            small = dataset.__class__(
                **{field: getattr(dataset, field) for field in ("name", "classes", "mean", "std", "seed", "source")},
                train=make_split(32, seed=0, size=SIZES[name], channels=3),
                validation=make_split(20, seed=1, size=SIZES[name], channels=3),
                test=dataset.test,
            )
            save_dataset(directory / "dataset", small)
            spec = NetworkSpec(name, {"classes": 10, "channels": 3, "image_size": SIZES[name]})
            save_model(directory / "model", Model(build(spec, seed=3).eval(), spec))
            run_prune(directory, "model", "pruned", sparsity=0.4)
        return directory

    return make


def run_prune(directory, source, output, **settings):
    return prune(
        PruneConfig(**FAST | settings),
        dataset_dir=directory / "dataset",
        model_dir=directory / source,
        pruned_dir=directory / output,
    )


def images(name, count=4):
    shape = (count, 3, SIZES[name], SIZES[name])
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def check_fresh_process(directories):
    """One process loads every pruned network and runs it; its logits are ours, bit for bit."""
    program = """
        import sys
        from pathlib import Path
        import torch
        from safetensors.torch import load_file, save_file
        from kondense.artifacts.model import load_model
        torch.set_num_threads(int(sys.argv[1]))
        for here in map(Path, sys.argv[2:]):
            with torch.no_grad():
                logits = load_model(here / "pruned").module(load_file(here / "images.safetensors")["images"])
            save_file({"logits": logits}, here / "logits.safetensors")
    """
    for name, directory in directories.items():
        save_file({"images": images(name)}, directory / "images.safetensors")
    command = [sys.executable, "-c", textwrap.dedent(program), str(torch.get_num_threads())]
    subprocess.run([*command, *map(str, directories.values())], check=True)
    for name, directory in directories.items():
        with torch.no_grad():
            here = load_model(directory / "pruned").module(images(name))
        assert torch.equal(load_file(directory / "logits.safetensors")["logits"], here), name


def test_a_fresh_process_computes_the_same_bits(pruned):
    check_fresh_process({name: pruned(name) for name in SIZES if name not in SLOW})


@pytest.mark.slow
def test_a_fresh_process_computes_the_same_bits_of_large_networks(pruned):
    check_fresh_process({name: pruned(name) for name in sorted(SLOW)})


@pytest.mark.parametrize("name", NAMES)
def test_it_loses_the_macs_asked_for(name, pruned):
    shape = (3, SIZES[name], SIZES[name])
    before, after = (
        sum(count_macs(load_model(pruned(name) / role).module, shape).values()) for role in ("model", "pruned")
    )
    assert after <= 0.6 * before


@pytest.mark.parametrize("name", NAMES)
def test_it_is_pruned_and_tuned_again_and_quantized(name, pruned):
    directory = pruned(name)
    metrics = run_prune(directory, "pruned", "again", method="l2", sparsity=0.3)
    assert metrics["macs"] <= 0.7 * metrics["macs_before"]
    config = QuantizeConfig(method="static")
    folders = {"model_dir": directory / "again", "quantized_dir": directory / "quantized"}
    quantize(config, dataset_dir=directory / "dataset", **folders)
    quantized = load_model(directory / "quantized")
    assert [record["stage"] for record in quantized.lineage] == ["prune", "prune", "quantize"]
    assert quantized.quantized
    with torch.no_grad():
        assert torch.isfinite(quantized.module(images(name))).all()


@pytest.mark.parametrize(
    "name", ["resnet8", *(pytest.param(name, marks=pytest.mark.slow) for name in SIZES if "torchvision" in name)]
)
def test_the_exported_model_computes_what_the_pruned_one_does(name, pruned):
    directory = pruned(name)
    model = load_model(directory / "pruned")
    dataset = make_dataset(size=SIZES[name], channels=3, test=20)
    session = open_session(export_onnx(model, dataset))
    with torch.no_grad():
        expected = model.module(images(name)).numpy()
    tolerance = 1e-4 * np.abs(expected).max()  # random weights give logits up to hundreds
    np.testing.assert_allclose(predict_onnx(session, images(name).numpy()), expected, rtol=1e-3, atol=tolerance)
