"""Compare an exported file with the network that it was made from.

Shapes: images [N, C, H, W].
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from kondense.artifacts.equivalence import outputs, probes
from kondense.export.trace import describe
from kondense.files import ArtifactError
from kondense.networks.outputs import CHANGING, doubts

Translate = Callable[[nn.Module, Tensor], onnx.ModelProto | None]

SAME = 1e-3  # largest change of a float file's logits relative to the largest
NOISE = 10.0  # or so many times the rounding error of the network itself in float32
ROUNDED = 0.25  # of an integer file's, of the median image: a value at the edge of two integers may fall to either


def check_file(
    proto: onnx.ModelProto, module: nn.Module, shape: Sequence[int], translate: Translate, *, integer: bool
) -> None:
    """Raise ArtifactError unless onnxruntime computes from ``proto`` what ``module`` computes.

    Random images in batches of several sizes are compared.

    Args:
        proto: takes normalised float images.
        module: the network; not changed.
        shape: of one image, (C, H, W).
        translate: exports a module of the network for inputs [N, ...], or returns None if it cannot be one of its own;
            to name the module that differs.
        integer: whether inputs of layers are quantized.
    """
    session = open_session(proto)
    batches, change, count = [], 0.0, 0
    for batch in probes(shape):
        expected = _outputs(module, batch)
        if expected is not None:
            batches.append(batch)
            change, count = max((change, count), (_change(session, expected[0], batch, integer=integer), len(batch)))
    if change > (ROUNDED if integer else SAME) and change > NOISE * _noise(module, batches):
        if CHANGING in doubts(module, batches[-1]):
            raise ArtifactError(f"the exported file must compute the same as the network, but {CHANGING}.")
        place = "" if integer else _place(module, batches[-1], translate)
        raise ArtifactError(
            f"the exported file must compute the same as the network, but its logits differ by {change:.2g} of the"
            f" largest for {count} image{'s' if count > 1 else ''}{place}."
        )


def _outputs(module: nn.Module, batch: Tensor) -> list[Tensor] | None:
    """Return the outputs of ``module``, or None if it has none for so many images."""
    try:
        return outputs(module, batch) or None
    except Exception:  # from the network's own code: it does not take so many images
        return None


def _change(session: Any, expected: Tensor, batch: Tensor, *, integer: bool) -> float:
    """Return the change of the logits, relative to the largest: of the worst image, or of the median one."""
    actual = _run(session, batch)
    if actual is None or actual.shape != expected.shape or not actual.isfinite().equal(expected.isfinite()):
        return float("inf")
    expected, actual = expected.nan_to_num(0.0, 0.0, 0.0), actual.nan_to_num(0.0, 0.0, 0.0)
    change_N = (actual - expected).abs().flatten(1).amax(1) / expected.abs().max().clamp_min(1e-30)
    return float(change_N.median() if integer else change_N.max())


def _noise(module: nn.Module, batches: Sequence[Tensor]) -> float:
    """Return the rounding error of the network's own logits, relative to the largest."""
    exact, noise = copy.deepcopy(module).double(), 0.0
    for batch in batches:
        found = _outputs(exact, batch.double())
        if found is None:  # a network with a data type of its own
            return 0.0
        expected, actual = found[0], outputs(module, batch)[0].double()
        noise = max(noise, float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30)))
    return noise


def open_session(proto: onnx.ModelProto) -> Any:
    """Return an onnxruntime session of a file, or None if onnxruntime cannot load it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's errors have no common base
        return None


def run(proto: onnx.ModelProto, batch: Tensor) -> Tensor | None:
    """Return onnxruntime's first output for ``batch``, or None if it cannot run the file."""
    return _run(open_session(proto), batch)


def _run(session: Any, batch: Tensor) -> Tensor | None:
    if session is None:
        return None
    try:
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0])
    except Exception:  # onnxruntime's errors have no common base
        return None


def _place(module: nn.Module, batch: Tensor, translate: Translate) -> str:
    """Return in words the innermost module whose own file differs from it."""
    name, found = "", module
    while True:
        for child_name, child, inputs in _called(found, batch):
            proto = translate(child, inputs)
            if (
                proto is not None
                and _change(open_session(proto), outputs(child, inputs)[0], inputs, integer=False) > SAME
            ):
                name, found, batch = f"{name}.{child_name}".lstrip("."), child, inputs
                break
        else:
            return f"; the first module that differs is {describe(name, type(found).__name__)}"


def _called(module: nn.Module, batch: Tensor) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Yield the children that ``module`` calls on one tensor, with that tensor, in the order of the calls."""
    seen: list[tuple[str, nn.Module, Tensor]] = []
    handles = [
        child.register_forward_pre_hook(
            lambda part, inputs, name=name: (
                seen.append((name, part, inputs[0].detach().clone()))
                if len(inputs) == 1 and isinstance(inputs[0], Tensor)
                else None
            )
        )
        for name, child in module.named_children()
    ]
    try:
        outputs(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    yield from seen
