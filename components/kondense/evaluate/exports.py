"""ONNX exports of a model: with integer arithmetic if it has quantized inputs, and in float."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxruntime import InferenceSession

from kondense.artifacts.model import Model, read_description, without_input_quantizers
from kondense.artifacts.quantized import DynamicQuantizer
from kondense.data.dataset import Dataset
from kondense.export.metadata import FLOAT, UINT8
from kondense.export.onnx import compute_in_float, export_onnx, read_metadata
from kondense.measuring.intervals import Interval
from kondense.measuring.latency import open_session
from kondense.measuring.processor import CPUINFO, read_cpu

INTEGER, IN_FLOAT, AUTO = "integer", "float", "auto"
ONNX = "model.onnx"
BATCHES = (1, 64)  # that are timed
MOST_PLANNED = 2**22  # values of a batch of images, above which the memory of sessions counts for more than 2 % of time
MARGIN = 1.05  # float is chosen only if it is faster by this factor, noise deducted


@dataclasses.dataclass(frozen=True)
class Form:
    """An ONNX file, its model, and a session that runs it on one thread."""

    model: Model
    onnx: bytes
    session: InferenceSession


def export_forms(model: Model, dataset: Dataset, *, arithmetic: str, uint8_input: bool) -> dict[str, Form]:
    """Return the exports by arithmetic: one, or both if they are to be compared."""
    onnx = export_onnx(model, dataset, uint8_input=uint8_input)
    if not model.activations:
        return {IN_FLOAT: form_of(model, onnx, dataset.shape)}
    forms = {}
    if arithmetic != IN_FLOAT:
        forms[INTEGER] = form_of(model, onnx, dataset.shape)
    if arithmetic != INTEGER:
        plain = without_input_quantizers(model)
        dynamic = any(isinstance(quantizer, DynamicQuantizer) for quantizer in model.activations.values())
        content = export_onnx(plain, dataset, uint8_input=uint8_input) if dynamic else compute_in_float(onnx, plain)
        forms[IN_FLOAT] = form_of(plain, content, dataset.shape)
    return forms


def teacher_form(teacher: Model, dataset: Dataset, onnx: bytes | None, *, uint8_input: bool) -> Form:
    """Return the teacher's export, made from ``onnx`` if given."""
    content = onnx or export_onnx(teacher, dataset, uint8_input=uint8_input)
    return form_of(teacher, content, dataset.shape)


def exported_onnx(directory: Path, *, uint8_input: bool) -> bytes | None:
    """Return model.onnx of a verified Model artifact if it has the same type of input, else None."""
    if ONNX not in read_description(directory)["files"]:
        return None
    content = (directory / ONNX).read_bytes()
    same = read_metadata(content, str(directory / ONNX))["input"] == (UINT8 if uint8_input else FLOAT)
    return content if same else None


def choose_arithmetic(
    forms: Mapping[str, Form], speedup: Mapping[str, Interval] | None, *, requested: str
) -> dict[str, Any]:
    """Return the arithmetic for evaluation.json: ``chosen``, ``reason``, ``integer_speedup``.

    Args:
        forms: the exports of ``export_forms``.
        speedup: time in float / time in integers, by ``batch_1`` and ``batch_64``; None unless both were timed.
        requested: the option: ``auto``, ``integer`` or ``float``.
    """
    if speedup is None:
        (chosen,) = forms
        reason = "as requested" if requested == chosen and forms[chosen].model.quantized else _only(forms[chosen].model)
        return {"chosen": chosen, "reason": reason, "integer_speedup": None}
    upper = math.prod(interval.high for interval in speedup.values()) ** (1 / len(speedup))
    chosen = IN_FLOAT if upper * MARGIN < 1 else INTEGER
    first, last = speedup["batch_1"], speedup["batch_64"]
    slower = "int8 is slower than float for this network on this machine: " if chosen == IN_FLOAT else ""
    reason = slower + (
        f"int8 runs at {_times(first)} the speed of the same weights in float at batch 1 and at {_times(last)} at"
        f" batch 64, timed in turns on {_processor()}"
    )
    ratios = {name: dataclasses.asdict(interval) for name, interval in speedup.items()}
    return {"chosen": chosen, "reason": reason, "integer_speedup": ratios}


def form_of(model: Model, onnx: bytes, shape: Sequence[int]) -> Form:
    """Return an export with a new session; ``shape`` is that of an image, (C, H, W)."""
    return Form(model, onnx, open_session(onnx, shared=True, planned=are_small(shape)))


def are_small(shape: Sequence[int]) -> bool:
    """Return whether images [C, H, W] are so small that a session may plan its memory (see ``open_session``)."""
    return max(BATCHES) * math.prod(shape) <= MOST_PLANNED


def _only(model: Model) -> str:
    return "only its weights are quantized" if model.quantized else "it is not quantized"


def _times(speedup: Interval) -> str:
    return f"{speedup.value:.2f}× ({speedup.low:.2f} to {speedup.high:.2f})"


def _processor() -> str:
    flags = read_cpu(CPUINFO)[1]
    return f"a processor with {', '.join(flags)}" if flags else "a processor without AVX2"
