"""The coder of large tensors: lossless, as short as the plain coder, and safe with any content."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kondense.codec import bytes as planes
from kondense.codec import integers, tensors
from kondense.codec.integers import decode_integers, encode_integers
from kondense.codec.kz import NUMBERS, decode, encode
from kondense.codec.lanes import LANES_LOG, LEAST, UNITS, LaneReader, LaneWriter, in_units, lanes_log
from kondense.codec.streams import Writer
from kondense.codec.tensors import decode_tensor
from kondense.files import ArtifactError
from numpy.typing import NDArray


def normal(rows: int, columns: int, spread: float, seed: int = 0) -> NDArray[np.int16]:
    values_RC = np.random.default_rng(seed).normal(0, spread, (rows, columns))
    return values_RC.round().clip(-127, 127).astype(np.int16)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 90), st.sampled_from([0.01, 0.3, 2.0, 40.0]), st.integers(0, 99))
def test_matrices_come_back(rows: int, columns: int, spread: float, seed: int) -> None:
    matrix_RC = normal(rows, columns, spread, seed)
    for sparse in (False, True):
        content = encode_integers(matrix_RC, lanes=True, sparse=sparse)
        assert np.array_equal(decode_integers(content, rows, columns, lanes=True), matrix_RC)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=1024))
def test_probabilities_are_positive_and_sum_up(weights: list[float]) -> None:
    units_K = in_units(np.array(weights))
    assert int(units_K.sum(dtype=np.int64)) == UNITS
    assert units_K.min() >= 1
    assert units_K.max() <= UNITS - LEAST or len(weights) > UNITS - LEAST


@pytest.mark.parametrize("log", range(LANES_LOG[0], LANES_LOG[1] + 1))
def test_every_number_of_lanes_decodes(log: int) -> None:
    rng = np.random.default_rng(log)
    symbols_N = np.minimum(rng.geometric(0.3, 7 * 2**log + 5), 20).astype(np.int32) - 1
    weights = (0.7 ** np.arange(20), np.ones(20))
    writer = LaneWriter(1024 << log)
    assert lanes_log(1024 << log) == log
    for weight_K in weights:
        writer.symbols(weight_K, len(symbols_N), symbols_N)
        writer.symbols(weight_K, 3, symbols_N[:3])
    reader = LaneReader(writer.finish())
    for weight_K in weights:
        assert np.array_equal(reader.symbols(weight_K, len(symbols_N), None), symbols_N)
        assert np.array_equal(reader.symbols(weight_K, 3, None), symbols_N[:3])


@pytest.mark.parametrize("spread", [1.0, 5.0, 40.0])
def test_lanes_cost_at_most_a_thousandth_more(spread: float) -> None:
    matrix_RC = normal(512, 1024, spread)
    plain = len(encode_integers(matrix_RC))
    lanes = len(encode_integers(matrix_RC, lanes=True, sparse=False))
    assert lanes <= 1.001 * plain + 512  # bytes; 512 lanes


@pytest.mark.parametrize("log", [LANES_LOG[0], LANES_LOG[1]])
@pytest.mark.parametrize("probability", [0.0, 2.0**-12, 0.1, 0.9, 1.0])
def test_bits_of_any_probability_decode(log: int, probability: float) -> None:
    """Long calls, of which the last steps fill the first states, short ones, and a bit against all odds."""
    rng = np.random.default_rng(log)
    count = 7 * 2**log + 5
    probability_N = np.clip(probability + rng.normal(0, 0.02, count), 0, 1)
    bits_N = (rng.random(count) < probability_N).astype(np.int32)
    bits_N[3] ^= 1
    writer = LaneWriter(1024 << log)
    writer.bits(probability_N, bits_N)
    writer.symbols(np.ones(3), count, bits_N)
    writer.bits(probability_N[:3], bits_N[:3])
    writer.bits(probability_N, bits_N)
    reader = LaneReader(writer.finish())
    assert np.array_equal(reader.bits(probability_N, None), bits_N)
    assert np.array_equal(reader.symbols(np.ones(3), count, None), bits_N)
    assert np.array_equal(reader.bits(probability_N[:3], None), bits_N[:3])
    assert np.array_equal(reader.bits(probability_N, None), bits_N)


def test_bits_in_lanes_cost_what_their_probabilities_tell() -> None:
    rng = np.random.default_rng(0)
    probability_N = rng.choice([0.01, 0.1, 0.6], 2**20)
    bits_N = (rng.random(2**20) < probability_N).astype(np.int32)
    writer = LaneWriter(2**20)
    writer.bits(probability_N, bits_N)
    ideal = -np.log2(np.where(bits_N, probability_N, 1 - probability_N)).sum() / 8
    assert ideal <= len(writer.finish()) <= 1.001 * ideal + 512  # bytes; 1024 lanes


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.complex128])
def test_places_of_large_tensors_are_coded_in_lanes(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """At little cost, and in a file whose version says so."""
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(np.where(rng.random((1, 1000)) < 0.5, 0, normal(1100, 1000, 20.0)))
    weight[rng.random(weight.shape) < 0.6] = 0
    weight = (weight.to(torch.int8) if dtype == torch.int8 else weight * 0.3).to(dtype)
    content = encode({}, {"w": weight})
    assert torch.equal(decode(content)[1]["w"], weight)
    assert NUMBERS.unpack_from(content)[1] == 6
    monkeypatch.setattr(tensors, "LANES_FROM", 2**30)
    plain = encode({}, {"w": weight})
    assert NUMBERS.unpack_from(plain)[1] < 6
    assert len(content) <= 1.01 * len(plain)


def test_only_a_file_with_a_large_full_tensor_has_the_new_version(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.from_numpy(normal(64, 64, 20.0)).to(torch.int8)
    weight[weight == 0] = 1
    before = encode({}, {"w": weight})
    monkeypatch.setattr(tensors, "LANES_FROM", 4096)
    after = encode({}, {"w": weight})
    half_empty = encode({}, {"w": weight * (torch.arange(64) % 2).to(torch.int8)})
    assert [NUMBERS.unpack_from(content)[1] for content in (before, after, half_empty)] == [3, 4, 6]
    for content in (before, after):
        assert torch.equal(decode(content)[1]["w"], weight)
    assert torch.equal(decode(half_empty)[1]["w"], weight * (torch.arange(64) % 2).to(torch.int8))


@pytest.fixture(scope="module")
def content() -> bytes:
    return encode_integers(normal(40, 60, 5.0), lanes=True, sparse=False)


def test_a_stream_that_is_cut_is_refused(content: bytes) -> None:
    for length in range(0, len(content), 7):
        with pytest.raises(ArtifactError):
            decode_tensor("lanes", content[:length], "int8", (40, 60))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_changed_stream_is_refused_or_gives_a_tensor(content: bytes, data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["lanes", "places"]))
    if form == "places":
        content = encode_integers(normal(40, 60, 0.5), lanes=True, sparse=True)
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        tensor = decode_tensor(form, bytes(changed), "int8", (40, 60))
    except ArtifactError:
        return
    assert tensor.shape == (40, 60)


def test_a_stream_with_fewer_calls_than_its_matrix_is_refused() -> None:
    writer = LaneWriter(1)
    weight_K = np.ones(4)
    writer.symbols(weight_K, 64, np.zeros(64, np.int32))
    reader = LaneReader(writer.finish())
    reader.symbols(weight_K, 64, None)
    with pytest.raises(ArtifactError, match="long calls"):
        reader.symbols(weight_K, 64, None)


def test_states_of_another_number_of_lanes_are_refused() -> None:
    writer = LaneWriter(1)
    writer.symbols(np.ones(4), 64, np.zeros(64, np.int32))
    content = bytearray(writer.finish())
    content[0] += 1
    with pytest.raises(ArtifactError, match="states"):
        LaneReader(bytes(content))


def test_a_short_stream_cannot_stand_for_many_symbols() -> None:
    writer = LaneWriter(1)
    content = writer.finish()
    assert len(content) < len(Writer().finish()) + 100
    with pytest.raises(ArtifactError, match="too short"):
        LaneReader(content).expect(2**40)


def test_long_planes_of_floats_are_coded_in_lanes_at_little_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = 0.02 * torch.randn(700, 1000, generator=torch.Generator().manual_seed(0))
    content = encode({}, {"w": values})
    assert torch.equal(decode(content)[1]["w"], values)
    assert NUMBERS.unpack_from(content)[1] == 5
    monkeypatch.setattr(planes, "LANES_FROM", 2**30)
    plain = encode({}, {"w": values})
    assert plain != content
    assert len(content) <= 1.002 * len(plain)
    assert torch.equal(decode(plain)[1]["w"], values)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_places_of_zeros_are_coded_where_they_tell_something(share: float) -> None:
    """Zeros at random cost nothing more in lanes; whole columns of them are places worth coding."""
    matrix_RC = normal(1100, 1000, 30.0)
    scattered_RC = matrix_RC * (np.random.default_rng(1).random(matrix_RC.shape) >= share)
    columns_RC = matrix_RC * (np.random.default_rng(1).random(1000) >= share)
    assert not integers.places_save(scattered_RC.astype(np.int16))
    assert integers.places_save(columns_RC.astype(np.int16))
    content = encode_integers(scattered_RC.astype(np.int16), lanes=True, sparse=False)
    assert np.array_equal(decode_integers(content, 1100, 1000, lanes=True), scattered_RC)
    assert len(content) <= 1.01 * len(encode_integers(scattered_RC.astype(np.int16)))
