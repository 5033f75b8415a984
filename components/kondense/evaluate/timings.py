"""Time a candidate on every backend, in turns with the teacher.

Shapes: a batch is [N, C, H, W], N images.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kondense.data.dataset import Dataset
from kondense.evaluate.exports import BATCHES, IN_FLOAT, INTEGER, Form, are_small
from kondense.measuring.intervals import Interval, median_interval, ratio_interval
from kondense.measuring.latency import CPU, Latency, accelerators, one_run, open_session, takes_pixels
from kondense.measuring.memory_format import memory_format_of
from kondense.measuring.processor import usable_cores
from kondense.measuring.turns import Turns, time_in_turns

CANDIDATE, TEACHER = "candidate", "teacher"
Run = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Backend:
    """What runs a model: library, device, threads (0 on a GPU) and batch size."""

    runtime: str
    device: str
    threads: int
    batch: int


def time_forms(
    forms: Mapping[str, Form], teacher: Form | None, dataset: Dataset, *, seconds: float
) -> dict[Backend, Turns]:
    """Time every export of the candidate, and the teacher, in onnxruntime on one thread, per batch size."""
    sessions = {name: form.session for name, form in forms.items()}
    if teacher is not None:
        sessions[TEACHER] = teacher.session
    timed = {}
    for batch in BATCHES:
        runs = {name: one_run(session, _images(dataset, batch, session)) for name, session in sessions.items()}
        timed[Backend("onnxruntime", "cpu", 1, batch)] = time_in_turns(runs, seconds=seconds)
    return timed


def integer_speedup(timed: Mapping[Backend, Turns], rng: np.random.Generator) -> dict[str, Interval] | None:
    """Return time in float / time in integers by batch size; None unless both were timed."""
    samples = {f"batch_{backend.batch}": turns.samples_ms for backend, turns in timed.items()}
    if not all({INTEGER, IN_FLOAT} <= set(times) for times in samples.values()):
        return None
    return {name: ratio_interval(times[IN_FLOAT], times[INTEGER], rng) for name, times in samples.items()}


def describe_primary(timed: Mapping[Backend, Turns], chosen: str, rng: np.random.Generator) -> dict[str, Any]:
    """Return the latencies for evaluation.json: onnxruntime, one thread, the chosen export and the teacher."""
    rows = {f"batch_{backend.batch}": _row(backend, turns, chosen, rng) for backend, turns in timed.items()}
    last = list(rows.values())[-1]
    result: dict[str, Any] = {
        "latency_ms": {name: row["candidate"] for name, row in rows.items()},
        "latency_ratio": None,
        "throughput_images_per_s": 1000 * last["batch"] / last["candidate"]["median"],
        "timings": list(rows.values()),
    }
    if last["teacher"]:
        result["teacher_latency_ms"] = {name: row["teacher"] for name, row in rows.items()}
        result["latency_ratio"] = {name: row["ratio"] for name, row in rows.items()}
    return result


def time_further(
    candidate: Form, teacher: Form | None, dataset: Dataset, *, seconds: float, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Time the further backends to run both: all threads, torch, and GPUs where there are some.

    In torch a quantized model is simulated in float.
    """
    forms = {CANDIDATE: candidate} | ({TEACHER: teacher} if teacher is not None else {})
    rows = []
    for backend in further_backends(usable_cores(), accelerators(), cuda=torch.cuda.is_available()):
        with torch_threads(max(backend.threads, 1)):
            used, runs = _runs(backend, forms, dataset)
            rows.append(
                _row(used, time_in_turns(runs, seconds=seconds, warmup_seconds=seconds, min_runs=5), CANDIDATE, rng)
            )
    return rows


def further_backends(cores: int, providers: Sequence[str], *, cuda: bool) -> list[Backend]:
    """Return the backends to run beside onnxruntime on one thread, batch by batch.

    Args:
        cores: number of cores that this process may use.
        providers: GPU providers of onnxruntime.
        cuda: whether torch has a GPU.
    """
    backends = []
    for batch in BATCHES:
        backends += [Backend("onnxruntime", "cpu", cores, batch)] if cores > 1 else []
        backends += [Backend("torch", "cpu", threads, batch) for threads in sorted({1, cores})]
        backends += [Backend("onnxruntime", provider, 0, batch) for provider in providers]
        backends += [Backend("torch", "cuda", 0, batch)] if cuda else []
    return backends


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of torch's threads during the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _runs(backend: Backend, forms: Mapping[str, Form], dataset: Dataset) -> tuple[Backend, dict[str, Run]]:
    """Return one run of every model, and the backend that it really uses."""
    if backend.runtime == "torch":
        return backend, {name: _torch_run(form.model.module, dataset, backend) for name, form in forms.items()}
    options: dict[str, Any] = {
        "threads": max(backend.threads, 1),
        "provider": CPU if backend.device == "cpu" else backend.device,
        "shared": True,
        "planned": are_small(dataset.shape),
    }
    sessions = {name: open_session(form.onnx, **options) for name, form in forms.items()}
    runs = {name: one_run(session, _images(dataset, backend.batch, session)) for name, session in sessions.items()}
    # If a provider cannot start, onnxruntime falls back to the CPU, and the row says so.
    used = next(iter(sessions.values())).get_providers()[0]
    if used == CPU:
        return dataclasses.replace(backend, device="cpu", threads=max(backend.threads, 1)), runs
    return dataclasses.replace(backend, device=used.removesuffix("ExecutionProvider").lower()), runs


def _torch_run(module: nn.Module, dataset: Dataset, backend: Backend) -> Run:
    placed = module if backend.device == "cpu" else copy.deepcopy(module).to(backend.device)
    images_NCHW = dataset.normalise(_pixels(dataset, backend.batch)).to(backend.device)
    images_NCHW = images_NCHW.contiguous(memory_format=memory_format_of(placed))

    def run() -> Tensor:
        with torch.inference_mode():
            logits_NK: Tensor = placed(images_NCHW)
        if backend.device == "cuda":
            torch.cuda.synchronize()
        return logits_NK

    return run


def _row(backend: Backend, turns: Turns, candidate: str, rng: np.random.Generator) -> dict[str, Any]:
    samples = turns.samples_ms
    ratio = ratio_interval(samples[TEACHER], samples[candidate], rng) if TEACHER in samples else None
    return {
        **dataclasses.asdict(backend),
        "candidate": _times(samples[candidate], rng),
        "teacher": _times(samples[TEACHER], rng) if TEACHER in samples else None,
        "ratio": dataclasses.asdict(ratio) if ratio else None,
        "warmup_turns": turns.warmup_turns,
        "settled": turns.settled,
    }


def _times(samples_ms: NDArray[np.float64], rng: np.random.Generator) -> dict[str, Any]:
    interval = median_interval(samples_ms, rng)
    return {**Latency(samples_ms).describe(), "low": interval.low, "high": interval.high, "runs": len(samples_ms)}


def _images(dataset: Dataset, batch: int, session: Any) -> NDArray[Any]:
    pixels_u8 = _pixels(dataset, batch)
    return (pixels_u8 if takes_pixels(session) else dataset.normalise(pixels_u8)).numpy()


def _pixels(dataset: Dataset, batch: int) -> Tensor:
    return dataset.test.images[torch.arange(batch) % len(dataset.test)]
