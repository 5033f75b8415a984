"""The entropy coder of weights.kz against others, on the very same integers.

The integers are those of the teacher, quantized without any training: dense at 8, 4 and 2 bits; the largest 5 % of its
weights in a codebook of 5 bits; and rate-distortion optimised. Figures are of the weights alone, without biases and
scales: bytes, what they are relative to the order-0 entropy of each tensor, and the times to encode and decode once.
Two matrices of 10 million drawn weights show how ours grows: in time, and in memory over that of float32.
"""

import dataclasses
import functools
import lzma
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from kondense.artifacts.model import Model
from kondense.codec.tensors import decode_tensor, encode_tensor
from kondense.quantize import codebook, weight_only
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.stage import quantize
from numpy.typing import NDArray

from benchmarks.compression import nncodec_peer
from benchmarks.compression.relative_index import container_bytes
from benchmarks.compression.setting import Entry, Setting

Weights = Mapping[str, NDArray[np.int8]]
MODELS: dict[tuple[str, str], Weights] = {}  # by case and teacher; all coders get the same integers
LARGE = (2_500, 4_000)  # rows and columns


def dense(bits: int, setting: Setting) -> Model:
    """Return the teacher with weights of so many bits."""
    return weight_only.quantize(setting.teacher, bits=bits)


def sparse(setting: Setting) -> Model:
    """Return the teacher's largest 5 % of the weights in codebooks of 5 bits."""
    model = setting.teacher
    with torch.no_grad():
        weights = [model.module.get_parameter(f"{name}.weight") for name in quantizable_layers(model.module)]
        everything = torch.cat([weight.abs().reshape(-1) for weight in weights])
        threshold = everything.kthvalue(round(0.95 * len(everything))).values
        for weight in weights:
            weight.masked_fill_(weight.abs() <= threshold, 0.0)
    return codebook.quantize(dataclasses.replace(model), bits=5)


def rate_distorted(setting: Setting) -> Model:
    """Return the smallest quantization of the teacher that loses at most 1 % on the validation split."""
    config = QuantizeConfig(method="rate_distortion", max_validation_drop=0.01, seed=setting.seed)
    return quantize(setting.teacher, setting.dataset, config).model


CASES: Mapping[str, Callable[[Setting], Model]] = {
    "dense, 8 bits": functools.partial(dense, 8),
    "dense, 4 bits": functools.partial(dense, 4),
    "dense, 2 bits": functools.partial(dense, 2),
    "95 % zeros, 5-bit codebook": sparse,
    "rate-distortion optimised": rate_distorted,
}


def kz(weights: Weights) -> dict[str, float]:
    """Encode and decode with ours; what comes back must be the same."""
    started = time.perf_counter()
    contents = {name: encode_tensor(torch.from_numpy(weight)) for name, weight in weights.items()}
    encoded = time.perf_counter()
    decoded = {name: decode_tensor(*contents[name], "int8", weight.shape) for name, weight in weights.items()}
    done = time.perf_counter()
    for name, weight in weights.items():
        if not np.array_equal(decoded[name].numpy(), weight):
            raise RuntimeError(f"weight {name} must come back as it was, but does not.")
    size = sum(len(content) for _, content in contents.values())
    return {"bytes": size, "encode_ms": 1e3 * (encoded - started), "decode_ms": 1e3 * (done - encoded)}


def order_0(weights: Weights) -> dict[str, float]:
    """Return the order-0 entropy, which no coder without context can beat; code tables would come on top."""
    return {"bytes": sum(entropy_bytes(weight) for weight in weights.values())}


def entropy_bytes(weight: NDArray[np.int8]) -> float:
    """Return the order-0 entropy of a tensor, in bytes."""
    _, count_K = np.unique(weight, return_counts=True)
    return float((count_K * np.log2(weight.size / count_K)).sum() / 8)


def xz(weights: Weights) -> dict[str, float]:
    """Compress the int8 bytes with xz at its highest preset."""
    started = time.perf_counter()
    contents = [lzma.compress(weight.tobytes(), preset=9 | lzma.PRESET_EXTREME) for weight in weights.values()]
    encoded = time.perf_counter()
    for content in contents:
        lzma.decompress(content)
    times = {"encode_ms": 1e3 * (encoded - started), "decode_ms": 1e3 * (time.perf_counter() - encoded)}
    return {"bytes": sum(map(len, contents)), **times}


def deep_compression(weights: Weights) -> dict[str, float]:
    """Return what relative indices and Huffman codes take."""
    return {"bytes": sum(container_bytes(weight) for weight in weights.values())}


CODERS: Mapping[str, Callable[[Weights], dict[str, float]]] = {
    "kondense kz": kz,
    "order-0 entropy": order_0,
    "xz -9e": xz,
    "Deep Compression's container": deep_compression,
    f"NNCodec {nncodec_peer.VERSION}": nncodec_peer.measure,
}


def quantized(case: str, setting: Setting) -> Weights:
    """Return the integers of a case."""
    key = (case, str(setting.teacher_dir))
    if key not in MODELS:
        MODELS[key] = {name: tensor.integers.numpy() for name, tensor in CASES[case](setting).quantized.items()}
    return MODELS[key]


def drawn(zeros: float, setting: Setting) -> Weights:
    """Return 10 million integers: a share of zeros, others of magnitude 1 to 7, rarer the larger, rows unlike."""
    generator = np.random.default_rng(setting.seed)
    rows, columns = LARGE
    magnitude = np.minimum(generator.geometric(0.4, LARGE), 7) * generator.choice((-1, 1), LARGE)
    share_R1 = np.clip((1 - zeros) * generator.uniform(0.5, 1.5, (rows, 1)), 0, 1)
    return {"weight": (magnitude * (generator.random((rows, columns)) < share_R1)).astype(np.int8)}


def large(zeros: float, setting: Setting) -> dict[str, float]:
    """Code 10 million drawn integers with ours, and watch the memory."""
    weights = drawn(zeros, setting)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    figures = kz(weights)
    peak = _memory("VmHWM") - before
    return related(weights, figures) | {"peak_to_dense": peak / sum(4 * weight.size for weight in weights.values())}


def _memory(field: str) -> int:
    """Return a size from Linux's account of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def run(case: str, coder: str, setting: Setting) -> dict[str, float]:
    """Quantize the teacher and code its integers."""
    weights = quantized(case, setting)
    return related(weights, CODERS[coder](weights))


def related(weights: Weights, figures: dict[str, float]) -> dict[str, float]:
    """Return the figures with the bytes in relation to the order-0 entropy."""
    entropy = order_0(weights)["bytes"]
    return {"bytes": figures["bytes"], "to_entropy_percent": 100 * (figures["bytes"] / entropy - 1)} | figures


ENTRIES = [
    Entry(network, case, coder, functools.partial(run, case, coder))
    for network in ("lenet5", "lenet300", "resnet8")
    for case in CASES
    for coder in CODERS
] + [
    Entry("lenet5", f"10M drawn weights, {100 * zeros:.0f} % zeros", "kondense kz", functools.partial(large, zeros))
    for zeros in (0.1, 0.95)
]
