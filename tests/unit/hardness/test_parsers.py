"""Every parser reads mutated inputs or refuses them in one line; `python -m benchmarks.hardness` does more of them."""

import contextlib
import io
import json
import os
import random
import zlib

import numpy as np
import pytest
from kondense.errors import InputError
from PIL import Image
from safetensors.numpy import save

from benchmarks.hardness.fuzz import HANG, MEMORY, READ, REFUSED, TRACEBACK, fuzz, fuzz_here
from benchmarks.hardness.mutators import MUTATORS, mutations
from benchmarks.hardness.parsers.parser import Parser
from benchmarks.hardness.parsers.table import PARSERS

INPUTS = 5000
SHARES = sum(parser.share for parser in PARSERS)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_nothing_escapes(parser):
    count = round(INPUTS * parser.share / SHARES)
    counts = fuzz_here(parser, seed=1, count=count)
    assert counts.escapes == {}
    assert counts.results.total() == count


def picture():
    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, "PNG")
    return file.getvalue()


SAMPLES = {
    "json": b'{"a": [1, {"b": 2}]}',
    "safetensors": save({"w": np.ones(3)}, {"a": "b"}),
    "chunks": picture(),
}


@pytest.mark.parametrize("kind", MUTATORS)
def test_an_input_depends_on_its_number_only(kind):
    samples = [SAMPLES.get(kind, b'{"a": [1, 2.5, {"b": "c"}], "d": null}\n{"e": true}\n')]
    whole = list(mutations(kind, samples, seed=3, first=0, count=300))
    assert list(mutations(kind, samples, seed=3, first=200, count=100)) == whole[200:]
    assert len(set(whole)) > 150
    assert list(mutations(kind, samples, seed=4, first=0, count=300)) != whole


def is_whole(content):
    """Return whether a PNG is a row of chunks with their checksums."""
    at = 8
    while at < len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        at = end + 4
    return at == len(content)


def test_changed_chunks_and_headers_have_the_right_checksums_and_lengths():
    """Else a reader would refuse each of them before it looks at the content."""
    pictures = mutations("chunks", [SAMPLES["chunks"]], seed=0, first=0, count=200)
    assert sum(map(is_whole, pictures)) > 100  # of the others the bytes are changed as they are
    fit = 0
    for content in mutations("safetensors", [SAMPLES["safetensors"]], seed=0, first=0, count=200):
        with contextlib.suppress(ValueError, RecursionError):
            fit += isinstance(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]), dict)
    assert fit > 100


def parser_of(read):
    return Parser("own", "bytes", lambda _: [b"abcdefgh"], read)


def fails(error):
    calls = iter([None])

    def read(content, _):
        if next(calls, error) is not None:  # the valid sample is read
            raise error

    return read


def takes(size):
    held = []

    def read(content, _):
        held.append(bytearray(size if held else 1))

    return read


def spins(content, _):
    while content != b"abcdefgh":
        random.random()


@pytest.mark.parametrize(
    ("read", "result"),
    [
        (lambda content, _: None, READ),
        (fails(InputError("x must be y, but got z.")), REFUSED),
        (fails(InputError("two\nlines")), TRACEBACK),
        (fails(OSError("x" * 10_000)), TRACEBACK),
        (fails(KeyError("x")), TRACEBACK),
        (fails(SystemExit(1)), TRACEBACK),
        (takes(2**27), MEMORY),
    ],
)
def test_every_outcome_is_told_from_the_others(read, result):
    counts = fuzz_here(parser_of(read), seed=0, count=1)
    assert counts.results == {result: 1}


def test_what_does_not_end_is_a_hang(monkeypatch):
    monkeypatch.setattr("benchmarks.hardness.fuzz.LIMIT_S", 0.05)
    assert fuzz_here(parser_of(spins), seed=0, count=1).results == {HANG: 1}


def test_a_process_that_dies_is_counted_and_the_others_go_on():
    def read(content, _):
        if content not in (b"abcdefgh", *list(mutations("bytes", [b"abcdefgh"], seed=0, first=1, count=2))):
            os._exit(1)

    counts = fuzz(parser_of(read), seed=0, count=3)
    assert counts.results == {"killed": 1, READ: 2}
