"""The parts of the benchmark; a part is a module with a list ENTRIES, and a function draw if bars do not suit it."""

from collections.abc import Mapping
from types import ModuleType

from benchmarks.compression import channels, codec, latency, lottery, quantization, size, sparsity, students, widths

PARTS: Mapping[str, ModuleType] = {
    "sparsity": sparsity,
    "lottery": lottery,
    "channels": channels,
    "quantization": quantization,
    "latency": latency,
    "codec": codec,
    "size": size,
    "students": students,
    "widths": widths,
}
