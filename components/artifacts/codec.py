"""weights.kz: a model's tensors, each in its cheapest lossless form, in one file.

Layout: MAGIC, format version (u16), bytes of the index deflated (u32) and plain (u32), SHA-256 of all
that follows and of these numbers, the index, the tensors' contents one after the other. The index is
JSON: ``description`` (any JSON object) and ``tensors``, a list of [name, dtype, shape, form, bytes].
All numbers are little-endian.
"""

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from components.artifacts.codec_bytes import inflate
from components.artifacts.codec_tensors import DTYPES, decode_tensor, encode_tensor
from components.artifacts.files import ArtifactError

MAGIC = b"\x93kz\n"  # the high bit and the newline give away a transfer as text
FORMAT_VERSION = 2
LIMIT_BYTES = 2**30
LARGEST_INDEX = 2**24
NUMBERS = struct.Struct("<4sHII")
DIGEST_BYTES = 32

# What indexes usually hold, the likeliest last: deflate then finds it without it being in the file.
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
        description: a JSON object, such as model.json's content.
        tensors: by name, of any dtype that DTYPES lists.

    Raises:
        ValueError: another dtype, or a description that is no JSON or holds non-finite numbers.
    """
    table, contents = [], []
    for name, tensor in tensors.items():
        form, content = encode_tensor(tensor)
        dtype = str(tensor.dtype).removeprefix("torch.")
        table.append([name, dtype, list(tensor.shape), form, len(content)])
        contents.append(content)
    index = json.dumps(
        {"description": description, "tensors": table}, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()
    deflater = zlib.compressobj(9, zdict=DICTIONARY)
    deflated = deflater.compress(index) + deflater.flush()
    numbers = NUMBERS.pack(MAGIC, FORMAT_VERSION, len(deflated), len(index))
    body = deflated + b"".join(contents)
    return numbers + hashlib.sha256(numbers + body).digest() + body


def decode(content: bytes, *, limit_bytes: int = LIMIT_BYTES) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the tensors of a kz file.

    Whatever ``content`` is, this ends, with memory for at most ``limit_bytes`` of tensors and a small
    multiple of the largest one.

    Raises:
        ArtifactError: the file is damaged, of another version, or asks for more than ``limit_bytes``.
    """
    head = NUMBERS.size + DIGEST_BYTES
    if len(content) < head or content[:4] != MAGIC:
        raise ArtifactError(f"a kz file must start with {MAGIC!r} and {head} bytes, but got {content[:4]!r}.")
    _, version, deflated_bytes, index_bytes = NUMBERS.unpack_from(content)
    if version != FORMAT_VERSION:
        raise ArtifactError(f"a kz file must have format version {FORMAT_VERSION}, but got {version}.")
    digest = hashlib.sha256(content[: NUMBERS.size])
    digest.update(memoryview(content)[head:])
    if digest.digest() != content[NUMBERS.size : head]:
        raise ArtifactError("a kz file must match its sha256, but was damaged or cut off.")
    if deflated_bytes > len(content) - head or index_bytes > LARGEST_INDEX:
        raise ArtifactError(f"a kz file's index must be within {LARGEST_INDEX} bytes, but got {index_bytes}.")
    index = inflate(content[head : head + deflated_bytes], index_bytes, DICTIONARY)
    description, table = _read_index(index, len(content) - head - deflated_bytes, limit_bytes)
    tensors = {}
    start = head + deflated_bytes
    for name, dtype, shape, form, length in table:
        try:
            tensors[name] = decode_tensor(form, content[start : start + length], dtype, tuple(shape))
        except ArtifactError as error:
            raise ArtifactError(f"tensor {name!r} of a kz file does not decode: {error}") from None
        start += length
    return description, tensors


Entry = tuple[str, str, list[int], str, int]


def _read_index(index: bytes, contents_bytes: int, limit_bytes: int) -> tuple[dict[str, Any], list[Entry]]:
    """Parse and check the index before anything is allocated for a tensor."""
    try:
        parsed = json.loads(index)
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
        # A zero among the sizes makes any other one free, so they are counted as at least 1.
        total += math.prod(max(size, 1) for size in shape) * DTYPES[dtype].itemsize
    if total > limit_bytes:
        raise ArtifactError(f"a kz file's tensors must come to at most {limit_bytes} bytes, but come to {total}.")
    if len({entry[0] for entry in entries}) != len(entries):
        raise ArtifactError("a kz file's tensors must have different names, but some share one.")
    if sum(entry[4] for entry in entries) != contents_bytes:
        raise ArtifactError("a kz file must end with its last tensor, but does not.")
    return description, entries


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62
