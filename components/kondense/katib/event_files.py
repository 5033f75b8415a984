"""Scalars in TensorBoard's event files, as the TensorFlowEvent collector reads them, without TensorFlow.

A file is a row of records (length, checksum, an Event message, checksum); a trial that is killed leaves the last one
incomplete. A metric ``train/loss`` is the tag ``loss`` in a directory ``train``, and any other name is a tag.

Source: tfevent_loader.py of Katib 0.19; event.proto, summary.proto and tensor.proto of TensorFlow. Deviation: a tag
must equal the metric's name (Katib takes each that begins with it, so that loss_regularization counts as loss).
"""

import contextlib
import datetime
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kondense.files import below, open_file
from kondense.katib.metrics import MetricLine
from kondense.katib.spec import Objective

MOST_BYTES = 64 * 2**20  # of a record
# Fields: Event.wall_time, Event.summary, Summary.value, Value.tag, Value.simple_value, Value.tensor.
WALL_TIME, SUMMARY, VALUE, TAG, SIMPLE, TENSOR = 1, 5, 1, 1, 2, 8
# TensorProto: dtype, tensor_content, and the list of each dtype (type number -> field, struct's letter).
DTYPE, CONTENT = 1, 4
LISTS = {1: (5, "f"), 2: (6, "d"), 3: (7, "i"), 9: (10, "q")}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def event_reports(directory: Path, objective: Objective) -> list[MetricLine]:
    """Return the reports of the objective's metrics in the event files below a directory, in order of their time.

    Raises:
        ArtifactError: there are too many folders in each other.
        OSError: a folder or a file cannot be read.
    """
    reports = []
    for path in sorted(path for path in below(directory) if path.is_file()):
        for metric in (objective.metric, *objective.additional):
            folder, _, tag = metric.rpartition("/")
            if not folder or str(path.parent).endswith(folder):
                scalars = ((time, value) for time, name, value in read_scalars(path) if name == tag)
                reports += [MetricLine(metric, value, time) for time, value in scalars]
    return sorted(reports, key=lambda report: report.time)


def read_scalars(path: Path) -> Iterator[tuple[datetime.datetime, str, str]]:
    """Yield time, tag and value of the scalars in an event file, up to its first damaged record.

    A field that is encoded in another way than its own is none, as for every reader of protobuf.
    """
    for record in _records(path):
        time = _time(next((value for number, value in _fields(record) if number == WALL_TIME), None))
        for summary in _messages(record, SUMMARY):
            for value in _messages(summary, VALUE):
                entry = {number: content for number, content in _fields(value) if number in (TAG, SIMPLE, TENSOR)}
                scalar, tag = _scalar(entry), entry.get(TAG)
                if scalar is not None and isinstance(tag, bytes):
                    yield time, tag.decode(errors="replace"), scalar


def _time(value: object) -> datetime.datetime:
    if isinstance(value, bytes) and len(value) == 8:  # a double; neither is NaN a time nor the year 55,840
        with contextlib.suppress(ValueError, OverflowError, OSError):
            return datetime.datetime.fromtimestamp(struct.unpack("<d", value)[0], datetime.UTC)
    return datetime.datetime.fromtimestamp(0, datetime.UTC)


def _messages(message: bytes, wanted: int) -> Iterator[bytes]:
    """Yield the messages in a field."""
    return (value for number, value in _fields(message) if number == wanted and isinstance(value, bytes))


def _records(path: Path) -> Iterator[bytes]:
    with open_file(path) as file:
        left = os.fstat(file.fileno()).st_size
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            left -= 12 + length  # what is not there is not reserved
            if length > MOST_BYTES or left < 0 or len(record := file.read(length)) < length:
                return
            left -= len(file.read(4))
            yield record


def _scalar(entry: dict[int, Any]) -> str | None:
    simple, encoded = entry.get(SIMPLE), entry.get(TENSOR)
    if isinstance(simple, bytes) and len(simple) == 4:
        return str(np.float32(struct.unpack("<f", simple)[0]))
    if not isinstance(encoded, bytes):
        return None
    tensor = dict(_fields(encoded))
    dtype = tensor.get(DTYPE, 0)
    if not isinstance(dtype, int) or dtype not in LISTS:
        return None
    field, letter = LISTS[dtype]
    content = tensor.get(CONTENT) or tensor.get(field)
    if isinstance(content, int):
        return str(content)
    if content is None or len(content) != struct.calcsize(letter):
        return None  # a vector or a picture
    (value,) = struct.unpack(f"<{letter}", content)
    return str(np.float32(value)) if letter == "f" else str(value)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of the fields of a protobuf message; a damaged rest is left out."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == BYTES:
            size, position = _varint(message, position)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            return
        if position + size > len(message):
            return
        yield number, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return value, position
