"""Coding of numbers by byte planes: all first bytes, all second bytes, and so on.

The planes of the signs and exponents of floats compress well; those of low mantissa bytes do not, and are stored.
Shapes: N elements of B bytes each.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kondense.codec.lanes import LaneReader, LaneWriter
from kondense.codec.models import Frequencies, counts, flat
from kondense.codec.numbers import decode_numbers, encode_numbers
from kondense.codec.streams import Reader, Writer
from kondense.files import ArtifactError

Bytes = NDArray[np.uint8]
Content = bytes | memoryview
SAMPLE = 2**15
LONG = 2**20  # bytes of a plane from which only the coders that win on samples are tried
LANES_FROM = 2**19  # bytes of a plane from which frequencies are coded in lanes
LEAST_DEFLATED = 1.05  # of a sample's entropy: a whole plane deflates a little better


def encode_planes(elements_NB: Bytes) -> bytes:
    """Encode N elements of B bytes, each plane by the coder of CODERS with the shortest result."""
    parts: list[Content] = []
    for index in range(elements_NB.shape[1]):
        plane_N = np.ascontiguousarray(elements_NB[:, index])
        numbers = (number for number, coder in enumerate(CODERS) if coder.worth_trying(plane_N))
        number, content = min(((number, CODERS[number].encode(plane_N)) for number in numbers), key=_length)
        parts += [encode_numbers([number, len(content)]), content]
    return b"".join(parts)


def _length(pair: tuple[int, Content]) -> int:
    return len(pair[1])


def decode_planes(content: Content, count: int, width: int) -> Bytes:
    """Decode ``count`` elements of ``width`` bytes; the caller has bounded their product.

    Raises:
        ArtifactError: ``content`` is not valid.
    """
    elements_NB = np.empty((count, width), np.uint8)
    start = 0
    view = memoryview(content)  # its slices take no memory
    for index in range(width):
        (coder, length), start = decode_numbers(view, 2, start)
        if coder >= len(CODERS) or length > len(content) - start:
            raise ArtifactError(
                f"a byte plane must have a known coder and a length in range, but got {coder}, {length}."
            )
        elements_NB[:, index] = CODERS[coder].decode(view[start : start + length], count)
        start += length
    if start != len(content):
        raise ArtifactError(f"a tensor's byte planes must end it, but {len(content) - start} bytes follow.")
    return elements_NB


def _store(plane_N: Bytes) -> Content:
    return plane_N.data  # no copy


def _stored(content: Content, count: int) -> Bytes:
    if len(content) != count:
        raise ArtifactError(f"a stored byte plane must have {count} bytes, but got {len(content)}.")
    return np.frombuffer(content, np.uint8)


def _deflate(plane_N: Bytes) -> bytes:
    return zlib.compress(plane_N.tobytes(), 6)


def _inflated(content: Content, count: int) -> Bytes:
    return np.frombuffer(inflate(content, count), np.uint8)


def inflate(content: Content, size: int, dictionary: bytes = b"") -> bytes:
    """Decompress zlib data of exactly ``size`` bytes, using no more memory than that.

    Raises:
        ArtifactError: the data is damaged or of another size.
    """
    inflater = zlib.decompressobj(zdict=dictionary) if dictionary else zlib.decompressobj()
    try:
        data = inflater.decompress(content, size + 1)
    except zlib.error as error:
        raise ArtifactError(f"deflated data must be complete, but: {error}.") from None
    if len(data) != size or not inflater.eof or inflater.unused_data:
        raise ArtifactError(f"deflated data must decompress to {size} bytes, but does not.")
    return data


def _constant(plane_N: Bytes) -> bytes:
    return bytes(plane_N[:1].tobytes())


def _repeated(content: Content, count: int) -> Bytes:
    if len(content) != min(count, 1):
        raise ArtifactError(f"a constant byte plane must have {min(count, 1)} bytes, but got {len(content)}.")
    return np.full(count, content[0] if content else 0, np.uint8)


def _code(plane_N: Bytes) -> bytes:
    writer = Writer()
    Frequencies(flat(256)).code(writer, len(plane_N), plane_N)
    return writer.finish()


def _coded(content: Content, count: int) -> Bytes:
    return Frequencies(flat(256)).code(Reader(content), count, None, np.uint8)


def _code_in_lanes(plane_N: Bytes) -> bytes:
    writer = LaneWriter(len(plane_N))
    Frequencies(flat(256)).code(writer, len(plane_N), plane_N)
    return writer.finish()


def _coded_in_lanes(content: Content, count: int) -> Bytes:
    return Frequencies(flat(256)).code(LaneReader(content), count, None, np.uint8)


def _always(plane_N: Bytes) -> bool:
    return True


def _is_constant(plane_N: Bytes) -> bool:
    return not len(plane_N) or bool((plane_N == plane_N[0]).all())


def _sample_deflates(plane_N: Bytes) -> bool:
    """Return whether samples compress, in a long plane also by more than frequencies tell; deflating is slow."""
    places = (len(plane_N) - SAMPLE) // 2 * np.arange(3) if len(plane_N) > LONG else [(len(plane_N) - SAMPLE) // 2]
    samples = [plane_N[max(0, place) : max(0, place) + SAMPLE] for place in places]
    if not any(len(zlib.compress(sample.tobytes(), 1)) < 0.97 * len(sample) + 8 for sample in samples):
        return False
    return len(plane_N) <= LONG or any(
        len(zlib.compress(sample.tobytes(), 6)) < LEAST_DEFLATED * _entropy(sample) / 8 * len(sample) + 8
        for sample in samples
    )


def _is_uneven(plane_N: Bytes) -> bool:
    """Return whether the order-0 entropy of a short plane is below that of random bytes."""
    return len(plane_N) < LANES_FROM and _entropy(plane_N) < 7.95


def _is_uneven_and_long(plane_N: Bytes) -> bool:
    return len(plane_N) >= LANES_FROM and _entropy(plane_N) < 7.95


def _entropy(plane_N: Bytes) -> float:
    """Return the order-0 entropy, bits per byte."""
    share_K = counts(plane_N, 256) / max(1, len(plane_N))
    return float(-(share_K * np.log2(np.maximum(share_K, 1e-300))).sum())


class Coder(NamedTuple):
    """How to encode and decode a plane, and whether it is worth trying."""

    encode: Callable[[Bytes], Content]
    decode: Callable[[Content, int], Bytes]
    worth_trying: Callable[[Bytes], bool]


# A plane's header has an index into this table, so new coders are added at the end.
CODERS = (
    Coder(_store, _stored, _always),
    Coder(_deflate, _inflated, _sample_deflates),
    Coder(_code, _coded, _is_uneven),
    Coder(_constant, _repeated, _is_constant),
    Coder(_code_in_lanes, _coded_in_lanes, _is_uneven_and_long),  # since version 5
)
