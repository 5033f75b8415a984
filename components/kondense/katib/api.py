"""Katib's official gRPC stubs, without the rest of their package.

``import kubeflow.katib.katib_api_pb2`` runs the SDK's ``__init__``, which imports the Kubernetes client and the
training models: seconds and about 100 MiB. The two generated modules alone need 0.3 s and a few MiB.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path

PACKAGE = "kubeflow.katib"
NO_COMPRESSION = 1  # gRPC's set of compressions with the first bit only, that of none


def _load() -> tuple[types.ModuleType, types.ModuleType]:
    """Return the modules ``katib_api_pb2`` and ``katib_api_pb2_grpc``.

    Raises:
        ModuleNotFoundError: kubeflow-katib is not installed.
    """
    placeholder = PACKAGE not in sys.modules
    if placeholder:
        # A package in sys.modules is not imported, only searched for the two modules.
        package = types.ModuleType(PACKAGE)
        package.__path__ = [str(_directory())]
        sys.modules[PACKAGE] = package
    try:
        messages = importlib.import_module(f"{PACKAGE}.katib_api_pb2")
        services = importlib.import_module(f"{PACKAGE}.katib_api_pb2_grpc")
    finally:
        if placeholder:
            # A later import of the SDK gets the real package; the two modules are shared.
            del sys.modules[PACKAGE]
            sys.modules["kubeflow"].__dict__.pop("katib", None)
    return messages, services


def _directory() -> Path:
    spec = importlib.util.find_spec("kubeflow")
    for location in (spec.submodule_search_locations if spec else None) or ():
        if (Path(location) / "katib" / "katib_api_pb2.py").is_file():
            return Path(location) / "katib"
    raise ModuleNotFoundError("kubeflow-katib must be installed for its gRPC stubs, but kubeflow/katib is not found.")


messages, services = _load()
