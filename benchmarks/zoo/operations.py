"""What the zoo does with each network: one function per operation, which raises on a fault.

The data are 32 training, 16 validation and 16 test images of noise in 10 classes; weights are random, so outputs are
compared, not accuracies.
"""

import copy
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kondense.artifacts.images import Images
from kondense.artifacts.model import Model, load_model, save_model
from kondense.codec.model_file import pack_model, unpack_model
from kondense.data.dataset import Dataset, Split
from kondense.distill.config import DistillConfig
from kondense.distill.stage import distill
from kondense.export.onnx import export_onnx
from kondense.measuring.latency import open_session, predict_onnx
from kondense.measuring.size import count_macs
from kondense.networks.allowed import allowing
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from kondense.train.config import TrainConfig
from kondense.train.stage import train

from benchmarks.zoo.networks import SIZES

CLASSES = 10
CHANNELS = 3
SPARSITY = 0.3  # of the MACs, for channel methods
FLOAT_ERROR = 1e-4  # relative, L2: the order of the sums differs
STATIC_ERROR = 0.1  # relative, L2: an activation that rounds otherwise moves by one of 255 steps, layer after layer
FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "device": "cpu", "seed": 1}


class DifferentError(Exception):
    """A network computes something else than it did before."""


def make_dataset(size: int) -> Dataset:
    """Return noise in 10 classes."""

    def split(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (count, CHANNELS, size, size), generator=generator, dtype=torch.uint8)
        return Split(images, torch.arange(count) % CLASSES)

    names = tuple(f"class {label}" for label in range(CLASSES))
    half = (0.5,) * CHANNELS
    return Dataset("noise", names, half, half, 0, "the zoo", split(32, 0), split(16, 1), split(16, 2))


def make_model(network: str) -> Model:
    """Return a network with random weights whose norms have seen the images."""
    dataset = make_dataset(SIZES[network])
    spec = NetworkSpec(network, {"classes": CLASSES, "channels": CHANNELS, "image_size": SIZES[network]})
    module = build(spec, seed=3).train()
    with torch.no_grad():
        module(dataset.normalise(dataset.train.images[:16]))
    return Model(module.eval(), spec, images=Images.of(dataset))


def outputs(model: Model, dataset: Dataset) -> np.ndarray:
    """Return a model's logits for the test images."""
    with torch.no_grad():
        return model.module.eval()(dataset.normalise(dataset.test.images)).numpy()


def compare(what: str, expected: np.ndarray, actual: np.ndarray, tolerance: float) -> None:
    """Raise DifferentError unless the relative L2 error is within the tolerance."""
    error = float(np.linalg.norm(actual - expected) / max(float(np.linalg.norm(expected)), 1e-12))
    if not error <= tolerance:
        raise DifferentError(f"{what}: relative error {error:.3g}, but at most {tolerance:g} is rounding")


def _train(network: str, directory: Path) -> str:
    dataset = make_dataset(SIZES[network])
    result = train(None, dataset, TrainConfig(network=network, **FAST))
    return _saved(result.model, dataset, directory)


def _import(network: str, directory: Path) -> str:
    dataset, model = make_dataset(SIZES[network]), make_model(network)
    path = directory / "weights.pt"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in model.module.state_dict().items()}}, path)
    result = train(None, dataset, TrainConfig(network=network, import_uri=str(path), **FAST))
    compare("imported", outputs(model, dataset), outputs(result.model, dataset), 0.0)
    return _saved(result.model, dataset, directory)


def _prune(method: str, network: str, directory: Path) -> str:
    dataset, model = make_dataset(SIZES[network]), make_model(network)
    channels = method in ("l1", "greedy")
    config = PruneConfig(method=method, sparsity=SPARSITY if channels else 0.5, **FAST)
    result = prune(model, dataset, config)
    before, after = (sum(count_macs(each.module, dataset.shape).values()) for each in (model, result.model))
    note = f"{1 - after / before:.0%} of the MACs removed" if channels else ""
    if channels and not result.shortfall and after > (1 - 0.8 * SPARSITY) * before:
        raise DifferentError(f"asked for {SPARSITY:.0%} fewer MACs, but only {1 - after / before:.1%} are gone")
    _saved(result.model, dataset, directory)
    return f"{note}; {result.shortfall}".strip("; ")


def _quantize(method: str, network: str, directory: Path) -> str:
    dataset, model = make_dataset(SIZES[network]), make_model(network)
    result = quantize(model, dataset, QuantizeConfig(method=method, calibration_images=32, **FAST))
    if method == "weight_only":
        compare("8-bit weights", outputs(model, dataset), outputs(result.model, dataset), STATIC_ERROR)
    _saved(result.model, dataset, directory)
    if method == "static":
        _exported(result.model, dataset, STATIC_ERROR)
    return result.shortfall


def _distill(network: str, directory: Path) -> str:
    dataset, model = make_dataset(SIZES[network]), make_model(network)
    result = distill(None, dataset, DistillConfig(width=0.5, **FAST), teachers={"teacher": model})
    before, after = (sum(each.numel() for each in m.module.parameters()) for m in (model, result.model))
    _saved(result.model, dataset, directory)
    return f"{after / before:.0%} of the parameters"


def _kz(network: str, directory: Path) -> str:
    """Write weights.kz and read it in a process that was forked before there was a network."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)  # so that the end of this process is the end of the pipe
        _read_when_told(network, directory, reader)
    dataset, model = make_dataset(SIZES[network]), make_model(network)
    result = quantize(model, dataset, QuantizeConfig(method="weight_only", **FAST))
    content = pack_model(result.model)
    (directory / "weights.kz").write_bytes(content)
    os.write(writer, b"1")
    os.waitpid(child, 0)
    if (failure := directory / "failure.txt").exists():
        raise DifferentError(f"a fresh process: {failure.read_text()}")
    expected = outputs(result.model, dataset)
    compare("a fresh process", expected, np.load(directory / "logits.npy"), FLOAT_ERROR)
    return f"{len(content):,} bytes"


def _read_when_told(network: str, directory: Path, reader: int) -> None:
    """Wait for the file, write the logits of its model, and leave the process."""
    try:
        if not os.read(reader, 1):  # refused before there was a file
            return
        with allowing(networks=[network]):
            model = unpack_model((directory / "weights.kz").read_bytes())
        np.save(directory / "logits.npy", outputs(model, make_dataset(SIZES[network])))
    except BaseException as error:
        (directory / "failure.txt").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _export(network: str, directory: Path) -> str:
    dataset, model = make_dataset(SIZES[network]), make_model(network)
    _exported(model, dataset, FLOAT_ERROR)
    return ""


def _exported(model: Model, dataset: Dataset, tolerance: float) -> None:
    content = export_onnx(model, dataset)
    images = dataset.normalise(dataset.test.images).numpy()
    compare("onnxruntime", outputs(model, dataset), predict_onnx(open_session(content), images), tolerance)


def _saved(model: Model, dataset: Dataset, directory: Path) -> str:
    """Write the artifact, read it and compare to the bit."""
    expected = outputs(model, dataset)
    if not np.isfinite(expected).all():
        raise DifferentError("the logits are not finite")
    save_model(directory / "model", model)
    with allowing(networks=[model.network.name]):
        loaded = load_model(directory / "model")
    compare("saved and loaded", expected, outputs(copy.deepcopy(loaded), dataset), 1e-6)
    return ""


OPERATIONS: dict[str, Callable[[str, Path], str]] = {
    "train": _train,
    "import": _import,
    **{name: functools.partial(_prune, name) for name in ("l1", "greedy", "magnitude", "nm")},
    **{name: functools.partial(_quantize, name) for name in ("static", "qat", "dynamic", "weight_only")},
    "distill": _distill,
    "kz": _kz,
    "export": _export,
}
