"""The container of Deep Compression: how far it is to the next non-zero, and a Huffman code.

Source: Han et al. 2016, sections 2 and 4: 5 bits of distance in fully connected layers and 8 in convolutions, padding
zeros where they do not reach, Huffman codes for distances and for values.
"""

import heapq
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def container_bytes(weight: NDArray[np.int8]) -> int:
    """Return the bytes that a weight [O, I, ...] of codebook indices takes, code tables included."""
    flat_N = weight.reshape(-1).astype(np.int64)
    places_M = np.flatnonzero(flat_N)
    span = 2**8 if weight.ndim > 2 else 2**5
    distances_M = np.diff(places_M, prepend=-1)
    padding_M = (distances_M - 1) // span  # zeros stored as if they were weights
    distances = Counter((distances_M - padding_M * span).tolist()) + Counter({span: int(padding_M.sum())})
    values = Counter(flat_N[places_M].tolist()) + Counter({0: int(padding_M.sum())})
    bits = huffman_bits(distances) + huffman_bits(values)
    tables = 2 * (len(distances) + len(values))  # a byte for the symbol and one for its code's length
    return -(-bits // 8) + tables


def huffman_bits(counts: Counter[int]) -> int:
    """Return the bits of a text with these symbol counts in its own Huffman code."""
    return sum(counts[symbol] * length for symbol, length in code_lengths(counts.items()).items())


def code_lengths(counts: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return the length of each symbol's Huffman code, in bits; a lone symbol gets one."""
    heap = [(count, place, {symbol: 0}) for place, (symbol, count) in enumerate(counts) if count]
    if len(heap) == 1:
        return dict.fromkeys(heap[0][2], 1)
    heapq.heapify(heap)
    place = len(heap)
    while len(heap) > 1:
        (first, _, shorter), (second, _, longer) = heapq.heappop(heap), heapq.heappop(heap)
        merged = {symbol: length + 1 for part in (shorter, longer) for symbol, length in part.items()}
        heapq.heappush(heap, (first + second, place, merged))
        place += 1
    return heap[0][2] if heap else {}
