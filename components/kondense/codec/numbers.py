"""Non-negative integers of any size as bytes."""

from collections.abc import Sequence

from kondense.files import ArtifactError

LARGEST_7_BITS = 127


def encode_numbers(numbers: Sequence[int]) -> bytes:
    """Return non-negative integers with 7 bits per byte, lowest first; the high bit is set except in a last byte."""
    content = bytearray()
    for number in numbers:
        rest = number
        while rest > LARGEST_7_BITS:
            content.append(rest & LARGEST_7_BITS | (LARGEST_7_BITS + 1))
            rest >>= 7
        content.append(rest)
    return bytes(content)


def decode_numbers(content: bytes | memoryview, count: int, start: int = 0) -> tuple[list[int], int]:
    """Return ``count`` numbers of ``content`` from ``start`` on, each below 2^63, and their end.

    Raises:
        ArtifactError: they are cut off or too large.
    """
    numbers = []
    for _ in range(count):
        value = 0
        for shift in range(0, 63, 7):
            if start == len(content):
                raise ArtifactError(f"a stream must begin with {count} numbers, but they are cut off.")
            byte = content[start]
            start += 1
            value |= (byte & LARGEST_7_BITS) << shift
            if byte <= LARGEST_7_BITS:
                break
        else:
            raise ArtifactError("a number of a stream must be below 2^63, but is larger.")
        numbers.append(value)
    return numbers, start
