"""The machine that a figure was measured on."""

import os
import platform
from typing import Any

import torch

from components.artifacts.lineage import library_versions
from components.measuring.processor import CPUINFO, read_cpu


def describe_environment() -> dict[str, Any]:
    """Return ``cpu``, ``cpu_flags``, ``cores``, ``memory_bytes``, ``gpu`` (or None), ``platform`` and ``versions``."""
    cpu, flags = read_cpu(CPUINFO)
    return {
        "cpu": cpu,
        "cpu_flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "versions": library_versions(),
    }
