"""The identity of a model: a digest of its function, equal for all artifacts and exports of a model. Stdlib only."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kondense.files import read_json, sha256

# Of kondense.artifacts.model, which needs torch: 1; 2 with tied tensors, which are stored once; 3
# with attentions whose projections became layers, and perhaps tied tensors; 4 with attentions that lost heads; 5 with
# separated attentions of two sequences or with masks, edits of norms over channels, recurrent layers, or tensors and
# numbers that modules of the network's own hold; 6 with quantized outputs; 7 with SiLUs whose sigmoid is a module.
PLAIN_FORMAT, TIED_FORMAT, SEPARATED_FORMAT, HEADS_FORMAT, WIDTHS_FORMAT, OUTPUTS_FORMAT, GATES_FORMAT = range(1, 8)
MODEL_FORMAT = (PLAIN_FORMAT, TIED_FORMAT, SEPARATED_FORMAT, HEADS_FORMAT, WIDTHS_FORMAT, OUTPUTS_FORMAT, GATES_FORMAT)
# Files that a model's directory may hold without a digest in model.json: itself, and what publishing writes beside it.
OWN_FILES = ("model.json", "manifest.json", "report.html", "report.json", "version.json")
PARTS = ("network", "edits", "quantization", "masked", "tied")


def identity(description: Mapping[str, Any], weights_sha256: str) -> str:
    """Return the digest of structure, quantization and weights, without lineage and measurements.

    Args:
        description: content of model.json.
        weights_sha256: digest of weights.safetensors.
    """
    parts = {key: description[key] for key in PARTS if key in description} | {"weights": weights_sha256}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def directory_identity(model_dir: Path) -> str:
    """Return the identity of the Model artifact in ``model_dir``.

    Raises:
        ArtifactError: model.json is missing or has another format version.
    """
    description = read_json(model_dir / "model.json", format_version=MODEL_FORMAT)
    return identity(description, sha256(model_dir / "weights.safetensors"))
