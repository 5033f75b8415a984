"""The machine of a measurement."""

import platform
from typing import Any

import onnxruntime
import torch

from kondense.artifacts.lineage import library_versions
from kondense.files import machine_memory
from kondense.measuring.processor import CPUINFO, read_cpu, usable_cores


def describe_environment() -> dict[str, Any]:
    """Return the properties of this machine that affect the speed of a model.

    ``cpu``, ``cpu_flags``, ``cores`` (available to this process), ``memory_bytes``, ``gpu`` (or None), ``providers``
    (of onnxruntime), ``platform`` and ``versions``.
    """
    cpu, flags = read_cpu(CPUINFO)
    return {
        "cpu": cpu,
        "cpu_flags": flags,
        "cores": usable_cores(),
        "memory_bytes": machine_memory(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "providers": onnxruntime.get_available_providers(),
        "platform": platform.platform(),
        "versions": library_versions(),
    }
