"""The kz codec: lossless for every dtype and shape, and no input makes it crash, hang or allocate without bound."""

import hashlib
import io
import json
import os
import resource
import struct
import threading
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kondense.codec.integers import decode_integers, encode_integers
from kondense.codec.kz import DICTIONARY, FORMAT_VERSION, MAGIC, NUMBERS, decode, encode, read
from kondense.codec.layout import Layout, encode_header, read_header
from kondense.codec.neighbours import MOST_COLUMNS
from kondense.codec.numbers import decode_numbers, encode_numbers
from kondense.codec.streams import LEAST_PROBABILITY, MOST_SYMBOLS_PER_BYTE, Meter, Reader, Writer
from kondense.codec.tensors import DTYPES, decode_tensor, encode_tensor
from kondense.files import ArtifactError
from numpy.typing import NDArray
from scipy.stats import entropy
from torch import Tensor


def same_bits(first: Tensor, second: Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))


def forge(index: Any, contents: bytes = b"", *, plain: bytes | None = None) -> bytes:
    """Return a kz file with a valid digest around any index."""
    plain = json.dumps(index).encode() if plain is None else plain
    deflater = zlib.compressobj(9, zdict=DICTIONARY)
    deflated = deflater.compress(plain) + deflater.flush()
    numbers = NUMBERS.pack(MAGIC, FORMAT_VERSION, len(deflated), len(plain))
    body = deflated + contents
    return numbers + hashlib.sha256(numbers + body).digest() + body


def sparse_weight(rows: int, columns: int, density: float, bits: int, seed: int = 0) -> Tensor:
    """Return int8 integers whose rows and columns differ in how full they are."""
    generator = torch.Generator().manual_seed(seed)
    row_R1 = torch.rand(rows, 1, generator=generator).square() * 3
    column_1C = torch.rand(1, columns, generator=generator).square() * 3
    kept_RC = torch.rand(rows, columns, generator=generator) < density * row_R1 * column_1C
    limit = 2 ** (bits - 1) - 1
    values_RC = (torch.randn(rows, columns, generator=generator) * limit / 3).round().clamp(-limit, limit)
    return (values_RC * kept_RC).to(torch.int8)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    density = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    content = rng.integers(0, draw(st.sampled_from([2, 5, 256])), count).astype(np.uint8)
    content[rng.random(count) >= density] = 0
    if dtype == torch.bool:
        content &= 1
    return torch.from_numpy(content).view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(max_size=8), tensors(), max_size=3))
def test_every_dtype_and_shape_comes_back_to_the_bit(given_tensors: dict[str, Tensor]) -> None:
    description, found = decode(encode({"key": "ü"}, given_tensors))
    assert description == {"key": "ü"}
    assert list(found) == list(given_tensors)
    assert all(same_bits(found[name], tensor) for name, tensor in given_tensors.items())


@st.composite
def matrices(draw: st.DrawFn) -> NDArray[np.int16]:
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    low = draw(st.integers(-600, 0))
    high = low + draw(st.integers(0, 423))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    matrix_RC = rng.integers(low, high + 1, shape).astype(np.int16)
    matrix_RC[rng.random(shape) >= draw(st.floats(0, 1))] = min(high, 0)
    return matrix_RC


@settings(max_examples=100, deadline=None)
@given(matrices())
def test_integers_come_back(matrix_RC: NDArray[np.int16]) -> None:
    assert np.array_equal(decode_integers(encode_integers(matrix_RC), *matrix_RC.shape), matrix_RC)


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -0.0, 1e-45])
def test_special_floats_come_back_to_the_bit(special: float) -> None:
    weight = torch.zeros(20, 30)
    weight[3, 4] = special
    weight[7] = special
    (found,) = decode(encode({}, {"weight": weight}))[1].values()
    assert same_bits(found, weight)


@pytest.mark.parametrize("bits", [2, 4, 5, 8])
def test_sparse_integers_cost_less_than_their_order_0_entropy(bits: int) -> None:
    matrix_RC = sparse_weight(400, 500, 0.1, bits).numpy().astype(np.int16)
    _, counts = np.unique(matrix_RC, return_counts=True)
    assert len(encode_integers(matrix_RC)) < 0.97 * entropy(counts, base=2) * matrix_RC.size / 8


@pytest.mark.parametrize(("line", "density"), [(1, 1.0), (5, 1.0), (28, 1.0), (28, 0.6)])
def test_values_alike_side_by_side_cost_less(line: int, density: float) -> None:
    rng = np.random.default_rng(0)
    height, width = (1, 200) if line == 1 else (line, line)
    columns = height * width * max(1, 200 // line**2)
    images = rng.normal(size=(60, columns // (height * width), height, width))
    for axis in {2: height, 3: width}:
        images += 0.9 * np.roll(images, 1, axis)
    matrix_RC = (2 * images).reshape(60, columns).round() * (rng.random((60, columns)) < density)
    integers_RC = matrix_RC.clip(-7, 7).astype(np.int16)
    content = encode_integers(integers_RC)
    shuffled_RC = rng.permuted(integers_RC, axis=1)
    assert read_header(content, 60, columns)[0].line == line
    assert len(content) < 0.97 * len(encode_integers(shuffled_RC))
    assert np.array_equal(decode_integers(content, 60, columns), integers_RC)


def test_non_zeros_that_cluster_in_images_cost_less() -> None:
    rng = np.random.default_rng(0)
    centre = np.pad(rng.random((100, 28, 28)) < 0.01, ((0, 0), (1, 1), (1, 1)))
    clusters = np.zeros((100, 28, 28), np.int16)
    for down, right in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2)):
        clusters |= centre[:, down : down + 28, right : right + 28]
    integers_RC = clusters.reshape(100, 784)
    content = encode_integers(integers_RC)
    assert read_header(content, 100, 784)[0].line == 28
    assert len(content) < 0.8 * len(encode_integers(rng.permuted(integers_RC, axis=1)))
    assert np.array_equal(decode_integers(content, 100, 784), integers_RC)


@pytest.mark.parametrize(("columns", "line"), [(MOST_COLUMNS + 1, 5), (40, 40), (40, 41), (1, 1)])
def test_lines_that_make_no_images_are_refused(columns: int, line: int) -> None:
    layout = Layout(1, columns, -1, 1, False, 0, 0, 0, 1, prior=0, line=line)
    with pytest.raises(ArtifactError, match="header in range"):
        decode_integers(encode_header(layout) + bytes(64), 1, columns)


def test_dense_floats_are_not_made_larger() -> None:
    weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    assert len(encode({}, {"weight": weight})) < 0.95 * 40_000


@pytest.mark.parametrize(("dtype", "columns"), [(torch.float32, 1200), (torch.int8, 6000)])
def test_memory_is_at_most_3_times_the_float32_size(dtype: torch.dtype, columns: int) -> None:
    values = 20 * torch.randn(1024, columns, generator=torch.Generator().manual_seed(0))
    tensors, peaks = {"w": values.round().to(dtype) if dtype is torch.int8 else values}, []
    tracemalloc.start()
    try:
        content = encode({}, tensors)
        peaks.append(tracemalloc.get_traced_memory()[1])
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        decode(content)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert max(peaks) < 3 * 4 * values.numel()


def test_long_planes_that_repeat_are_deflated() -> None:
    row = torch.randn(500, generator=torch.Generator().manual_seed(0))
    tensors = {"w": row.repeat(2400)}
    content = encode({}, tensors)
    assert len(content) < 0.02 * tensors["w"].nbytes
    assert torch.equal(decode(content)[1]["w"], tensors["w"])


def test_equal_input_gives_equal_bytes() -> None:
    weight = sparse_weight(30, 40, 0.1, 4)
    assert encode({"a": 1}, {"w": weight}) == encode({"a": 1}, {"w": weight.clone()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [-20, -7, 0, 5])
def test_floats_on_a_grid_of_a_power_of_two_cost_what_their_integers_do(dtype: torch.dtype, exponent: int) -> None:
    steps = torch.randint(-15, 16, (60,), generator=torch.Generator().manual_seed(1))
    bias = (steps.double() * 2.0**exponent).to(dtype)
    form, content = encode_tensor(bias)
    assert same_bits(decode_tensor(form, content, str(dtype).removeprefix("torch."), (60,)), bias)
    assert len(content) <= 60 * 5 / 8 + 16


@pytest.mark.parametrize("value", [2.0**-149, 2.0**120, float("inf"), float("nan"), -0.0, 1.1])
def test_floats_off_the_grid_come_back_to_the_bit(value: float) -> None:
    bias = torch.arange(40) / 8
    bias[3] = value
    form, content = encode_tensor(bias)
    assert same_bits(decode_tensor(form, content, "float32", (40,)), bias)


def test_a_grid_out_of_its_dtypes_range_is_refused() -> None:
    content = struct.pack("<h", 90) + encode_integers(np.arange(20, dtype=np.int16).reshape(1, 20))
    with pytest.raises(ArtifactError, match="range of float16"):
        decode_tensor("grid", content, "float16", (20,))
    with pytest.raises(ArtifactError, match="exponent must be in"):
        decode_tensor("grid", struct.pack("<h", 101) + content[2:], "float32", (20,))


@pytest.fixture(scope="module")
def small_file() -> bytes:
    state = {
        "weight": sparse_weight(8, 12, 0.3, 4),
        "scale": torch.full((8,), 0.5),
        "bias": torch.arange(-6, 6) / 8,
        "dense": torch.randn(5, 5, generator=torch.Generator().manual_seed(0)),
    }
    return encode({"network": {"name": "lenet5"}}, state)


def test_a_file_cut_at_any_length_is_refused(small_file: bytes) -> None:
    for length in range(len(small_file)):
        with pytest.raises(ArtifactError):
            decode(small_file[:length])


def test_a_file_with_any_byte_changed_is_refused(small_file: bytes) -> None:
    for place in range(len(small_file)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(small_file)
            damaged[place] ^= flip
            with pytest.raises(ArtifactError):
                decode(bytes(damaged))


def test_bytes_after_the_end_are_refused(small_file: bytes) -> None:
    with pytest.raises(ArtifactError):
        decode(small_file + b"\0")


def test_a_stream_is_read_no_further_than_the_tensor_asked_for(small_file: bytes) -> None:
    file = io.BytesIO(small_file)
    description, tensors = read(file)
    places = [file.tell()]
    for _ in range(4):
        next(tensors)
        places.append(file.tell())
    assert description == {"network": {"name": "lenet5"}}
    assert places == sorted(set(places)) and places[-1] == len(small_file)
    with pytest.raises(StopIteration):
        next(tensors)


def test_a_pipe_gives_what_the_file_does(small_file: bytes) -> None:
    entrance, exit_ = os.pipe()

    def write() -> None:
        with os.fdopen(exit_, "wb", buffering=0) as pipe:
            for start in range(0, len(small_file), 7):
                pipe.write(small_file[start : start + 7])

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(entrance, "rb", buffering=0) as pipe:
        found = dict(read(pipe)[1])
    writer.join()
    expected = decode(small_file)[1]
    assert list(found) == list(expected)
    assert all(same_bits(found[name], tensor) for name, tensor in expected.items())


def test_a_stream_that_was_cut_or_changed_does_not_come_to_its_end(small_file: bytes) -> None:
    for length in range(len(small_file)):
        with pytest.raises(ArtifactError):
            dict(read(io.BytesIO(small_file[:length]))[1])
    for place in range(len(small_file)):
        damaged = bytearray(small_file)
        damaged[place] ^= 0x01
        with pytest.raises(ArtifactError):
            dict(read(io.BytesIO(bytes(damaged)))[1])
    with pytest.raises(ArtifactError, match="end with its last tensor"):
        dict(read(io.BytesIO(small_file + b"\0"))[1])


def renewed(content: bytes) -> bytes:
    """Return ``content`` with a digest that fits it, as an attacker would make it."""
    body = content[NUMBERS.size + 32 :]
    numbers = content[: NUMBERS.size]
    return numbers + hashlib.sha256(numbers + body).digest() + body


def test_a_forged_digest_leads_to_an_error_or_a_bounded_result(small_file: bytes) -> None:
    for place in (*range(4, NUMBERS.size), *range(NUMBERS.size + 32, len(small_file))):
        for flip in (0x01, 0x10, 0xFF):
            damaged = bytearray(small_file)
            damaged[place] ^= flip
            try:
                _, found = decode(renewed(bytes(damaged)), limit_bytes=10_000)
            except ArtifactError:
                continue
            assert sum(tensor.numel() * tensor.element_size() for tensor in found.values()) <= 10_000


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=200),
    form=st.sampled_from(["raw", "planes", "sparse", "integers", "grid", "lanes", "places", "scattered", "other"]),
)
def test_forged_contents_lead_to_an_error_or_a_tensor(content: bytes, form: str) -> None:
    dtype = "float16" if form == "grid" else "int8"
    index = {"description": {}, "tensors": [["w", dtype, [30, 40], form, len(content)]]}
    try:
        _, found = decode(forge(index, content))
    except ArtifactError:
        return
    assert found["w"].shape == (30, 40)


@pytest.mark.parametrize(
    "entry",
    [
        ["w", "float32", [2**40], "integers", 0],
        ["w", "float32", [2**31, 2**31], "raw", 0],
        ["w", "float32", [2**61, 0], "raw", 0],
        ["w", "float32", [-1], "raw", 0],
        ["w", "float32", [1.5], "raw", 0],
        ["w", "float32", [True], "raw", 0],
        ["w", "float32", "3", "raw", 0],
        ["w", "float31", [1], "raw", 0],
        ["w", ["float32"], [1], "raw", 0],
        ["w", "float32", [1], "raw", -4],
        ["w", "float32", [1], "raw", 2**60],
        [1, "float32", [0], "raw", 0],
        ["w", "float32", [0], "raw"],
        7,
    ],
)
def test_absurd_entries_are_refused_before_anything_is_allocated(entry: Any) -> None:
    with pytest.raises(ArtifactError):
        decode(forge({"description": {}, "tensors": [entry]}))


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"[]",
        b"nothing",
        b"[" * 100_000,
        b'{"description":[],"tensors":[]}',
        b'{"description":{},"tensors":3}',
        b"\xff",
    ],
)
def test_an_index_that_is_none_is_refused(plain: bytes) -> None:
    with pytest.raises(ArtifactError):
        decode(forge(None, plain=plain))


def test_two_tensors_of_one_name_are_refused() -> None:
    entry = ["w", "uint8", [0], "raw", 0]
    with pytest.raises(ArtifactError, match="different names"):
        decode(forge({"description": {}, "tensors": [entry, entry]}))


def test_a_large_index_is_refused_without_inflating_it() -> None:
    deflated = zlib.compress(b"0" * 10)
    numbers = NUMBERS.pack(MAGIC, FORMAT_VERSION, len(deflated), 2**31)
    with pytest.raises(ArtifactError, match="index"):
        decode(numbers + hashlib.sha256(numbers + deflated).digest() + deflated)


def test_another_version_is_refused(small_file: bytes) -> None:
    other = bytearray(small_file)
    other[4] = 9
    with pytest.raises(ArtifactError, match="format version 3 to 6, not 9"):
        decode(bytes(other))


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(ArtifactError, match="at most 1000 bytes"):
        decode(encode({}, {"w": torch.zeros(1000)}), limit_bytes=1000)


def test_a_short_stream_cannot_stand_for_many_symbols() -> None:
    # The cost of the likeliest symbol bounds how many of them one byte can hold.
    assert 8 / -np.log2(1 - LEAST_PROBABILITY) < MOST_SYMBOLS_PER_BYTE
    with pytest.raises(ArtifactError, match="too short"):
        Reader(b"\0" * 4).symbols(np.ones(2), 10**9, None)


@pytest.mark.parametrize("shape", [(2, 400_000_000), (400_000_000, 2), (800_000_000,)])
@pytest.mark.parametrize(("sparse", "density_steps"), [(0, 0), (1, 0), (1, 2)])
def test_a_short_file_cannot_ask_for_much_memory(shape: tuple[int, ...], sparse: int, density_steps: int) -> None:
    content = encode_header(Layout(0, 0, -7, 7, bool(sparse), density_steps, 10**8, 0, 3, prior=0)) + b"\x55" * 64
    index = {"description": {}, "tensors": [["w", "int8", list(shape), "integers", len(content)]]}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArtifactError, match="too short"):
        decode(forge(index, content))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1), max_size=5), st.binary(max_size=12))
def test_numbers_come_back_and_others_are_refused(numbers: list[int], content: bytes) -> None:
    encoded = encode_numbers(numbers)
    assert decode_numbers(b"x" + encoded + b"rest", len(numbers), 1) == (numbers, 1 + len(encoded))
    try:
        found, end = decode_numbers(content, 2)
    except ArtifactError:
        return
    assert end <= len(content) and all(0 <= number < 2**63 for number in found)


def test_a_price_is_what_encoding_takes() -> None:
    rng = np.random.default_rng(0)
    probability_N = rng.random(5000)
    bits_N = (rng.random(5000) < probability_N).astype(np.int32)
    symbols_M = rng.choice(7, 3000, p=np.arange(1, 8) / 28).astype(np.int32)
    meter, writer = Meter(), Writer()
    for stream in (meter, writer):
        stream.bits(probability_N, bits_N)
        stream.symbols(np.arange(1.0, 8.0), 3000, symbols_M)
    assert abs(meter.bits_spent - 8 * len(writer.finish())) < 100


def test_streams_mix_bits_and_symbols() -> None:
    rng = np.random.default_rng(0)
    probability_N = rng.random(500)
    bits_N = (rng.random(500) < probability_N).astype(np.int32)
    symbols_M = rng.integers(0, 7, 300).astype(np.int32)
    weight_K = np.arange(1.0, 8.0)
    writer = Writer()
    writer.bits(probability_N, bits_N)
    writer.symbols(weight_K, 300, symbols_M)
    reader = Reader(writer.finish())
    assert np.array_equal(reader.bits(probability_N, None), bits_N)
    assert np.array_equal(reader.symbols(weight_K, 300, None), symbols_M)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype must be one of"):
        encode({}, {"w": torch.zeros(3, dtype=torch.complex32)})
