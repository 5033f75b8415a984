"""What torch-pruning and onnxruntime's quantize_static do with the same networks, and the time of surgery."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kondense.channels.dependencies import find_groups
from kondense.channels.groups import ChannelGroup
from kondense.channels.surgery import remove
from kondense.measuring.latency import open_session, predict_onnx
from kondense.measuring.size import count_macs
from kondense.networks.build import factory
from torch import nn

from benchmarks.zoo.networks import SIZES
from benchmarks.zoo.operations import (
    CHANNELS,
    CLASSES,
    FLOAT_ERROR,
    SPARSITY,
    STATIC_ERROR,
    DifferentError,
    compare,
    make_dataset,
    make_model,
)

STEPS = 20  # of torch-pruning's schedule to a ratio of RATIO, which ends at the target
RATIO = 0.6


def _bare(network: str) -> nn.Module:
    """Return the network as its factory makes it, with norms that have seen the images."""
    dataset = make_dataset(SIZES[network])
    torch.manual_seed(3)
    module = factory(network)(classes=CLASSES, channels=CHANNELS, image_size=SIZES[network])
    with torch.no_grad():
        module.train()(dataset.normalise(dataset.train.images[:16]))
    return module.eval()


def _pruner(module: nn.Module, images: torch.Tensor) -> Any:
    import torch_pruning

    heads = [layer for layer in module.modules() if isinstance(layer, nn.Linear) and layer.out_features == CLASSES]
    return torch_pruning.pruner.MagnitudePruner(
        module,
        images,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        global_pruning=True,
        pruning_ratio=RATIO,
        iterative_steps=STEPS,
        ignored_layers=heads,
    )


def torch_pruning_whole(network: str, directory: Path) -> str:
    """Prune to the same target, save, load in a process forked before, and export."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)  # so that the end of this process is the end of the pipe
        _load_when_told(network, directory, reader)
    dataset, module = make_dataset(SIZES[network]), _bare(network)
    images = dataset.normalise(dataset.test.images)
    before = sum(count_macs(module, dataset.shape).values())
    pruner = _pruner(module, images[:1])
    for _ in range(STEPS):
        pruner.step()
        if sum(count_macs(module, dataset.shape).values()) <= (1 - SPARSITY) * before:
            break
    else:
        after = sum(count_macs(module, dataset.shape).values())
        raise DifferentError(f"asked for {SPARSITY:.0%} fewer MACs, but {1 - after / before:.1%} are gone")
    with torch.no_grad():
        expected = module.eval()(images).numpy()
    torch.save(module, directory / "model.pt")
    os.write(writer, b"1")
    os.waitpid(child, 0)
    if (failure := directory / "failure.txt").exists():
        raise DifferentError(f"a fresh process: {failure.read_text()}")
    compare("a fresh process", expected, np.load(directory / "logits.npy"), FLOAT_ERROR)
    content = _exported(module, images, directory).read_bytes()
    compare("onnxruntime", expected, predict_onnx(open_session(content), images.numpy()), FLOAT_ERROR)
    return ""


def _load_when_told(network: str, directory: Path, reader: int) -> None:
    try:
        if not os.read(reader, 1):  # refused before there was a file
            return
        module = torch.load(directory / "model.pt", weights_only=False)
        dataset = make_dataset(SIZES[network])
        with torch.no_grad():
            np.save(directory / "logits.npy", module(dataset.normalise(dataset.test.images)).numpy())
    except BaseException as error:
        (directory / "failure.txt").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _exported(module: nn.Module, images: torch.Tensor, directory: Path) -> Path:
    path = directory / "float.onnx"
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(module, (images[:2],), str(path), dynamo=True, dynamic_shapes=({0: batch},), external_data=False)
    return path


def onnxruntime_static(network: str, directory: Path) -> str:
    """Export with torch and quantize with onnxruntime."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    dataset, module = make_dataset(SIZES[network]), _bare(network)
    train, test = dataset.normalise(dataset.train.images).numpy(), dataset.normalise(dataset.test.images)
    with torch.no_grad():
        expected = module(test).numpy()
    path, prepared, output = _exported(module, test, directory), directory / "prepared.onnx", directory / "int8.onnx"
    quant_pre_process(str(path), str(prepared))
    name = open_session(prepared.read_bytes()).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, np.ndarray]] = iter({name: part} for part in np.split(train, 2))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    quantize_static(str(prepared), str(output), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    actual = predict_onnx(open_session(output.read_bytes()), test.numpy())
    compare("onnxruntime", expected, actual, STATIC_ERROR)
    return ""


def surgery(network: str, directory: Path) -> str:
    """Trace and halve every group of channels: seconds of both. What is left must run."""
    dataset, module = make_dataset(SIZES[network]), make_model(network).module

    def halve(groups: dict[str, ChannelGroup]) -> None:
        remove(module, groups, {name: _half(group) for name, group in groups.items()})

    seconds = _timed(lambda: find_groups(module, dataset.shape), halve)
    module(dataset.normalise(dataset.test.images[:2]))
    return seconds


def _half(group: ChannelGroup) -> torch.Tensor:
    count = group.channels // 2 // group.blocks * group.blocks
    return group.lowest(torch.arange(group.channels, dtype=torch.float32), max(count, group.blocks))


def torch_pruning_surgery(network: str, directory: Path) -> str:
    """Do the same with torch-pruning."""
    import torch_pruning

    module = _bare(network)
    images = torch.zeros(1, CHANNELS, SIZES[network], SIZES[network])
    heads = [layer for layer in module.modules() if isinstance(layer, nn.Linear) and layer.out_features == CLASSES]

    def trace() -> Any:
        importance = torch_pruning.importance.MagnitudeImportance(p=1)
        return torch_pruning.pruner.MagnitudePruner(
            module, images, importance=importance, pruning_ratio=0.5, ignored_layers=heads
        )

    seconds = _timed(trace, lambda pruner: pruner.step())
    module(images)
    return seconds


def _timed(trace: Callable, cut: Callable) -> str:
    started = time.process_time()
    found = trace()
    traced = time.process_time()
    cut(found)
    return f"{traced - started:.3f} s + {time.process_time() - traced:.3f} s"


PEERS: dict[str, Callable[[str, Path], str]] = {
    "torch-pruning": torch_pruning_whole,
    "quantize_static": onnxruntime_static,
    "surgery": surgery,
    "surgery-of-torch-pruning": torch_pruning_surgery,
}
