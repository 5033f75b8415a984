"""NNCodec (ISO/IEC 15938-17) in an environment of its own, since it needs numpy below 2.

A peer to compare with and nothing that Kondense depends on: its licence, Clear BSD, grants no patents.
``python nncodec_peer.py WEIGHTS.npz DECODED.npz QP`` is what that environment runs.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = "2.1.3"
PYTHON = "3.11"


ENVIRONMENT = ("uv", "run", "--no-project", "--isolated", "--python", PYTHON, "--with", f"nncodec=={VERSION}", "python")


def measure(weights: Mapping[str, NDArray[np.int8]]) -> dict[str, float]:
    """Return ``bytes``, ``encode_ms`` and ``decode_ms`` of the weights as lossless integers.

    Raises:
        RuntimeError: other integers came back.
        subprocess.CalledProcessError: the package does not install, or it fails.
    """
    figures, decoded = _call(weights, qp=0)
    for name, weight in weights.items():
        if not np.array_equal(decoded[name], weight):
            raise RuntimeError(f"weight {name} must come back from NNCodec as it was, but does not.")
    return figures


def quantize(weights: Mapping[str, NDArray[np.float32]], qp: int) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    """Return the same figures of float weights on its own uniform grid of parameter ``qp``, and the weights decoded."""
    return _call(weights, qp=qp)


def _call(weights: Mapping[str, NDArray[Any]], *, qp: int) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        places = [str(Path(folder) / name) for name in ("weights.npz", "decoded.npz")]
        np.savez(places[0], **weights)
        command = [*ENVIRONMENT, str(Path(__file__).resolve()), *places, str(qp)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
        decoded = dict(np.load(places[1]))
    figures: dict[str, float] = json.loads(printed.splitlines()[-1])
    return figures, decoded


def _run(source: str, target: str, qp: int) -> None:
    from nncodec import tensor as nncodec  # in its own environment only

    size, encode_s, decode_s = 0, 0.0, 0.0
    decoded = {}
    for name, weight in np.load(source).items():
        started = time.perf_counter()
        stream = nncodec.encode(weight, {"qp": qp, "use_dq": False})
        encoded = time.perf_counter()
        decoded[name] = nncodec.decode(stream)
        encode_s, decode_s = encode_s + encoded - started, decode_s + time.perf_counter() - encoded
        size += len(stream)
    np.savez(target, **decoded)
    print(json.dumps({"bytes": size, "encode_ms": 1e3 * encode_s, "decode_ms": 1e3 * decode_s}))


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
