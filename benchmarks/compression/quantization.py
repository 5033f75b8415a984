"""Quantization: accuracy of the file in onnxruntime, and its size, for the same weights.

The peers are onnxruntime's own quantizers at their defaults, on the fp32 file that we export too: static (QDQ, min-max,
calibrated on as many training images as ours) and dynamic. Trained methods get the same epochs; `drop` and `agreement`
are of the file that onnxruntime runs, `smaller` is the ratio of the parameters' fp32 bytes to the file's.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from kondense.artifacts.model import load_model
from kondense.export.onnx import export_onnx
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.classification import agreement
from kondense.measuring.latency import open_session, predict_onnx
from kondense.measuring.size import fp32_bytes
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.context import calibration_batches
from kondense.quantize.stage import run
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.compression.setting import Entry, Setting

NETWORKS = ("lenet5", "resnet8")
AFTER_TRAINING = "int8 after training"
STATIC = {
    "static": {},
    "static, biases corrected": {"bias_correction": True},
    "static, equalised": {"equalize": True},
    "static, learned rounding": {"rounding": "learned"},
    "dynamic": {"method": "dynamic"},
}
QAT_EPOCHS, FEW_BITS_EPOCHS = 1, 3
BATCH = 500


def kondense(setting: Setting, *, epochs: int = 0, **options: bool | int | str) -> dict[str, float]:
    """Run the quantize stage as a user would; where it trains, with the network's own logits as the teacher's."""
    trained = {"epochs": setting.epochs(epochs), "device": setting.profile.device} if epochs else {}
    config = QuantizeConfig(**options, **trained, seed=setting.seed)
    directories = {"dataset_dir": setting.dataset_dir, "model_dir": setting.teacher_dir}
    if epochs:
        directories["teacher_dir"] = setting.teacher_dir
    run(config, **directories, quantized_dir=setting.directory / "quantized")
    model = load_model(setting.directory / "quantized")
    content = export_onnx(model, setting.dataset)
    expected_NK = predict(model.module, setting.dataset.test, setting.dataset, batch_size=BATCH)
    return _figures(setting, content) | {"agreement": 100.0 * _agreement(setting, content, expected_NK)}


def onnxruntime_static(setting: Setting) -> dict[str, float]:
    """Let onnxruntime calibrate and quantize the fp32 file."""
    # Our own calibration images, so that both see the same.
    batches = calibration_batches(setting.dataset, QuantizeConfig(seed=setting.seed))
    target = setting.directory / "static.onnx"
    quantize_static(_prepared(setting), target, Batches(batches), quant_format=QuantFormat.QDQ)
    return _figures(setting, target.read_bytes())


def onnxruntime_dynamic(setting: Setting) -> dict[str, float]:
    """Let onnxruntime quantize the weights of the fp32 file."""
    target = setting.directory / "dynamic.onnx"
    quantize_dynamic(_prepared(setting), target)
    return _figures(setting, target.read_bytes())


class Batches(CalibrationDataReader):
    """Calibration images, a batch at a time."""

    def __init__(self, batches_NCHW: list[torch.Tensor]) -> None:
        self.batches = iter(batches_NCHW)

    def get_next(self) -> dict[str, object] | None:
        batch_NCHW = next(self.batches, None)
        return None if batch_NCHW is None else {"images": batch_NCHW.numpy()}


def _prepared(setting: Setting) -> Path:
    """Write the fp32 file with the shapes that onnxruntime's quantizers want."""
    plain, prepared = setting.directory / "fp32.onnx", setting.directory / "prepared.onnx"
    plain.write_bytes(export_onnx(setting.teacher, setting.dataset))
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    return prepared


def _figures(setting: Setting, content: bytes) -> dict[str, float]:
    labels_N = setting.dataset.test.labels
    found = 100.0 * accuracy(_logits(setting, content), labels_N)
    smaller = fp32_bytes(setting.teacher.module) / len(content)
    return {"drop": setting.teacher_test() - found, "test": found, "bytes": float(len(content)), "smaller": smaller}


def _agreement(setting: Setting, content: bytes, expected_NK: torch.Tensor) -> float:
    return agreement(_logits(setting, content).argmax(1), expected_NK.argmax(1))


def _logits(setting: Setting, content: bytes) -> torch.Tensor:
    session, dataset = open_session(content), setting.dataset
    parts = [
        torch.from_numpy(predict_onnx(session, dataset.normalise(images).numpy(), batch_size=BATCH))
        for images in dataset.test.images.split(BATCH)
    ]
    return torch.cat(parts)


def _entries(network: str) -> list[Entry]:
    def entry(case: str, method: str, work: Callable[[Setting], dict[str, float]]) -> Entry:
        return Entry(network, case, method, work)

    entries = [
        entry(AFTER_TRAINING, "onnxruntime static (QDQ, min-max)", onnxruntime_static),
        entry(AFTER_TRAINING, "onnxruntime dynamic", onnxruntime_dynamic),
    ]
    for name, options in STATIC.items():
        entries.append(entry(AFTER_TRAINING, f"kondense {name}", functools.partial(kondense, **options)))
    qat = functools.partial(kondense, method="qat", epochs=QAT_EPOCHS)
    entries.append(entry(f"int8, {QAT_EPOCHS} epoch", "kondense qat", qat))
    for bits in (4, 3, 2):
        case, weights = f"weights of {bits} bits", functools.partial(kondense, method="weight_only", bits=bits)
        entries.append(entry(case, "kondense weight_only", weights))
        tuned = functools.partial(weights, fine_tune=True, epochs=FEW_BITS_EPOCHS)
        entries.append(entry(case, f"kondense weight_only, {FEW_BITS_EPOCHS} epochs of fine-tuning", tuned))
    return entries


ENTRIES = [each for network in NETWORKS for each in _entries(network)]
