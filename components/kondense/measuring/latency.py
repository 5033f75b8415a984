"""Run exported models in onnxruntime, and tell how long one batch takes.

Shapes: a batch of N images is [N, C, H, W], float32 or, where the model takes pixels, uint8.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kondense.measuring.processor import CPUINFO, read_cpu
from kondense.measuring.turns import time_in_turns

CPU = "CPUExecutionProvider"


@dataclasses.dataclass(frozen=True)
class Latency:
    """The time of one batch: ``samples_ms`` [runs], in the order they were taken."""

    samples_ms: NDArray[np.float64]

    @property
    def median_ms(self) -> float:
        """The median time of one batch."""
        return float(np.median(self.samples_ms))

    @property
    def p95_ms(self) -> float:
        """The time that 95 % of the batches stay within."""
        return float(np.percentile(self.samples_ms, 95))

    def describe(self) -> dict[str, float]:
        """Return what evaluation.json says of it."""
        return {"median": self.median_ms, "p95": self.p95_ms}


def open_session(
    onnx: bytes, *, threads: int = 1, exact_products: bool | None = None, provider: str = CPU
) -> onnxruntime.InferenceSession:
    """Load an ONNX model with a fixed number of threads.

    Args:
        onnx: the file's content.
        threads: of one operator; operators run one after the other.
        exact_products: whether to ask for exact sums of 8-bit products (``session.x64quantprecision``).
            Without VNNI the faster kernel adds pairs of products in 16 bits, which saturates, so None asks
            there. With VNNI sums are exact anyway, and asking made LeNet-5 1.4x slower at batch 1.
        provider: what runs the model; operators that another one lacks run on the CPU.

    Source: onnxruntime_session_options_config_keys.h.
    """
    if exact_products is None:
        exact_products = "vnni" not in read_cpu(CPUINFO)[1]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1" if exact_products else "0")
    # Else the threads of one session spin on into the turn of the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = [provider] if provider == CPU else [provider, CPU]
    return onnxruntime.InferenceSession(onnx, options, providers=providers)


def accelerators() -> list[str]:
    """Return the providers for GPUs that this onnxruntime has, the fastest first."""
    present = onnxruntime.get_available_providers()
    return [name for name in ("TensorrtExecutionProvider", "CUDAExecutionProvider") if name in present]


def measure_latency(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    images_NCHW: NDArray[np.float32],
    *,
    seconds: float,
    warmup_seconds: float = 0.5,
    min_runs: int = 10,
) -> dict[str, Latency]:
    """Time every model on the same batch, in turns (``time_in_turns``).

    Args:
        sessions: models with one input, by name.
        images_NCHW: the batch.
        seconds: how long to measure, all models together; more when ``min_runs`` need it.
        warmup_seconds: how long the warm-up may last at most, all models together.
        min_runs: least number of runs of each model.
    """
    runs = {name: one_run(session, images_NCHW) for name, session in sessions.items()}
    turns = time_in_turns(runs, seconds=seconds, warmup_seconds=warmup_seconds, min_runs=min_runs)
    return {name: Latency(samples) for name, samples in turns.samples_ms.items()}


def one_run(session: onnxruntime.InferenceSession, images_NCHW: NDArray[Any]) -> Callable[[], object]:
    """Return what runs ``session`` once on a batch."""
    feed = {session.get_inputs()[0].name: images_NCHW}
    return lambda: session.run(None, feed)


def takes_pixels(session: onnxruntime.InferenceSession) -> bool:
    """Tell whether the model normalises by itself: its input is uint8."""
    return bool(session.get_inputs()[0].type == "tensor(uint8)")


def predict_onnx(
    session: onnxruntime.InferenceSession, images_NCHW: NDArray[Any], *, batch_size: int = 500
) -> NDArray[np.float32]:
    """Return the logits [N, K] that onnxruntime computes, ``batch_size`` images at a time."""
    name = session.get_inputs()[0].name
    parts = [
        session.run(None, {name: images_NCHW[start : start + batch_size]})[0]
        for start in range(0, len(images_NCHW), batch_size)
    ]
    return np.concatenate(parts)
