"""Parts of evaluation.json: times with intervals, arithmetic, robustness. Stdlib only.

Intervals are 95 %. A ratio above 1 is a gain.
"""

from typing import Annotated, NotRequired, TypedDict

Fraction = Annotated[float, "[0, 1]"]
Count = Annotated[int, "[0, inf)"]
PositiveCount = Annotated[int, "[1, inf)"]
Positive = Annotated[float, "(0, inf)"]


class Times(TypedDict):
    """Times of one batch in milliseconds; ``low`` and ``high`` bound the median."""

    median: Positive
    p95: Positive
    low: NotRequired[Positive]
    high: NotRequired[Positive]
    runs: NotRequired[PositiveCount]


class Latency(TypedDict):
    """Latency of the exported model in onnxruntime on one thread."""

    batch_1: Times
    batch_64: Times


class Ratio(TypedDict):
    """A ratio of two medians, measured in turns, and its interval."""

    value: Positive
    low: Positive
    high: Positive


class Ratios(TypedDict):
    """One ratio per batch size."""

    batch_1: Ratio
    batch_64: Ratio


class Timing(TypedDict):
    """Times on one backend. ``ratio`` is teacher / candidate, null for the teacher.

    ``threads`` is 0 on a GPU. ``settled``: the times stopped drifting within the warm-up.
    """

    runtime: str
    device: str
    threads: Count
    batch: PositiveCount
    candidate: Times
    teacher: Times | None
    ratio: Ratio | None
    warmup_turns: Count
    settled: bool


class Arithmetic(TypedDict):
    """The arithmetic of the exported layers, and the reason.

    ``integer_speedup`` is time in float / time in integers of the same weights, measured in turns; null if integer
    arithmetic was not timed.
    """

    chosen: str
    reason: str
    integer_speedup: Ratios | None


class Corruption(TypedDict):
    """Test accuracy under one kind of corruption, by strength."""

    strengths: list[Positive]
    accuracy: list[Fraction]


class Robustness(TypedDict):
    """Accuracy on corrupted test images; ``clean`` is the accuracy on the same images without corruption."""

    images: PositiveCount
    seed: Count
    clean: Fraction
    mean: Fraction
    corruptions: dict[str, Corruption]


class Runtimes(TypedDict):
    """What serves an ONNX file: the least onnxruntime, the versions that compute it wrong, the versions checked."""

    least: str
    faulty: str
    checked: list[str]


class Program(TypedDict):
    """The torch.export program: its size, and whether a fresh process got identical logits.

    If not, the file is not kept.
    """

    bytes: PositiveCount
    lossless: bool
    largest_difference: Annotated[float, "[0, inf)"]
