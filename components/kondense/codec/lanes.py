"""The entropy coder of large tensors: many coders side by side, so that NumPy codes thousands of symbols at a time.

Of a long call, symbol i belongs to lane i modulo L. Short calls and what is left of a long one go to the coder of
``streams``. A lane would waste the 16 bits of its first state; instead they hold the tail: the last symbols of the last
long call, range-coded.

The content: numbers (log2 L, long calls, steps of the tail, bytes of range-coded symbols, of final states and of what
is left of the tail), these three parts, and the words.

Shapes: L lanes; N symbols of K possible ones; S steps of L symbols.

Source: Duda 2013, "Asymmetric numeral systems" (rANS); Giesen 2014, "Interleaved entropy coders". States have 32 bits,
words 16, and probabilities are in units of 2^-14: with finer ones, small states would round more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kondense.codec.numbers import decode_numbers, encode_numbers
from kondense.codec.streams import MOST_SYMBOLS_PER_BYTE, Floats, Integers, Reader, Writer
from kondense.files import ArtifactError

WORD_BITS = 16
SMALLEST = 2**WORD_BITS  # state
UNIT_BITS = 14
UNITS = 2**UNIT_BITS
ONE = 2**15  # beside the units of a bit that is one
LEAST = 4  # units that the likeliest symbol leaves to the others; a symbol then costs as much as in ``streams``
SYMBOLS_PER_LANE = 1024  # a lane costs about four bits
LANES_LOG = (4, 11)  # fewest and most; more do not fit the fastest cache
LEAST_STEPS = 4  # of a long call
MOST_TAIL_STEPS = 64
STEPS_AT_ONCE = 64  # of the decoder, which bounds its memory
States = NDArray[np.uint32]
Words = NDArray[np.uint16]


def lanes_log(count: int) -> int:
    """Return log2 of the number of lanes for a tensor of ``count`` elements."""
    return min(LANES_LOG[1], max(LANES_LOG[0], (count // SYMBOLS_PER_LANE).bit_length() - 1))


def in_units(weight_K: Floats) -> States:
    """Return probabilities proportional to ``weight_K`` as positive numbers of units that sum up to UNITS."""
    units_K = np.maximum(1, np.rint(weight_K / weight_K.sum() * UNITS)).astype(np.int64)
    while (rest := UNITS - int(units_K.sum())) != 0:
        likeliest = int(units_K.argmax())
        units_K[likeliest] = max(1, units_K[likeliest] + rest)
    likeliest = int(units_K.argmax())
    surplus = max(0, int(units_K[likeliest]) - (UNITS - LEAST))
    units_K[likeliest] -= surplus
    units_K[likeliest - 1] += surplus
    return units_K.astype(np.uint32)


class _Symbols(NamedTuple):
    """A long call of ``symbols``: its symbols [S, L] in few bytes, and the weight and the units of each symbol [K]."""

    coded: NDArray[np.uint8] | Words
    weights: Floats
    units: States

    def intervals(self) -> Callable[[int], tuple[States, States, Floats]]:
        """Return a function from a step to the first unit, the units and their inverse of each lane's symbol."""
        first_K, inverse_K = np.cumsum(self.units, dtype=np.uint32) - self.units, 1.0 / self.units
        lanes = self.coded.shape[1]
        symbol_L, inverse_L = np.empty(lanes, np.intp), np.empty(lanes)  # memory that all steps use
        first_L, units_L = np.empty(lanes, np.uint32), np.empty(lanes, np.uint32)

        def at(step: int) -> tuple[States, States, Floats]:
            symbol_L[:] = self.coded[step]
            for table_K, found_L in ((first_K, first_L), (self.units, units_L), (inverse_K, inverse_L)):
                table_K.take(symbol_L, out=found_L, mode="clip")
            return first_L, units_L, inverse_L

        return at

    def last(self, steps: int) -> bytes:
        """Return the last steps range-coded."""
        writer, symbols_N = Writer(), self.coded[-steps:].astype(np.int32).ravel()
        writer.symbols(self.weights, len(symbols_N), symbols_N)
        return writer.finish()


class _Bits(NamedTuple):
    """A long call of ``bits``: the units of a one [S, L], and ONE where the bit is one."""

    coded: Words

    def intervals(self) -> Callable[[int], tuple[States, States, Floats]]:
        """Return a function from a step to the first unit, the units and their inverse of each lane's bit."""

        def at(step: int) -> tuple[States, States, Floats]:
            one_L = self.coded[step] >= ONE
            ones_L = np.bitwise_and(self.coded[step], ONE - 1, dtype=np.uint32)
            units_L = np.where(one_L, ones_L, UNITS - ones_L)
            return np.where(one_L, 0, ones_L), units_L, 1.0 / units_L

        return at

    def last(self, steps: int) -> bytes:
        """Return the last steps range-coded."""
        writer, coded_N = Writer(), self.coded[-steps:].ravel()
        writer.bits((coded_N & np.uint16(ONE - 1)) / UNITS, (coded_N >= ONE).astype(np.int32))
        return writer.finish()


def _units_of_ones(probability_N: Floats) -> Words:
    """Return the probabilities of ones as units, LEAST to UNITS - LEAST."""
    return np.rint(np.clip(probability_N, LEAST / UNITS, 1 - LEAST / UNITS) * UNITS).astype(np.uint16)


class LaneWriter:
    """Encodes symbols; a Stream (see ``streams``)."""

    def __init__(self, count: int) -> None:
        """Start a stream for a tensor of ``count`` elements."""
        self._log = lanes_log(count)
        self._short = Writer()
        self._calls: list[_Symbols | _Bits] = []

    def expect(self, count: int) -> None:
        """Do nothing: the symbols exist."""

    def bits(self, probability_N: Floats, bits_N: Integers | None) -> Integers:
        """Encode ``bits_N`` and return them."""
        assert bits_N is not None
        whole = _whole(len(bits_N), self._log)
        if whole:
            coded_N = _units_of_ones(probability_N[:whole])
            coded_N |= (bits_N[:whole] != 0) * np.uint16(ONE)
            self._calls.append(_Bits(coded_N.reshape(-1, 2**self._log)))
        self._short.bits(probability_N[whole:], bits_N[whole:])
        return bits_N

    def symbols(self, weight_K: Floats, count: int, symbols_N: Integers | None) -> Integers:
        """Encode ``symbols_N`` and return them."""
        assert symbols_N is not None and len(symbols_N) == count
        whole = _whole(count, self._log) if len(weight_K) > 1 else 0
        if whole:
            dtype: type[np.uint8 | np.uint16] = np.uint8 if len(weight_K) <= 2**8 else np.uint16
            symbols_SL: NDArray[Any] = symbols_N[:whole].astype(dtype).reshape(-1, 2**self._log)
            self._calls.append(_Symbols(symbols_SL, weight_K, in_units(weight_K)))
        self._short.symbols(weight_K, count - whole, symbols_N[whole:])
        return symbols_N

    def finish(self) -> bytes:
        """Return the encoded symbols."""
        lanes, calls = 2**self._log, len(self._calls)
        state_L, steps, tail = np.full(lanes, SMALLEST, np.uint32), 0, b""
        parts: list[Words] = []
        if calls:
            steps, tail = self._tail()
            payload = np.frombuffer(tail[: 2 * lanes].ljust(2 * lanes, b"\0"), "<u2")
            state_L |= payload
        for number, call in enumerate(reversed(self._calls)):
            end = len(call.coded) - (0 if number else steps)
            state_L = _encode(call, end, state_L, parts)
        words = np.concatenate(parts[::-1]) if parts else np.zeros(0, np.uint16)
        short, states, rest = self._short.finish(), _pack(state_L), tail[2 * lanes :]
        numbers = encode_numbers([self._log, calls, steps, len(short), len(states), len(rest)])
        return numbers + short + states + rest + words.astype("<u2").tobytes()

    def _tail(self) -> tuple[int, bytes]:
        """Return the number of steps at the end of the last call that fill the first states, and their content."""
        last = self._calls[-1]
        lanes, most = 2**self._log, min(MOST_TAIL_STEPS, len(last.coded))
        steps = 1
        while True:
            content = last.last(steps)
            if len(content) >= 2 * lanes or steps == most:
                return steps, content
            steps = min(most, max(steps + 1, 2 * lanes * steps // max(1, len(content))))


def _whole(count: int, log: int) -> int:
    """Return how many of the ``count`` symbols of a call lanes code."""
    return count >> log << log if count >= LEAST_STEPS << log else 0


def _encode(call: _Symbols | _Bits, steps: int, state_L: States, parts: list[Words]) -> States:
    """Encode the first steps of a call, the last one first, and append its words to ``parts``."""
    interval = call.intervals()
    bound_L, product_L, quotient_L = np.empty_like(state_L), np.empty(len(state_L)), np.empty_like(state_L)
    for step in range(steps - 1, -1, -1):
        first_L, units_L, inverse_L = interval(step)
        np.left_shift(units_L, 2 * WORD_BITS - UNIT_BITS, out=bound_L)
        (full,) = (state_L >= bound_L).nonzero()
        if len(full):
            overflowing = state_L[full]
            parts.append(overflowing.astype(np.uint16))
            state_L[full] = overflowing >> WORD_BITS
        # The half keeps the product, which is rounded, on the right side of every integer.
        np.add(state_L, 0.5, out=product_L)
        product_L *= inverse_L
        quotient_L[:] = product_L
        np.multiply(quotient_L, units_L, out=bound_L)
        state_L -= bound_L
        quotient_L <<= UNIT_BITS
        state_L += quotient_L
        state_L += first_L
    return state_L


class LaneReader:
    """Decodes the symbols of a LaneWriter."""

    def __init__(self, content: bytes | memoryview) -> None:
        numbers, start = decode_numbers(content, 6)
        self._log, self._calls, self._tail_steps, *lengths = numbers
        if not LANES_LOG[0] <= self._log <= LANES_LOG[1] or sum(lengths) > len(content) - start:
            raise ArtifactError(f"a stream of lanes must have numbers in range, but has {numbers}.")
        parts = []
        for length in (*lengths, len(content) - start - sum(lengths)):
            parts.append(content[start : start + length])
            start += length
        short, states, self._rest, words = parts
        if len(words) % 2:
            raise ArtifactError(f"the words of lanes must have 2 bytes each, but there are {len(words)} bytes.")
        self._remaining = MOST_SYMBOLS_PER_BYTE * (len(content) + 8)
        self._short = Reader(short)
        self._words, self._next = np.frombuffer(words, "<u2").astype(np.uint16, copy=False), 0
        self._state_L = _unpack(states, 2**self._log)

    def expect(self, count: int) -> None:
        """Raise ArtifactError if the rest of the stream is too short for ``count`` symbols."""
        if count > self._remaining:
            raise ArtifactError("an entropy-coded stream must be long enough for its tensor, but it is too short.")

    def bits(self, probability_N: Floats, bits_N: Integers | None) -> Integers:
        """Decode one bit per probability."""
        whole, steps, found_N = self._begin(len(probability_N))
        decoded = steps << self._log
        if steps:
            units_SL = _units_of_ones(probability_N[:decoded]).reshape(steps, -1)
            for units_L, found_L in zip(units_SL, found_N[:decoded].reshape(steps, -1), strict=True):
                found_L[:] = self._bits(units_L.astype(np.uint32))
        if decoded < whole:
            found_N[decoded:whole] = self._tail().bits(_units_of_ones(probability_N[decoded:whole]) / UNITS, None)
        if whole < len(probability_N):
            found_N[whole:] = self._short.bits(probability_N[whole:], None)
        return found_N

    def _bits(self, units_L: States) -> NDArray[np.bool_]:
        """Return the next bit of each lane, of which ones have these units."""
        slot_L = self._state_L & np.uint32(UNITS - 1)
        one_L = slot_L < units_L
        self._state_L >>= UNIT_BITS
        self._state_L *= np.where(one_L, units_L, UNITS - units_L)
        self._state_L += slot_L
        self._state_L -= np.where(one_L, 0, units_L)
        self._refill()
        return one_L

    def symbols(self, weight_K: Floats, count: int, symbols_N: Integers | None) -> Integers:
        """Decode ``count`` symbols."""
        if len(weight_K) < 2:
            return np.zeros(count, np.int32)
        whole, steps, found_N = self._begin(count)
        if steps:
            units_K = in_units(weight_K)
            symbol_U = np.repeat(np.arange(len(weight_K), dtype=np.uint16), units_K)
            offset_U = np.arange(UNITS, dtype=np.uint32) - np.repeat(
                np.cumsum(units_K, dtype=np.uint32) - units_K, units_K
            )
            table_U = np.bitwise_or(units_K[symbol_U], offset_U << WORD_BITS, dtype=np.uint32)
            for start in range(0, steps, STEPS_AT_ONCE):
                stop = min(steps, start + STEPS_AT_ONCE)
                slots_SL = self._slots(table_U, stop - start)
                found_N[start << self._log : stop << self._log] = symbol_U.take(slots_SL.ravel())
        if steps << self._log < whole:
            found_N[steps << self._log : whole] = self._tail().symbols(weight_K, whole - (steps << self._log), None)
        if whole < count:
            found_N[whole:] = self._short.symbols(weight_K, count - whole, None)
        return found_N

    def _slots(self, table_U: States, steps: int) -> Words:
        """Return the low word of each state before each step; ``table_U`` has a slot's units and offset."""
        slots_SL = np.empty((steps, 2**self._log), np.uint16)
        entry_L, units_L = np.empty_like(self._state_L), np.empty_like(self._state_L)
        for slot_L in slots_SL:
            np.bitwise_and(self._state_L, UNITS - 1, out=slot_L, casting="unsafe")
            table_U.take(slot_L, out=entry_L, mode="clip")
            np.bitwise_and(entry_L, SMALLEST - 1, out=units_L)
            self._state_L >>= UNIT_BITS
            self._state_L *= units_L
            entry_L >>= WORD_BITS
            self._state_L += entry_L
            self._refill()
        return slots_SL

    def _begin(self, count: int) -> tuple[int, int, Integers]:
        """Return how many of ``count`` symbols lanes and tail code, the steps of lanes, and an empty array."""
        self.expect(count)
        self._remaining -= count
        whole = _whole(count, self._log)
        steps = whole >> self._log
        if whole:
            self._calls -= 1
            steps -= self._tail_steps if not self._calls else 0
        if self._calls < 0 or steps < 0:
            raise ArtifactError(
                "a stream of lanes must have as many long calls as it says, but has more or shorter ones."
            )
        return whole, steps, np.empty(count, np.int32)

    def _refill(self) -> None:
        """Shift a word into every state that is too small."""
        (low,) = (self._state_L < SMALLEST).nonzero()
        words = self._words[self._next : self._next + len(low)]
        if len(words) < len(low):
            raise ArtifactError("a stream of lanes must hold a word for every state, but it is cut off.")
        self._next += len(low)
        self._state_L[low] = self._state_L[low] << WORD_BITS | words

    def _tail(self) -> Reader:
        """Return the reader of the tail, from the first states of the encoder."""
        if self._next < len(self._words) or (self._state_L >> WORD_BITS != 1).any():
            raise ArtifactError("lanes must end in their first states, but do not.")
        content = self._state_L.astype("<u2").tobytes() + self._rest
        return Reader(content)


def _pack(state_L: States) -> bytes:
    """Return states: low words; of the high ones, which are positive, the length in bits and all but the first bit."""
    high_L = state_L >> WORD_BITS
    length_L = np.floor(np.log2(high_L)).astype(np.uint32)
    bits_L16 = (high_L[:, None] >> np.arange(WORD_BITS, dtype=np.uint32)) & 1
    inside_L16 = np.arange(WORD_BITS) < length_L[:, None]
    lengths = np.bitwise_or(length_L[::2], length_L[1::2] << 4).astype(np.uint8)
    return (
        state_L.astype("<u2").tobytes()
        + lengths.tobytes()
        + np.packbits(bits_L16[inside_L16].astype(np.uint8)).tobytes()
    )


def _unpack(content: bytes | memoryview, lanes: int) -> States:
    """Return the states of ``_pack``."""
    fixed = 2 * lanes + lanes // 2
    if len(content) < fixed:
        raise ArtifactError(f"the states of {lanes} lanes must have {fixed} bytes at least, but have {len(content)}.")
    low_L = np.frombuffer(content[: 2 * lanes], "<u2").astype(np.uint32)
    pairs = np.frombuffer(content[2 * lanes : fixed], np.uint8)
    length_L = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
    inside_L16 = np.arange(WORD_BITS) < length_L[:, None]
    bits = np.unpackbits(np.frombuffer(content[fixed:], np.uint8))
    if len(bits) != -(-int(length_L.sum()) // 8) * 8:
        raise ArtifactError("the states of lanes must have as many bits as they say, but do not.")
    bits_L16 = np.zeros((lanes, WORD_BITS), np.uint32)
    bits_L16[inside_L16] = bits[: int(length_L.sum())]
    high_L = (np.uint32(1) << length_L.astype(np.uint32)) | (bits_L16 << np.arange(WORD_BITS, dtype=np.uint32)).sum(
        1, dtype=np.uint32
    )
    return high_L << WORD_BITS | low_L
