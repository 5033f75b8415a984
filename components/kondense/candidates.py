"""The candidates of a run unless it names its own: one recipe (``kondense.recipes``) by name. Stdlib only."""

from collections.abc import Mapping

STANDARD: Mapping[str, str] = {
    "quantized": "quantize",
    "pruned": "prune",
    "pruned-quantized": "prune > quantize",
    "distilled": "distill",
    "distilled-quantized": "distill > quantize",
    "pruned-distilled-quantized": "prune > distill > quantize",
    "sparse-packed": "prune:magnitude > quantize:weight_only",
}
TEACHER = "teacher"  # the name of the network before compression, with which every candidate is compared
MOST_RECIPES = 4  # further recipes of a run: the report's component has as many inputs for them
