"""The methods of the distill stage: the part of the loss beside the logits.

Each file declares its method: ``kind`` is ``logits`` if it has no such part, else ``layers``, with its default
``hint_weight``. A method is called as ``function(context)`` with a ``kondense.distill.feature_loss.Context`` and
returns a ``FeatureLoss``, or None. Stdlib only.
"""

from kondense.methods import Methods

METHODS = Methods("kondense.distill")
