"""Parts of evaluation.json: times with their intervals, the arithmetic that was chosen, robustness. Stdlib only.

Intervals are 95 %. A ratio above 1 is a gain: that many times faster.
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
    """A ratio of two medians that were timed in turns, and its interval."""

    value: Positive
    low: Positive
    high: Positive


class Ratios(TypedDict):
    """One ratio per batch size."""

    batch_1: Ratio
    batch_64: Ratio


class Timing(TypedDict):
    """One way to run the model. ``ratio`` is teacher / candidate, null for the teacher itself.

    ``threads`` is 0 on a GPU. ``settled``: the times stopped drifting before the warm-up's time was over.
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
    """Whether the exported layers compute on integers, and why.

    ``integer_speedup`` is time in float / time in integers, of the same weights in the same turns; null where
    the model has no integer form or none was timed.
    """

    chosen: str
    reason: str
    integer_speedup: Ratios | None


class Corruption(TypedDict):
    """Test accuracy on images that were spoiled in one way, by strength."""

    strengths: list[Positive]
    accuracy: list[Fraction]


class Robustness(TypedDict):
    """Accuracy on spoiled test images; ``clean`` is that on the same images as they are."""

    images: PositiveCount
    seed: Count
    clean: Fraction
    mean: Fraction
    corruptions: dict[str, Corruption]


class Program(TypedDict):
    """The torch.export program beside the model: its bytes, and whether a fresh process got the very same logits.

    Where it did not, no file was kept.
    """

    bytes: PositiveCount
    lossless: bool
    largest_difference: Annotated[float, "[0, inf)"]
