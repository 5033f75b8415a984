"""How long onnxruntime takes for one batch: several models in turn, so that a busy machine hits all alike.

Shapes: a batch of N images is float32 [N, C, H, W].
"""

import dataclasses
import time
from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from components.measuring.processor import CPUINFO, read_cpu


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


def open_session(onnx: bytes, *, threads: int = 1, exact_products: bool | None = None) -> onnxruntime.InferenceSession:
    """Load an ONNX model on the CPU with a fixed number of threads.

    Args:
        onnx: the file's content.
        threads: of one operator; operators run one after the other.
        exact_products: whether to ask for exact sums of 8-bit products (``session.x64quantprecision``).
            Without VNNI the faster kernel adds pairs of products in 16 bits, which saturates, so None asks
            there. With VNNI sums are exact anyway, and asking made LeNet-5 1.4x slower at batch 1.

    Source: onnxruntime_session_options_config_keys.h.
    """
    if exact_products is None:
        exact_products = "vnni" not in read_cpu(CPUINFO)[1]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1" if exact_products else "0")
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def measure_latency(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    images_NCHW: NDArray[np.float32],
    *,
    seconds: float,
    warmup_seconds: float = 0.1,
    min_runs: int = 10,
) -> dict[str, Latency]:
    """Time every model on the same batch, in turns.

    One turn runs every model once; turns alternate in direction (A B, B A, ...), so that neither a
    drift of the clock rate nor the cache that the model before leaves behind favours one of them.

    Args:
        sessions: models with one input, by name.
        images_NCHW: the batch.
        seconds: how long to measure, all models together; more when ``min_runs`` need it.
        warmup_seconds: how long to run before, all models together.
        min_runs: least number of runs of each model.
    """
    feeds = {name: {session.get_inputs()[0].name: images_NCHW} for name, session in sessions.items()}
    order = list(sessions)
    samples_ns: dict[str, list[int]] = {name: [] for name in order}
    warm_until = time.perf_counter() + warmup_seconds
    while True:
        for name in order:
            sessions[name].run(None, feeds[name])
        if time.perf_counter() >= warm_until:
            break
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(samples_ns[order[0]]) < min_runs:
        for name in order:
            started = time.perf_counter_ns()
            sessions[name].run(None, feeds[name])
            samples_ns[name].append(time.perf_counter_ns() - started)
        order.reverse()
    return {name: Latency(np.array(samples_ns[name]) / 1e6) for name in sessions}


def predict_onnx(
    session: onnxruntime.InferenceSession, images_NCHW: NDArray[np.float32], *, batch_size: int = 500
) -> NDArray[np.float32]:
    """Return the logits [N, K] that onnxruntime computes, ``batch_size`` images at a time."""
    name = session.get_inputs()[0].name
    parts = [
        session.run(None, {name: images_NCHW[start : start + batch_size]})[0]
        for start in range(0, len(images_NCHW), batch_size)
    ]
    return np.concatenate(parts)
