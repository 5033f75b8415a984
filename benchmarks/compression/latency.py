"""Latency: widths chosen by measured time, beside the peer that counts MACs.

Every line is a model exported and run by onnxruntime on one thread, in batches of 64 images, in turns with the
unpruned fp32 network. ``speedup`` is the median over the turns of the unpruned network's time over the model's,
``low`` and ``high`` its 95 % interval by the bootstrap.
"""

import contextlib
import functools
from pathlib import Path

import numpy as np
from kondense.artifacts.model import Model, load_model
from kondense.errors import ShortfallError
from kondense.export.onnx import export_onnx
from kondense.measuring.latency import measure_latency, open_session, predict_onnx
from kondense.prune.config import PruneConfig
from kondense.prune.stage import run as prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import run as quantize
from numpy.typing import NDArray

from benchmarks.compression.channels import L1, NETWORK, peer_pruned, tune
from benchmarks.compression.setting import Entry, Setting, test_accuracy

EPOCHS = 8
TIME = 0.7  # of the unpruned network's in fp32, asked for; integers then take it further
ROUND_TO = 16  # onnxruntime's fp32 convolutions work on blocks of 16 channels with AVX-512: 8 take as long
BATCH = 64
SECONDS = 4.0
RESAMPLES = 1000


def unpruned_int8(setting: Setting) -> dict[str, float]:
    """Return the figures of the teacher, quantized."""
    return measured(setting, _quantized(setting, setting.teacher_dir))


def pruned(setting: Setting, quantized: bool) -> dict[str, float]:
    """Prune by measured latency as a user would; quantize if asked."""
    pruned_dir = setting.directory / "pruned"
    config = PruneConfig(
        method="greedy",
        target="latency",
        sparsity=1.0 - TIME,
        round_to=ROUND_TO,
        epochs=setting.epochs(EPOCHS),
        latency_batch_size=BATCH,
        seed=setting.seed,
        device=setting.profile.device,
    )
    with contextlib.suppress(ShortfallError):  # the closest network is written, and its speed-up says how close
        prune(config, dataset_dir=setting.dataset_dir, model_dir=setting.teacher_dir, pruned_dir=pruned_dir)
    return measured(setting, _quantized(setting, pruned_dir) if quantized else load_model(pruned_dir))


def narrowest(setting: Setting) -> dict[str, float]:
    """Prune half of the MACs in blocks of ROUND_TO channels; quantize all but the first convolution, of one channel."""
    pruned_dir = setting.directory / "pruned"
    config = PruneConfig(
        method="l1",
        sparsity=0.5,
        round_to=ROUND_TO,
        epochs=setting.epochs(EPOCHS),
        seed=setting.seed,
        device=setting.profile.device,
    )
    prune(config, dataset_dir=setting.dataset_dir, model_dir=setting.teacher_dir, pruned_dir=pruned_dir)
    return measured(setting, _quantized(setting, pruned_dir, exclude="conv1"))


def half_of_the_macs(setting: Setting) -> dict[str, float]:
    """Prune by torch-pruning to half of the MACs, whatever widths come of it, and fine-tune."""
    module = peer_pruned(setting, L1, 0.5)
    tune(setting, module, EPOCHS)
    return measured(setting, Model(module, setting.teacher.network))


def measured(setting: Setting, model: Model) -> dict[str, float]:
    """Return accuracy of the exported model on the test split and its time beside the unpruned one's."""
    dataset = setting.dataset
    sessions = {
        "unpruned": open_session(export_onnx(setting.teacher, dataset)),
        "model": open_session(export_onnx(model, dataset)),
    }
    images_NCHW = dataset.normalise(dataset.test.images[:BATCH]).numpy()
    found = measure_latency(sessions, images_NCHW, seconds=SECONDS)
    ratios = found["unpruned"].samples_ms / found["model"].samples_ms
    low, high = interval(ratios, np.random.default_rng(setting.seed))
    logits_NK = predict_onnx(sessions["model"], dataset.normalise(dataset.test.images).numpy())
    test = 100.0 * float((logits_NK.argmax(1) == dataset.test.labels.numpy()).mean())
    return {
        "test": test,
        "drop": test_accuracy(setting.teacher.module, dataset) - test,
        "median ms": found["model"].median_ms,
        "speedup": float(np.median(ratios)),
        "low": low,
        "high": high,
    }


def interval(samples: NDArray[np.float64], generator: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % interval of the median of ``samples`` by the bootstrap."""
    drawn = generator.choice(samples, size=(RESAMPLES, len(samples)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def _quantized(setting: Setting, model_dir: Path, exclude: str = "") -> Model:
    quantized_dir = setting.directory / "quantized"
    config = QuantizeConfig(exclude=exclude)
    quantize(config, dataset_dir=setting.dataset_dir, model_dir=model_dir, quantized_dir=quantized_dir)
    return load_model(quantized_dir)


CASE = f"batch {BATCH}, one thread, {EPOCHS} epochs"
ENTRIES = [
    Entry(NETWORK, CASE, "kondense greedy, latency", functools.partial(pruned, quantized=False)),
    Entry(NETWORK, CASE, "kondense greedy, latency, int8", functools.partial(pruned, quantized=True)),
    Entry(NETWORK, CASE, "kondense l1, int8 but the first layer", narrowest),
    Entry(NETWORK, CASE, "kondense int8", unpruned_int8),
    Entry(NETWORK, CASE, "torch-pruning L1, half of the MACs", half_of_the_macs),
]
