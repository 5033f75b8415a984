"""Seeded mutations of valid samples: of bytes, texts, JSON at any path, headers and chunks; none harms anything."""

import copy
import json
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

EXTREME = (
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\x7f" + b"\xff" * 7,
    b"\0",
    b"\xff",
    b"\n",
)
TEXTS = (
    "", " ", "\0", "\n", "a\nb", "\ud7ff", "\N{RIGHT-TO-LEFT OVERRIDE}x", "x" * 300, "../../etc/passwd", "/dev/null",
    "-1", "nan", "inf", "1e309", "9" * 400, "0x10", "{}", "[]", "<script>", "%s%n", "${HOME}", "a=b", "1_0",
    "\N{ARABIC-INDIC DIGIT ONE}",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 255, 256, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e-320,
    1e300, -1e300, 3.0, [], {}, [[]], [None], {"": None}, [0] * 300, ["x"] * 50, [[1, 2], [3]], {"a": {"b": {"c": []}}},
)  # fmt: skip
DEEP = 150_000
LENGTH = 8  # bytes of the length of a header of safetensors
PNG = b"\x89PNG\r\n\x1a\n"
RAW = (  # texts in place of a JSON value
    "NaN", "-Infinity", "1e999", "9" * 5000, "-" + "9" * 30, '"\\ud800"', '"\\u0000"', "[" * DEEP + "]" * DEEP,
    '{"a":' * 3000 + "1" + "}" * 3000, '{"a": 1, "a": 2}', "tru", "'x'", "01", "",
)  # fmt: skip


def of_bytes(samples: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of ``samples`` after one to four mutations."""
    content = bytearray(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(BYTES)(content, samples, rng)
    return bytes(content)


def of_text(samples: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of the texts ``samples`` with lines or words of others, or after a mutation of its bytes."""
    if rng.random() < 0.3:
        return of_bytes(samples, rng)
    text = rng.choice(samples).decode()
    marks = [index for index, character in enumerate(text) if character in "\n ,:=;/{}[]\"'"] or [0]
    start, end = sorted((rng.choice(marks), rng.choice(marks)))
    if end - start > 200:
        end = start + rng.randrange(200)
    kind = rng.randrange(4)
    if kind == 0:
        part = rng.choice(TEXTS)
    elif kind == 1:
        part = text[start:end] * rng.choice((0, 2, 3, 50))
    elif kind == 2:
        other = rng.choice(samples).decode()
        at = rng.randrange(len(other) + 1)
        part = other[at : at + rng.randrange(80)]
    else:
        part = json.dumps(rng.choice(VALUES))
    return (text[:start] + part + text[end:]).encode(errors="surrogatepass")


def of_json(samples: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of the JSON texts ``samples`` with other values at one to three paths, or with mutated bytes."""
    if rng.random() < 0.15:
        return of_bytes(samples, rng)
    content = json.loads(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = _changed(content, rng)
    text = json.dumps(content)
    if rng.random() < 0.1:
        mark = json.dumps("\N{BULLET}")
        text = json.dumps(_at(content, rng, lambda _: "\N{BULLET}")).replace(mark, rng.choice(RAW), 1)
    return text.encode(errors="surrogatepass")


def of_lines(samples: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of ``samples`` with a line changed as JSON, left out, doubled or exchanged, or mutated as a text."""
    if rng.random() < 0.3:
        return of_text(samples, rng)
    lines = rng.choice(samples).splitlines()
    index, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(7)
    if kind == 0:
        del lines[index]
    elif kind == 1:
        lines.insert(other, lines[index])
    elif kind == 2:
        lines[index], lines[other] = lines[other], lines[index]
    else:
        lines[index] = of_json([lines[index]], rng)
    return b"".join(line + b"\n" for line in lines)


def of_safetensors(samples: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of ``samples`` with another header of the right length, often with mutated bytes behind it, too."""
    if rng.random() < 0.3:
        return of_bytes(samples, rng)
    sample = rng.choice(samples)
    end = LENGTH + int.from_bytes(sample[:LENGTH], "little")
    header, body = of_json([sample[LENGTH:end]], rng), sample[end:]
    if rng.random() < 0.3:
        body = of_bytes([body], rng)
    return len(header).to_bytes(LENGTH, "little") + header + body


def of_chunks(samples: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of ``samples``; of a PNG, with chunks changed, left out or doubled whose checksums are right."""
    sample = rng.choice(samples)
    if not sample.startswith(PNG) or rng.random() < 0.3:
        return of_bytes(samples, rng)
    chunks, at = [], len(PNG)
    while at < len(sample):
        end = at + 8 + int.from_bytes(sample[at : at + 4], "big")
        chunks.append((sample[at + 4 : at + 8], sample[at + 8 : end]))
        at = end + 4
    for _ in range(rng.choice((1, 1, 2))):
        index = rng.randrange(len(chunks))
        name, content = chunks[index]
        replaced: list[list[tuple[bytes, bytes]]] = [[], [(name, content)] * 2, [(name, of_bytes([content], rng))]]
        chunks[index : index + 1] = replaced[rng.choice((0, 1, 2, 2, 2, 2))]
        if not chunks:
            break
    whole = (len(content).to_bytes(4, "big") + name + content + _checksum(name + content) for name, content in chunks)
    return PNG + b"".join(whole)


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "big")


def _changed(content: Any, rng: random.Random) -> Any:
    return _at(content, rng, lambda value: _other(value, rng))


def _other(value: Any, rng: random.Random) -> Any:
    kind = rng.randrange(8)
    if kind == 3:
        return rng.choice(TEXTS)
    if kind == 4 and isinstance(value, list) and value:
        return value[: rng.randrange(len(value))] if rng.random() < 0.5 else value + value[: rng.randrange(1, 4)]
    if kind in (5, 6) and isinstance(value, dict) and value:
        return _other_keys(value, rng)
    if kind == 7 and isinstance(value, int | float) and not isinstance(value, bool):
        return rng.choice((-value, value + 1, value * 10**6, value / 3, str(value)))
    return copy.deepcopy(rng.choice(VALUES))


def _other_keys(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return an object with a key renamed, left out or added."""
    changed, key = dict(value), rng.choice(list(value))
    kind = rng.randrange(3)
    if kind == 0:
        changed["other"] = changed.pop(key)
    elif kind == 1:
        del changed[key]
    else:
        changed[rng.choice(("", "x", "__class__", "format_version"))] = rng.choice(VALUES)
    return changed


def _at(content: Any, rng: random.Random, change: Callable[[Any], Any]) -> Any:
    """Return ``content`` with one value changed: of any path, the short ones more often."""
    if not isinstance(content, dict | list) or not content or rng.random() < 0.12:
        return change(content)
    if isinstance(content, dict):
        key = rng.choice(list(content))
        return {name: _at(each, rng, change) if name == key else each for name, each in content.items()}
    index = rng.randrange(len(content))
    return [_at(each, rng, change) if place == index else each for place, each in enumerate(content)]


def _flip(content: bytearray, samples: Sequence[bytes], rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3, 16))):
        if content:
            content[_place(content, rng)] ^= 1 << rng.randrange(8)


def _cut(content: bytearray, samples: Sequence[bytes], rng: random.Random) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _remove(content: bytearray, samples: Sequence[bytes], rng: random.Random) -> None:
    start = _place(content, rng)
    del content[start : start + rng.choice((1, 2, 4, 64))]


def _splice(content: bytearray, samples: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(samples)
    start, at = _place(content, rng), _place(other, rng)
    content[start : start + rng.choice((0, 8, 64))] = other[at : at + rng.choice((1, 8, 64, 512))]


def _extreme(content: bytearray, samples: Sequence[bytes], rng: random.Random) -> None:
    value, start = rng.choice(EXTREME), _place(content, rng)
    content[start : start + len(value)] = value


def _repeat(content: bytearray, samples: Sequence[bytes], rng: random.Random) -> None:
    start = _place(content, rng)
    content[start:start] = content[start : start + rng.choice((1, 4, 32))] * rng.choice((2, 16, 300))


def _place(content: bytes | bytearray, rng: random.Random) -> int:
    """Return an index; every second one is among the first bytes, where headers are."""
    size = max(1, len(content))
    return rng.randrange(min(size, 64)) if rng.random() < 0.5 else rng.randrange(size)


BYTES = (_flip, _flip, _cut, _remove, _splice, _extreme, _extreme, _repeat)
MUTATORS: dict[str, Callable[[Sequence[bytes], random.Random], bytes]] = {
    "bytes": of_bytes,
    "text": of_text,
    "json": of_json,
    "lines": of_lines,
    "safetensors": of_safetensors,
    "chunks": of_chunks,
}


def mutations(kind: str, samples: Sequence[bytes], *, seed: int, first: int, count: int) -> Iterator[bytes]:
    """Yield inputs ``first`` to ``first + count - 1`` of a seed; each depends on its number only."""
    for number in range(first, first + count):
        yield MUTATORS[kind](samples, random.Random(f"{seed}/{number}"))
