"""The methods of the quantize stage.

Each file declares its method: ``kind`` is ``weights`` if activations stay in float, else ``activations``. Further keys:

- ``trains``: it always trains.
- ``calibrates``: it needs calibration images.
- ``step``: the pipeline step whose defaults it has in a recipe, if that is not ``quantize``.
- names of REFINEMENTS that it uses: True, or the ``arithmetic`` with which it does.

Third parties declare ``METHOD`` in the module of their entry point in the group ``kondense.quantizers``. A method is
called as ``function(model, context)`` (see ``kondense.quantize.context``) and returns the quantized model. Stdlib only.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from kondense.methods import Methods

REFINEMENTS = ("equalize", "bias_correction", "rounding", "exclude", "fine_tune")


def _declaration(_name: str, quantizer: Any) -> Mapping[str, Any]:
    declared: Mapping[str, Any] = getattr(inspect.getmodule(quantizer), "METHOD", {})
    return declared


METHODS = Methods(
    "kondense.quantize",
    "kondense.quantize.rate_distortion",
    "kondense.quantize.static",
    group="kondense.quantizers",
    describe=_declaration,
)
