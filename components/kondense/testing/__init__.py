"""Conformance suites for suggesters, scores, quantizers and stages of other packages.

Each function raises an AssertionError that names the broken rule, so that a test is one line: `check_score(score)`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kondense.testing.models import check_quantizer, check_score
    from kondense.testing.stages import check_stage
    from kondense.testing.suggesters import check_suggester

__all__ = ["check_quantizer", "check_score", "check_stage", "check_suggester"]

_MODULES = {"check_quantizer": "models", "check_score": "models", "check_stage": "stages"}


def __getattr__(name: str) -> Any:  # suggesters need NumPy only, the others import torch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'suggesters')}"), name)
