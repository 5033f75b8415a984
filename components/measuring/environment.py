"""The machine that a figure was measured on."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

from components.artifacts.lineage import library_versions

# What decides how fast small integers and floats are multiplied, by its name in /proc/cpuinfo.
CPU_FLAGS = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx": ("amx_int8",),
    "neon_dot": ("asimddp",),
}


def describe_environment() -> dict[str, Any]:
    """Return ``cpu``, ``cpu_flags``, ``cores``, ``memory_bytes``, ``gpu`` (or None), ``platform`` and ``versions``."""
    cpu, flags = read_cpu(Path("/proc/cpuinfo"))
    return {
        "cpu": cpu,
        "cpu_flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "versions": library_versions(),
    }


def read_cpu(cpuinfo: Path) -> tuple[str, list[str]]:
    """Return the processor's model and those of CPU_FLAGS it has; a machine without /proc tells its model only."""
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine(), []
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    present = set(fields.get("flags", fields.get("Features", "")).split())
    flags = [name for name, spellings in CPU_FLAGS.items() if present & set(spellings)]
    return fields.get("model name", platform.machine()), flags
