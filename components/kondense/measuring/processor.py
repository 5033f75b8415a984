"""The processor's model and its instructions for small integers. Stdlib only."""

import os
import platform
from pathlib import Path

# Instruction sets that determine the speed of integer and float products, with their names in /proc/cpuinfo.
CPU_FLAGS = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx": ("amx_int8",),
    "neon_dot": ("asimddp",),
}
CPUINFO = Path("/proc/cpuinfo")


def read_cpu(cpuinfo: Path) -> tuple[str, list[str]]:
    """Return the processor's model and its CPU_FLAGS; without /proc only the model is known."""
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine(), []
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    present = set(fields.get("flags", fields.get("Features", "")).split())
    flags = [name for name, spellings in CPU_FLAGS.items() if present & set(spellings)]
    return fields.get("model name", platform.machine()), flags


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
