"""Make trained PyTorch models small and fast.

    import kondense as kd

    data = kd.Dataset.from_arrays(train=(x, y), validation=(xv, yv), test=(xt, yt))
    model = kd.Model(net)                                    # any image classifier, or kd.train(data, "resnet20").model
    small = kd.prune(model, data, method="l1", sparsity=0.5, epochs=4).model
    small = kd.quantize(small, data, method="static").model
    print(kd.evaluate(small, data, teacher=model))
    kd.save(small, "small")
    kd.export_onnx(small, "small.onnx")

One function per technique: ``train``, ``prune``, ``distill``, ``quantize``; each takes a model, data and the stage's
parameters as keyword arguments, and returns a ``Result`` with ``.model`` and ``.metrics``. Arguments are never changed.
``evaluate`` measures a model, ``compress`` makes and compares several, ``search`` finds hyperparameters of any Python
function. In the examples of the docstrings, ``data`` and ``model`` are those of above.

Errors that the library raises on purpose are ``KondenseError``; ``InputError`` among them is bad input, and its text
gives the rule and the value. The logger ``kondense`` is silent until you configure logging.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kondense.api.compress import Comparison, compress
    from kondense.api.domains import choice, integers, log_uniform, uniform
    from kondense.api.models import export_onnx, load, save
    from kondense.api.search import FailedTrialsError, SearchResult, search
    from kondense.api.techniques import distill, evaluate, prune, quantize, train
    from kondense.artifacts.model import Model
    from kondense.data.dataset import Dataset
    from kondense.errors import InputError, KondenseError, ShortfallError
    from kondense.evaluate.stage import Evaluated
    from kondense.networks.build import NetworkSpec
    from kondense.training.transform import Result
    from kondense.version import __version__

# The public names and the modules that hold them: importing kondense is fast, torch is loaded by what needs it.
_MODULES = {
    "kondense.api.compress": ("Comparison", "compress"),
    "kondense.api.models": ("export_onnx", "load", "save"),
    "kondense.api.domains": ("choice", "integers", "log_uniform", "uniform"),
    "kondense.api.search": ("FailedTrialsError", "SearchResult", "search"),
    "kondense.api.techniques": ("distill", "evaluate", "prune", "quantize", "train"),
    "kondense.artifacts.model": ("Model",),
    "kondense.data.dataset": ("Dataset",),
    "kondense.errors": ("InputError", "KondenseError", "ShortfallError"),
    "kondense.evaluate.stage": ("Evaluated",),
    "kondense.networks.build": ("NetworkSpec",),
    "kondense.training.transform": ("Result",),
    "kondense.version": ("__version__",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Comparison",
    "Dataset",
    "Evaluated",
    "FailedTrialsError",
    "InputError",
    "KondenseError",
    "Model",
    "NetworkSpec",
    "Result",
    "SearchResult",
    "ShortfallError",
    "__version__",
    "choice",
    "compress",
    "distill",
    "evaluate",
    "export_onnx",
    "integers",
    "load",
    "log_uniform",
    "prune",
    "quantize",
    "save",
    "search",
    "train",
    "uniform",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """Keeps the public functions whose names are those of subpackages, such as ``prune`` and ``search``.

    Importing a subpackage binds it as an attribute of this module; ``from kondense.prune.stage import ...`` needs no
    such binding.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PLACES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
