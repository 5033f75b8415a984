"""The entropy coder of weights.kz, with one interface for encoding and decoding.

A model of the data is one function that codes symbols of given probabilities on a stream: a Writer receives the
symbols, a Reader returns them, so that encoder and decoder agree. Probabilities are computed from integer counts by +,
-, * and / in float64 only, which all machines round alike.

Shapes: N symbols, K possible ones.
"""

from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from kondense.files import ArtifactError

Integers = NDArray[np.int32]
Floats = NDArray[np.float64]

# The smallest distance of a probability from 0 and 1. A symbol thus costs at least 1/2839 of a bit, so a stream has at
# most MOST_SYMBOLS_PER_BYTE symbols per byte.
LEAST_PROBABILITY = 2.0**-12
MOST_SYMBOLS_PER_BYTE = 2**15


class Stream(Protocol):
    """One direction of the coder; symbols are given when writing and None when reading."""

    def expect(self, count: int) -> None:
        """Announce ``count`` symbols of at least two kinds, before their memory is allocated."""

    def bits(self, probability_N: Floats, bits_N: Integers | None) -> Integers:
        """Code N bits, each 1 with its own probability."""

    def symbols(self, weight_K: Floats, count: int, symbols_N: Integers | None) -> Integers:
        """Code ``count`` symbols in [0, K) whose probabilities are proportional to ``weight_K``."""


class Writer:
    """Encodes symbols."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def expect(self, count: int) -> None:
        """Do nothing: the symbols exist."""

    def bits(self, probability_N: Floats, bits_N: Integers | None) -> Integers:
        """Encode ``bits_N`` and return them."""
        assert bits_N is not None
        self._encoder.encode(bits_N, _bernoulli(), _bounded(probability_N))
        return bits_N

    def symbols(self, weight_K: Floats, count: int, symbols_N: Integers | None) -> Integers:
        """Encode ``symbols_N`` and return them."""
        assert symbols_N is not None and len(symbols_N) == count
        if len(weight_K) > 1:
            self._encoder.encode(symbols_N, _categorical(weight_K))
        return symbols_N

    def finish(self) -> bytes:
        """Return the encoded symbols as little-endian 32-bit words."""
        return bytes(self._encoder.get_compressed().astype("<u4").tobytes())


class Meter:
    """Sums the cost of symbols in bits without encoding them."""

    def __init__(self) -> None:
        self.bits_spent = 0.0

    def expect(self, count: int) -> None:
        """Do nothing: the symbols exist."""

    def bits(self, probability_N: Floats, bits_N: Integers | None) -> Integers:
        """Add the cost of ``bits_N`` and return them."""
        assert bits_N is not None
        bounded_N = _bounded(probability_N)
        self.bits_spent -= float(np.log2(np.where(bits_N, bounded_N, 1 - bounded_N)).sum())
        return bits_N

    def symbols(self, weight_K: Floats, count: int, symbols_N: Integers | None) -> Integers:
        """Add the cost of ``symbols_N`` and return them."""
        assert symbols_N is not None and len(symbols_N) == count
        counts_K = np.bincount(symbols_N, minlength=len(weight_K))
        self.bits_spent -= float((counts_K * np.log2(_spread(weight_K))).sum())
        return symbols_N


class Reader:
    """Decodes the symbols of a Writer."""

    def __init__(self, content: bytes | memoryview) -> None:
        if len(content) % 4:
            raise ArtifactError(
                f"an entropy-coded stream must be whole words of 4 bytes, but got {len(content)} bytes."
            )
        self._remaining = MOST_SYMBOLS_PER_BYTE * (len(content) + 8)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(content, "<u4").astype(np.uint32))

    def expect(self, count: int) -> None:
        """Raise ArtifactError if the rest of the stream is too short for ``count`` symbols."""
        if count > self._remaining:
            raise ArtifactError("an entropy-coded stream must be long enough for its tensor, but it is too short.")

    def bits(self, probability_N: Floats, bits_N: Integers | None) -> Integers:
        """Decode one bit per probability."""
        self._spend(len(probability_N))
        return self._decode(_bernoulli(), _bounded(probability_N))

    def symbols(self, weight_K: Floats, count: int, symbols_N: Integers | None) -> Integers:
        """Decode ``count`` symbols."""
        if len(weight_K) < 2:
            return np.zeros(count, np.int32)
        self._spend(count)
        return self._decode(_categorical(weight_K), count)

    def _spend(self, count: int) -> None:
        self.expect(count)
        self._remaining -= count

    def _decode(self, model: Any, amount: Any) -> Integers:
        try:
            decoded: Integers = self._decoder.decode(model, amount)
        except AssertionError as error:  # constriction raises it for invalid streams
            raise ArtifactError(f"an entropy-coded stream must decode, but: {error}") from None
        return decoded


def _bernoulli() -> Any:
    return constriction.stream.model.Bernoulli(perfect=False)


def _bounded(probability_N: Floats) -> Floats:
    bounded: Floats = np.clip(probability_N, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return bounded


def _categorical(weight_K: Floats) -> Any:
    return constriction.stream.model.Categorical(_spread(weight_K), perfect=False)


def _spread(weight_K: Floats) -> Floats:
    """Return probabilities proportional to ``weight_K``, but none too small."""
    probability_K = weight_K / weight_K.sum()
    spread_K: Floats = probability_K * (1 - 2 * LEAST_PROBABILITY) + 2 * LEAST_PROBABILITY / len(weight_K)
    return spread_K
