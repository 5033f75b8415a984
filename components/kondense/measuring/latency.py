"""Run exported models in onnxruntime and measure the latency of one batch.

Shapes: a batch of N images is [N, C, H, W], float32 or, if the model takes pixels, uint8.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kondense.export.runtimes import session_entries
from kondense.measuring.processor import CPUINFO, read_cpu
from kondense.measuring.turns import time_in_turns

CPU = "CPUExecutionProvider"


@dataclasses.dataclass(frozen=True)
class Latency:
    """The latency of one batch: ``samples_ms`` [runs], in order."""

    samples_ms: NDArray[np.float64]

    @property
    def median_ms(self) -> float:
        """The median latency."""
        return float(np.median(self.samples_ms))

    @property
    def p95_ms(self) -> float:
        """The 95th percentile of the latency."""
        return float(np.percentile(self.samples_ms, 95))

    def describe(self) -> dict[str, float]:
        """Return the figures for evaluation.json."""
        return {"median": self.median_ms, "p95": self.p95_ms}


@functools.cache
def _arena() -> None:
    """Register the memory that sessions share; it grows by what is asked for, not to the next power of two."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    same_as_requested, by_default = 1, -1
    settings = onnxruntime.OrtArenaCfg(0, same_as_requested, by_default, by_default)
    onnxruntime.create_and_register_allocator(memory, settings)


def shrink(session: onnxruntime.InferenceSession, images_NCHW: NDArray[Any]) -> None:
    """Return to the system what the sessions' shared memory holds beyond this batch.

    Source: onnxruntime_run_options_config_keys.h.
    """
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session.run(None, {session.get_inputs()[0].name: images_NCHW}, options)


def open_session(
    onnx: bytes,
    *,
    threads: int = 1,
    exact_products: bool | None = None,
    provider: str = CPU,
    shared: bool = False,
    planned: bool = True,
) -> onnxruntime.InferenceSession:
    """Load an ONNX model with a fixed number of threads.

    Args:
        onnx: the file's content.
        threads: threads of one operator; operators run one after the other.
        exact_products: whether to request exact sums of 8-bit products (``session.x64quantprecision``); None: only
            without VNNI, where the faster kernel adds pairs of products in 16 bits, which saturates. With VNNI sums are
            exact anyway, and the request makes LeNet-5 1.4 times slower at batch 1.
        provider: the execution provider; operators that it lacks run on the CPU.
        shared: whether the session takes its memory from what all such sessions share: several that run in turns need
            that of one.
        planned: whether, from the second run on, all values of a run are in one block, which does not fit where those
            of the first run were: 1.6 times the memory, and a small network is 2.5 % faster at batch 1.

    Source: onnxruntime_session_options_config_keys.h.
    """
    if exact_products is None:
        exact_products = "vnni" not in read_cpu(CPUINFO)[1]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = planned
    options.add_session_config_entry("session.x64quantprecision", "1" if exact_products else "0")
    # Otherwise the threads of one session keep spinning during the turn of the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if shared:
        _arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    for key, value in session_entries(onnx).items():
        options.add_session_config_entry(key, value)
    providers = [provider] if provider == CPU else [provider, CPU]
    return onnxruntime.InferenceSession(onnx, options, providers=providers)


def accelerators() -> list[str]:
    """Return the GPU providers of this onnxruntime, the fastest first."""
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
        seconds: measuring time of all models together; longer if ``min_runs`` requires it.
        warmup_seconds: longest warm-up of all models together.
        min_runs: least number of runs per model; fewer of slow ones.
    """
    runs = {name: one_run(session, images_NCHW) for name, session in sessions.items()}
    turns = time_in_turns(runs, seconds=seconds, warmup_seconds=warmup_seconds, min_runs=min_runs)
    return {name: Latency(samples) for name, samples in turns.samples_ms.items()}


def one_run(session: onnxruntime.InferenceSession, images_NCHW: NDArray[Any]) -> Callable[[], object]:
    """Return a function that runs ``session`` once on a batch."""
    feed = {session.get_inputs()[0].name: images_NCHW}
    return lambda: session.run(None, feed)


def takes_pixels(session: onnxruntime.InferenceSession) -> bool:
    """Return whether the model normalises its input, which is then uint8."""
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
