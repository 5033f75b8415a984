"""Networks of real size: static quantization, its ONNX file and weights.kz, beside onnxruntime's quantize_static.

Each cell runs in a process of its own; weights and images are random.

python -m benchmarks.large --network resnet50 --images 256
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, SIDE = 1000, 224
TURNS = 40


def cpu_seconds() -> float:
    """Return the processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what ``work`` returns and what it took."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    result = work()
    return result, {"cpu_s": cpu_seconds() - cpu, "wall_s": time.perf_counter() - wall, "peak_mb": peak_mb()}


def network(name: str) -> Any:
    """Return a network of torchvision with random weights and batch norms that saw random images."""
    import torch
    import torchvision

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None)
    with torch.no_grad():
        module.train()(torch.randn(8, 3, SIDE, SIDE))
    return module.eval()


def quantized(name: str, images: int) -> tuple[Any, Any, Any, dict[str, float]]:
    """Return the network ``name``, its data set, the quantized model, and what quantization took."""
    import kondense as kd
    from kondense.artifacts.equivalence import probes
    from kondense.artifacts.separation import separate_attention
    from kondense.quantize.config import QuantizeConfig
    from kondense.quantize.context import calibration_batches
    from kondense.quantize.static import static

    module = network(name)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 3, SIDE, SIDE), dtype=np.uint8)
    few = (pixels[:4], np.arange(4))
    data = kd.Dataset.from_arrays(
        train=(pixels, np.arange(images) % CLASSES), validation=few, test=few, classes=[str(i) for i in range(CLASSES)]
    )
    model = kd.Model(module, network=f"torchvision:{name}", arguments={"classes": CLASSES, "channels": 3})
    separate_attention(module, probes(data.shape))  # as the stage does
    config = QuantizeConfig(calibration_images=images, batch_size=32)
    made, took = timed(lambda: static.quantize(model, calibration_batches(data, config)))
    return module, data, made, took


def calibration(name: str, images: int, folder: Path) -> dict[str, Any]:
    """Quantize ``name`` alone; its peak must not depend on the number of images."""
    return {"static": quantized(name, images)[3], "images MB": images * 3 * SIDE * SIDE / 2**20}


def ours(name: str, images: int, folder: Path) -> dict[str, Any]:
    """Quantize, export and pack ``name``; its ONNX file is ours.onnx."""
    from kondense.codec.model_file import pack_model, unpack_model
    from kondense.export.onnx import export_onnx

    module, data, model, static_took = quantized(name, images)
    content, export_took = timed(lambda: export_onnx(model, data))
    (folder / "ours.onnx").write_bytes(content)
    packed, encode_took = timed(lambda: pack_model(model))
    _, decode_took = timed(lambda: unpack_model(packed))
    weights = sum(parameter.numel() for parameter in module.parameters())
    integers = sum(tensor.integers.numel() for tensor in model.quantized.values())
    return {
        "static": static_took,
        "export": export_took,
        "kz encode": encode_took,
        "kz decode": decode_took,
        "kz bytes": len(packed),
        "onnx bytes": len(content),
        "weights in float": 1 - integers / weights,
    }


def peer(name: str, images: int, folder: Path) -> dict[str, Any]:
    """Quantize the float file of ``name`` with onnxruntime; the result is peer.onnx."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left, self.rng = images, np.random.default_rng(0)

        def get_next(self) -> dict[str, np.ndarray] | None:
            self.left -= 1
            if self.left < 0:
                return None
            return {"images": self.rng.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)}

    def quantize() -> None:
        quant_pre_process(folder / "fp32.onnx", folder / "prepared.onnx")
        quantize_static(
            folder / "prepared.onnx",
            folder / "peer.onnx",
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    _, took = timed(quantize)
    return {"quantize_static": took, "onnx bytes": (folder / "peer.onnx").stat().st_size}


def float_file(name: str, images: int, folder: Path) -> dict[str, Any]:
    """Write the float network as fp32.onnx."""
    import torch

    example = (torch.zeros(2, 3, SIDE, SIDE),)
    shapes = ({0: torch.export.Dim("batch")},)
    names = {"input_names": ["images"], "output_names": ["logits"]}
    target = str(folder / "fp32.onnx")
    torch.onnx.export(network(name), example, target, dynamo=True, dynamic_shapes=shapes, external_data=False, **names)
    return {"onnx bytes": (folder / "fp32.onnx").stat().st_size}


def latency(name: str, images: int, folder: Path) -> dict[str, Any]:
    """Return the processor time of a run at batch 1 of each file, least and median of TURNS in turn, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    batch = {"images": np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)}
    files = [path for path in (folder / f"{kind}.onnx" for kind in ("fp32", "ours", "peer")) if path.exists()]
    sessions = {path.stem: onnxruntime.InferenceSession(str(path), options) for path in files}
    times: dict[str, list[float]] = {kind: [] for kind in sessions}
    for turn in range(TURNS):
        for kind, session in list(sessions.items())[:: -1 if turn % 2 else 1]:
            session.run(None, batch)  # fills the caches, which the file before it has emptied
            started = time.thread_time()
            session.run(None, batch)
            times[kind].append(1000 * (time.thread_time() - started))
    return {f"{kind} ms": {"least": min(values), "median": float(np.median(values))} for kind, values in times.items()}


def channels(name: str, images: int, folder: Path) -> dict[str, Any]:
    """Return the processor time of ``l1`` at half of the MACs: tracing, scoring and surgery; least of three."""
    import kondense as kd
    from kondense.prune.channels import prepare
    from kondense.prune.config import PruneConfig
    from kondense.prune.context import Context, make_session
    from kondense.prune.scores import l1
    from kondense.training.losses import cross_entropy

    split = (np.zeros((4, 3, SIDE, SIDE), np.uint8), np.arange(4))
    classes = [str(number) for number in range(CLASSES)]
    data = kd.Dataset.from_arrays(train=split, validation=split, test=split, classes=classes)
    config = PruneConfig(method="l1", sparsity=0.5, reconstruct=False)

    def prune(module: Any) -> None:
        context = Context(config, make_session(config, data, cross_entropy(0.0), None))
        prepare(module, context, l1.score).step(1.0)

    return _pruned(name, prune)


def channels_of_peer(name: str, images: int, folder: Path) -> dict[str, Any]:
    """Do the same with torch-pruning, in as many of its steps to 60 % of the channels as it takes."""
    import torch
    import torch_pruning

    count_ops_and_params = torch_pruning.utils.count_ops_and_params
    image = torch.zeros(1, 3, SIDE, SIDE)

    def prune(module: Any) -> None:
        heads = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
        budget = 0.5 * count_ops_and_params(module, image)[0]
        options = {"global_pruning": True, "pruning_ratio": 0.6, "iterative_steps": 20, "ignored_layers": heads}
        importance = torch_pruning.importance.MagnitudeImportance(p=1)
        pruner = torch_pruning.pruner.MagnitudePruner(module, image, importance=importance, **options)
        while count_ops_and_params(module, image)[0] > budget:
            pruner.step()

    return _pruned(name, prune)


def _pruned(name: str, prune: Callable[[Any], None]) -> dict[str, Any]:
    from kondense.measuring.size import count_macs

    seconds, left = [], 1.0
    for _ in range(3):
        module = network(name)
        whole = sum(count_macs(module, (3, SIDE, SIDE)).values())
        seconds.append(timed(lambda module=module: prune(module))[1]["cpu_s"])
        left = sum(count_macs(module, (3, SIDE, SIDE)).values()) / whole
    return {"cpu_s": min(seconds), "MACs left": left}


CELLS = {
    "float": float_file,
    "ours": ours,
    "peer": peer,
    "latency": latency,
    "calibration": calibration,
    "channels": channels,
    "channels-of-peer": channels_of_peer,
}


def main() -> None:
    """Run the cells and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50", help="a classification network of torchvision")
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument(
        "--cells", default="float,ours,peer,latency", help="cells to run; also calibration, channels, channels-of-peer"
    )
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.folder:
        print(json.dumps(CELLS[chosen.cells](chosen.network, chosen.images, Path(chosen.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for cell in chosen.cells.split(","):
            command = [sys.executable, "-m", "benchmarks.large", "--network", chosen.network, "--cells", cell]
            command += ["--images", str(chosen.images), "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
            print(
                f"{chosen.network} {cell}: {lines[-1] if not done.returncode else f'failed: {lines[-1]}'}", flush=True
            )


if __name__ == "__main__":
    main()
