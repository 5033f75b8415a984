"""Classification of images by an exported ONNX file. onnxruntime and NumPy only, no torch.

Shapes: images uint8 [N, C, H, W]; probabilities [N, K] of N images and K classes.
"""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from kondense.export.metadata import Metadata, parse_metadata
from kondense.files import ArtifactError
from kondense.inference.pictures import read_picture
from kondense.measuring.latency import open_session, predict_onnx, takes_pixels
from kondense.preprocessing import BILINEAR


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A loaded ONNX file with its metadata."""

    session: InferenceSession
    metadata: Metadata

    def picture(self, path: Path) -> NDArray[np.uint8]:
        """Return the image at ``path`` as the model takes it, uint8 [C, H, W]; InputError if it is none."""
        channels, height, width = self.metadata["shape"]
        return read_picture(
            path,
            (channels, height, width),
            resize=self.metadata.get("resize", ()),
            interpolation=self.metadata.get("interpolation", BILINEAR),
        )

    def classify(self, images_NCHW: NDArray[np.uint8], *, batch_size: int = 64) -> NDArray[np.float64]:
        """Return the probability of every class for every image; ArtifactError if the model cannot be run."""
        inputs_NCHW = images_NCHW if takes_pixels(self.session) else self._normalised(images_NCHW)
        try:
            logits_NK = predict_onnx(self.session, inputs_NCHW, batch_size=batch_size).astype(np.float64)
        except Exception as error:  # onnxruntime's errors have no other public base
            raise ArtifactError(f"the ONNX model cannot be run: {' '.join(str(error).split())[:200]}") from None
        exponentials_NK = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
        return exponentials_NK / exponentials_NK.sum(1, keepdims=True)

    def _normalised(self, images_NCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        mean_C11 = np.array(self.metadata["mean"]).reshape(-1, 1, 1)
        std_C11 = np.array(self.metadata["std"]).reshape(-1, 1, 1)
        return ((images_NCHW / 255.0 - mean_C11) / std_C11).astype(np.float32)


def open_classifier(path: Path, *, threads: int = 1) -> Classifier:
    """Load the exported model at ``path``.

    Raises:
        ArtifactError: the file is missing, not an ONNX model or not from Kondense, or its metadata does not fit it.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} must be an ONNX file, but it is missing.")
    try:
        session = open_session(path.read_bytes(), threads=threads)
        entries = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # onnxruntime's errors have no other public base
        raise ArtifactError(f"{path} must be an ONNX model, but: {' '.join(str(error).split())[:200]}") from None
    classifier = Classifier(session, parse_metadata(entries, str(path)))
    _check_fits(path, classifier)
    return classifier


def _check_fits(path: Path, classifier: Classifier) -> None:
    """Raise ArtifactError unless input, shape and number of classes in the metadata equal those of the graph."""
    metadata, session = classifier.metadata, classifier.session
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or not outputs[0].shape:
        raise ArtifactError(
            f"{path} must have one input and one output, the logits, but has {len(inputs)} and {len(outputs)}."
        )
    graph_input, graph_output = inputs[0], outputs[0]
    facts = {
        "input": (metadata["input"], "uint8" if takes_pixels(session) else "float32"),
        "shape": (metadata["shape"], list(graph_input.shape[1:])),
        "number of classes": (len(metadata["classes"]), graph_output.shape[-1]),
    }
    for name, (stated, actual) in facts.items():
        if stated != actual:
            raise ArtifactError(f"{path}: the metadata's {name} must be the graph's, {actual}, but got {stated}.")
