"""Time a candidate in every way that it may be run, in turns with the teacher.

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
from kondense.evaluate.exports import IN_FLOAT, INTEGER, Form
from kondense.measuring.accuracy import memory_format_of
from kondense.measuring.intervals import Interval, median_interval, ratio_interval
from kondense.measuring.latency import CPU, Latency, accelerators, one_run, open_session, takes_pixels
from kondense.measuring.processor import usable_cores
from kondense.measuring.turns import Turns, time_in_turns

BATCHES = (1, 64)
CANDIDATE, TEACHER = "candidate", "teacher"
Run = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to run a model; ``threads`` is 0 on a GPU."""

    runtime: str
    device: str
    threads: int
    batch: int


def time_forms(
    forms: Mapping[str, Form], teacher: Form | None, dataset: Dataset, *, seconds: float
) -> dict[Way, Turns]:
    """Time every form of the candidate, and the teacher, in onnxruntime on one thread, per batch size."""
    sessions = {name: form.session for name, form in forms.items()}
    if teacher is not None:
        sessions[TEACHER] = teacher.session
    timed = {}
    for batch in BATCHES:
        runs = {name: one_run(session, _images(dataset, batch, session)) for name, session in sessions.items()}
        timed[Way("onnxruntime", "cpu", 1, batch)] = time_in_turns(runs, seconds=seconds)
    return timed


def integer_speedup(timed: Mapping[Way, Turns], rng: np.random.Generator) -> dict[str, Interval] | None:
    """Return time in float / time in integers by batch size; None unless both forms were timed."""
    samples = {f"batch_{way.batch}": turns.samples_ms for way, turns in timed.items()}
    if not all({INTEGER, IN_FLOAT} <= set(each) for each in samples.values()):
        return None
    return {name: ratio_interval(each[IN_FLOAT], each[INTEGER], rng) for name, each in samples.items()}


def describe_primary(timed: Mapping[Way, Turns], chosen: str, rng: np.random.Generator) -> dict[str, Any]:
    """Return the latencies of evaluation.json: onnxruntime, one thread, the chosen form against the teacher."""
    rows = {f"batch_{way.batch}": _row(way, turns, chosen, rng) for way, turns in timed.items()}
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
    """Time the further ways to run both: all threads, torch, and GPUs where there are some.

    In torch a quantized model is simulated in float.
    """
    forms = {CANDIDATE: candidate} | ({TEACHER: teacher} if teacher is not None else {})
    rows = []
    for way in further_ways(usable_cores(), accelerators(), cuda=torch.cuda.is_available()):
        with torch_threads(max(way.threads, 1)):
            used, runs = _runs(way, forms, dataset)
            rows.append(
                _row(used, time_in_turns(runs, seconds=seconds, warmup_seconds=seconds, min_runs=5), CANDIDATE, rng)
            )
    return rows


def further_ways(cores: int, providers: Sequence[str], *, cuda: bool) -> list[Way]:
    """Return the ways to run beside onnxruntime on one thread, batch by batch.

    Args:
        cores: that this process may use.
        providers: of onnxruntime, for GPUs.
        cuda: whether torch has a GPU.
    """
    ways = []
    for batch in BATCHES:
        ways += [Way("onnxruntime", "cpu", cores, batch)] if cores > 1 else []
        ways += [Way("torch", "cpu", threads, batch) for threads in sorted({1, cores})]
        ways += [Way("onnxruntime", provider, 0, batch) for provider in providers]
        ways += [Way("torch", "cuda", 0, batch)] if cuda else []
    return ways


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _runs(way: Way, forms: Mapping[str, Form], dataset: Dataset) -> tuple[Way, dict[str, Run]]:
    """Return what one run of every model is, and the way it really takes."""
    if way.runtime == "torch":
        return way, {name: _torch_run(form.model.module, dataset, way) for name, form in forms.items()}
    provider = CPU if way.device == "cpu" else way.device
    sessions = {
        name: open_session(form.onnx, threads=max(way.threads, 1), provider=provider) for name, form in forms.items()
    }
    runs = {name: one_run(session, _images(dataset, way.batch, session)) for name, session in sessions.items()}
    # Where a provider cannot start, onnxruntime goes on without it: the row then names the CPU.
    used = next(iter(sessions.values())).get_providers()[0]
    if used == CPU:
        return dataclasses.replace(way, device="cpu", threads=max(way.threads, 1)), runs
    return dataclasses.replace(way, device=used.removesuffix("ExecutionProvider").lower()), runs


def _torch_run(module: nn.Module, dataset: Dataset, way: Way) -> Run:
    placed = module if way.device == "cpu" else copy.deepcopy(module).to(way.device)
    images_NCHW = dataset.normalise(_pixels(dataset, way.batch)).to(way.device)
    images_NCHW = images_NCHW.contiguous(memory_format=memory_format_of(placed))

    def run() -> Tensor:
        with torch.inference_mode():
            logits_NK: Tensor = placed(images_NCHW)
        if way.device == "cuda":
            torch.cuda.synchronize()
        return logits_NK

    return run


def _row(way: Way, turns: Turns, candidate: str, rng: np.random.Generator) -> dict[str, Any]:
    samples = turns.samples_ms
    ratio = ratio_interval(samples[TEACHER], samples[candidate], rng) if TEACHER in samples else None
    return {
        **dataclasses.asdict(way),
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
