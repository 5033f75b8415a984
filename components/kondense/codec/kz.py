"""weights.kz: the tensors of a model in one file, each in its shortest lossless form.

Layout: MAGIC, format version (u16), size of the index deflated (u32) and plain (u32), SHA-256 of these numbers and all
that follows, the index, and the contents of the tensors. The index is JSON: ``description`` (any JSON object) and
``tensors``, a list of [name, dtype, shape, form, bytes]. All numbers are little-endian.
"""

import dataclasses
import hashlib
import io
import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from torch import Tensor

from kondense.codec.bytes import LANES_FROM, inflate
from kondense.codec.tensors import DTYPES, decode_tensor, encode_tensor
from kondense.files import ArtifactError
from kondense.json_text import json_value

MAGIC = b"\x93kz\n"  # the high bit and the newline reveal a transfer as text
FORMAT_VERSION = 3
WITH_LANES = 4  # the version if a tensor has the form `lanes`,
WITH_PLANES_IN_LANES = 5  # if one of another form may have byte planes in lanes,
LATEST_VERSION = 6  # and if one has the places of its non-zeros in lanes
LIMIT_BYTES = 2**30
LARGEST_INDEX = 2**24
CHUNK_BYTES = 2**20
NUMBERS = struct.Struct("<4sHII")
DIGEST_BYTES = 32

Entry = tuple[str, str, list[int], str, int]  # of the index: name, dtype, shape, form, bytes

# Preset dictionary of deflate: common parts of indexes, the most common last.
DICTIONARY = (
    b"running_mean running_var num_batches_tracked int64 uint8 bool float16 bfloat16 resnet8 mobilenet_small lenet300"
    b' {"in_channels":,"out_channels":,"groups":,"in_features":,"out_features":,"num_features":,"type":"Identity"}'
    b'{"bias":true},".shortcut.0","downsample","features.classifier.layer1.0.blocks.0.conv1.bn2.'
    b'"activations":{"conv1":{"scale":0.0,"zero_point":128,"bits":8},"conv2":{"scale":0.0,"zero_point":0,"bits":8},'
    b'"tensor","symmetric":true},"fc.weight":{"scheme":"uniform","bits":4,"granularity":"channel","symmetric":true},'
    b'"masked":["conv1.weight","conv2.weight","fc1.weight","fc2.weight","fc3.weight"],"lineage":[]},"tensors":['
    b'["conv1.bias","float32",[20],"planes",80],["conv1.weight","int8",[20,1,5,5],"integers",'
    b'"fc1.weight":{"scheme":"codebook","bits":5},"fc1.weight::codebook","float32",[32],"planes",['
    b'["fc1.weight::scale","float32",[500],"planes",["fc1.weight","float32",[500,800],"sparse",'
    b'["fc1.bias","float32",[500],"grid",["fc1.weight","int8",[500,800],"integers",'
    b'["fc1.weight::scale","float32",[1],"raw",4],["fc2.bias","float32",[10],"raw",40],["'
    b'{"description":{"format_version":1,"network":{"name":"lenet5","arguments":{"classes":10,"channels":1,'
    b'"image_size":28,"width":1.0}},"edits":{},"quantization":{"weights":{},"activations":{}},"masked":[],"lineage":[]}'
)


def encode(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Return ``description`` and ``tensors`` as a kz file; equal input, equal bytes.

    Args:
        description: a JSON object, such as the content of model.json.
        tensors: tensors by name, of the dtypes in DTYPES.

    Raises:
        ValueError: another dtype, or a description that is not JSON or has non-finite numbers.
    """
    table: list[Entry] = []
    contents = []
    for name, tensor in tensors.items():
        form, content = encode_tensor(tensor)
        dtype = str(tensor.dtype).removeprefix("torch.")
        table.append((name, dtype, list(tensor.shape), form, len(content)))
        contents.append(content)
    index = json.dumps(
        {"description": description, "tensors": table}, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()
    deflater = zlib.compressobj(9, zdict=DICTIONARY)
    deflated = deflater.compress(index) + deflater.flush()
    version = max((_version_of(form, math.prod(shape)) for _, _, shape, form, _ in table), default=FORMAT_VERSION)
    numbers = NUMBERS.pack(MAGIC, version, len(deflated), len(index))
    digest = hashlib.sha256(numbers)
    for content in (deflated, *contents):
        digest.update(content)
    return b"".join([numbers, digest.digest(), deflated, *contents])


def _version_of(form: str, elements: int) -> int:
    """Return the first version that has all that a tensor of a form may hold."""
    if form in ("places", "scattered"):
        return LATEST_VERSION
    if form in ("planes", "sparse") and elements >= LANES_FROM:
        return WITH_PLANES_IN_LANES
    return WITH_LANES if form == "lanes" else FORMAT_VERSION


def decode(content: bytes, *, limit_bytes: int = LIMIT_BYTES) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the tensors of a kz file after checking its digest.

    For any ``content`` it terminates, with memory for at most ``limit_bytes`` of tensors and a small multiple of the
    largest one.

    Raises:
        ArtifactError: the file is damaged, of another version, or has tensors of more than ``limit_bytes``.
    """
    file = io.BytesIO(content)
    head = _read_head(file)
    head.digest.update(memoryview(content)[file.tell() :])
    head.check()
    file.seek(0)
    description, tensors = read(file, limit_bytes=limit_bytes)
    return description, dict(tensors)


def read(file: BinaryIO, *, limit_bytes: int = LIMIT_BYTES) -> tuple[dict[str, Any], Iterator[tuple[str, Tensor]]]:
    """Return the description of a kz file and an iterator that decodes its tensors by name.

    Nothing is read ahead, so ``file`` may be a pipe or a socket, and the content of only one tensor is in memory. The
    digest covers the file, so it is verified when the iteration ends.

    Raises:
        ArtifactError: as ``decode``; also from the iteration.
    """
    head = _read_head(file)
    if head.index_bytes > LARGEST_INDEX or head.deflated_bytes > LARGEST_INDEX:
        raise ArtifactError(f"a kz file's index must be within {LARGEST_INDEX} bytes, but got {head.index_bytes}.")
    deflated = _take(file, head.deflated_bytes)
    head.digest.update(deflated)
    description, table = _read_index(inflate(deflated, head.index_bytes, DICTIONARY), limit_bytes)
    return description, _read_tensors(file, head, table)


@dataclasses.dataclass(frozen=True)
class _Head:
    """The head of a kz file; ``digest`` includes its numbers and is to be updated with the rest."""

    deflated_bytes: int
    index_bytes: int
    expected: bytes
    digest: Any

    def check(self) -> None:
        if self.digest.digest() != self.expected:
            raise ArtifactError("a kz file must match its sha256, but was damaged or cut off.")


def _read_head(file: BinaryIO) -> _Head:
    size = NUMBERS.size + DIGEST_BYTES
    content = _take(file, size, exactly=False)
    if len(content) < size or content[:4] != MAGIC:
        raise ArtifactError(f"a kz file must start with {MAGIC!r} and {size} bytes, but got {content[:4]!r}.")
    _, version, deflated_bytes, index_bytes = NUMBERS.unpack_from(content)
    if not FORMAT_VERSION <= version <= LATEST_VERSION:
        raise ArtifactError(f"a kz file must have format version {FORMAT_VERSION} to {LATEST_VERSION}, not {version}.")
    return _Head(deflated_bytes, index_bytes, content[NUMBERS.size :], hashlib.sha256(content[: NUMBERS.size]))


def _take(file: BinaryIO, size: int, *, exactly: bool = True) -> bytes:
    """Read ``size`` bytes, with memory in proportion to those that exist."""
    content = bytearray()
    while len(content) < size and (part := file.read(min(size - len(content), CHUNK_BYTES))):
        content += part
    if len(content) < size and exactly:
        raise ArtifactError(f"a kz file must have {size - len(content)} more bytes, but is cut off.")
    return bytes(content)


def _read_tensors(file: BinaryIO, head: _Head, table: Sequence[Entry]) -> Iterator[tuple[str, Tensor]]:
    for name, dtype, shape, form, length in table:
        content = _take(file, length)
        head.digest.update(content)
        try:
            tensor = decode_tensor(form, content, dtype, tuple(shape))
        except ArtifactError as error:
            raise ArtifactError(f"tensor {name!r} of a kz file does not decode: {error}") from None
        yield name, tensor
    if file.read(1):
        raise ArtifactError("a kz file must end with its last tensor, but does not.")
    head.check()


def _read_index(index: bytes, limit_bytes: int) -> tuple[dict[str, Any], list[Entry]]:
    """Parse and check the index before anything is allocated for a tensor."""
    try:
        parsed = json_value(index, "a kz file's index")
        description, table = parsed["description"], parsed["tensors"]
        entries: list[Entry] = [(name, dtype, shape, form, length) for name, dtype, shape, form, length in table]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"a kz file's index must be JSON of a description and tensors, but: {error}.") from None
    if not isinstance(description, dict):
        raise ArtifactError(f"a kz file's description must be an object, but got {type(description).__name__}.")
    total = 0
    for name, dtype, shape, form, length in entries:
        if not (isinstance(name, str) and isinstance(dtype, str) and dtype in DTYPES and isinstance(form, str)):
            raise ArtifactError(f"a kz tensor must have a name, a known dtype and a form, but got {name!r}, {dtype!r}.")
        if not (isinstance(shape, list) and len(shape) <= 16 and all(map(_is_size, shape)) and _is_size(length)):
            raise ArtifactError(f"tensor {name!r} of a kz file must have a shape and a length, but got {shape!r}.")
        # A size of zero would allow any other size, so sizes count as at least 1.
        elements_bytes = math.prod(max(size, 1) for size in shape) * DTYPES[dtype].itemsize
        total += elements_bytes
        if length > elements_bytes:  # the size in the form `raw`
            raise ArtifactError(f"tensor {name!r} of a kz file must take {elements_bytes} bytes at most, not {length}.")
    if total > limit_bytes:
        raise ArtifactError(f"a kz file's tensors must have at most {limit_bytes} bytes in total, but have {total}.")
    if len({entry[0] for entry in entries}) != len(entries):
        raise ArtifactError("a kz file's tensors must have different names, but some share one.")
    return description, entries


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62
