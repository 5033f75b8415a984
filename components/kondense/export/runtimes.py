"""Which runtimes an exported file needs, and which compute it wrong: the one home of these facts. Stdlib only.

``python -m benchmarks.runtimes`` checks them; the table of the last run is in docs/runtimes.md.
"""

from collections.abc import Mapping

from kondense.artifacts.measurements import Runtimes

CHECKED = (
    *("onnxruntime 1.18.1", "onnxruntime 1.19.2", "onnxruntime 1.20.1", "onnxruntime 1.22.1", "onnxruntime 1.24.1"),
    *("onnxruntime 1.25.1", "onnxruntime 1.32.0"),
)
LEAST = "1.18"  # of onnxruntime: the first that reads opset 21
LEAST_FOR_4_BITS = "1.19"  # the first with DequantizeLinear of 4-bit integers
FAULTY = ("1.21", "1.24")  # of onnxruntime, first and last, on processors with AMX, for the widths below
BLOCK = 32  # channels that the faulty kernel handles together


def computed_wrong(filters: int) -> bool:
    """Return whether onnxruntime 1.21 to 1.24 on AMX computes an int8 layer of so many filters wrong.

    The filters behind the last multiple of 16 are wrong in the last of every 32 places, unless their number is a
    multiple of 4.
    """
    return filters % 4 != 0 and filters % BLOCK > BLOCK // 2


def session_entries(content: bytes) -> dict[str, str]:
    """Return the entries of onnxruntime's session options with which a file runs fastest.

    If weights alone are quantized, they become floats once, while the file is loaded, instead of in every run.
    """
    weights_alone = b"DequantizeLinear" in content and b"QuantizeLinear" not in content
    return {"session.disable_quant_qdq": "1"} if weights_alone else {}


def runtimes(integer_filters: Mapping[str, int], *, four_bits: bool) -> Runtimes:
    """Return what serves a file.

    Args:
        integer_filters: number of filters of the layers that run on integers, by name.
        four_bits: whether the file holds 4-bit integers.
    """
    wrong = {name: filters for name, filters in integer_filters.items() if computed_wrong(filters)}
    layers = ", ".join(f"{name} ({filters} filters)" for name, filters in wrong.items())
    return {
        "least": f"onnxruntime {LEAST_FOR_4_BITS if four_bits else LEAST}",
        "faulty": f"onnxruntime {FAULTY[0]} to {FAULTY[1]} on processors with AMX: {layers}" if wrong else "",
        "checked": list(CHECKED),
    }
