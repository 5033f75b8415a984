"""Records of TensorBoard's event files, written by hand from the protocol's definition."""

import struct


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number, kind, content):
    return varint(number << 3 | kind) + (varint(len(content)) if kind == 2 else b"") + content


def event(time, tag, value, *, tensor=False):
    """Return a record with one scalar."""
    scalar = field(2, 5, struct.pack("<f", value))
    if tensor:
        scalar = field(8, 2, field(1, 0, b"\1") + field(4, 2, struct.pack("<f", value)))
    summary = field(1, 2, field(1, 2, tag.encode()) + scalar)
    message = field(1, 1, struct.pack("<d", time)) + field(2, 0, varint(300)) + field(5, 2, summary)
    return struct.pack("<Q", len(message)) + b"\0" * 4 + message + b"\0" * 4
